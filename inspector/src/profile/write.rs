//! Common parts of all output formats: selection of the values, and the size limit.

use super::Profile;

/// Maximum size of the output. A hostile process can have stacks of a thousand names of 64 KiB
/// each.
pub const MAX_WRITTEN: usize = 512 << 20;

/// Reason why a profile cannot be written in a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The profile has no such sample type.
    #[error("the profile has no sample type {asked:?}; it has {}", has.join(", "))]
    NoSampleType {
        /// Requested sample type.
        asked: String,
        /// Sample types of the profile.
        has: Vec<String>,
    },
    /// The names are too long, and the stacks too many, for this format.
    #[error("the profile has more than {} MiB in this format; pprof's is smaller", MAX_WRITTEN >> 20)]
    TooLarge,
    /// The writer of the format failed.
    #[error("the profile cannot be written: {0}")]
    Failed(String),
}

impl Profile {
    /// Index of the sample type with this name; without a name, the default one.
    ///
    /// # Errors
    /// Returns [`WriteError::NoSampleType`] if there is none with this name.
    pub fn sample_type(&self, name: Option<&str>) -> Result<usize, WriteError> {
        let Some(name) = name else { return Ok(self.default_sample_type) };
        let found = self.sample_types.iter().position(|t| t.kind == name);
        found.ok_or_else(|| WriteError::NoSampleType {
            asked: name.to_owned(),
            has: self.sample_types.iter().map(|t| t.kind.clone()).collect(),
        })
    }

    /// Frames of a stack, the innermost first: function and line. A location of which nothing is
    /// known is one frame without a function.
    pub fn frames<'p>(&'p self, stack: &'p [usize]) -> impl Iterator<Item = Frame<'p>> {
        stack.iter().filter_map(|&index| self.locations.get(index)).flat_map(|location| {
            let known = location.lines.iter().filter_map(|line| {
                let function = self.functions.get(line.function)?;
                Some(Frame {
                    address: location.address,
                    function: Some(function),
                    index: line.function,
                    line: line.line,
                })
            });
            let unknown = location.lines.is_empty().then_some(Frame {
                address: location.address,
                function: None,
                index: usize::MAX,
                line: 0,
            });
            known.chain(unknown)
        })
    }
}

/// Frame of a stack.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'p> {
    /// Address of the location.
    pub address: u64,
    /// Function of the frame, if known.
    pub function: Option<&'p super::Function>,
    /// Index of the function; `usize::MAX` if unknown.
    pub index: usize,
    /// Line in the source file; 0 if unknown.
    pub line: u32,
}

impl Frame<'_> {
    /// Name of the function, or the address if it has none.
    pub fn name(&self) -> std::borrow::Cow<'_, str> {
        match self.function {
            Some(function) if !function.name.is_empty() => function.name.as_str().into(),
            _ => format!("{:#x}", self.address).into(),
        }
    }
}

/// Text that does not grow beyond [`MAX_WRITTEN`].
#[derive(Debug, Default)]
pub(super) struct Bounded {
    pub(super) text: String,
}

impl Bounded {
    pub(super) fn push(&mut self, part: &str) -> Result<(), WriteError> {
        if self.text.len().saturating_add(part.len()) > MAX_WRITTEN {
            return Err(WriteError::TooLarge);
        }
        self.text.push_str(part);
        Ok(())
    }
}
