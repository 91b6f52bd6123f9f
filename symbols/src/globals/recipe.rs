//! Recipes: the operands of functions that refer to a variable, in the text form of the table files.

use std::fmt;
use std::str::FromStr;

use super::code::Fingerprint;
use crate::tables::Map;

/// Package of all functions in recipes. The table files omit it.
pub const PACKAGE: &str = "runtime.";

/// Kind of a variable. Recipes of some kinds also work for other releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipeKind {
    /// Variable of at most one word, referred to as a whole.
    Word,
    /// String or slice.
    Slice,
    /// Struct or array. References point to its fields, which move between releases.
    Aggregate,
}

/// Witness: one operand that refers to a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Name of the function, without [`PACKAGE`].
    pub function: String,
    /// Index of the reference in the function, from 0.
    pub ordinal: usize,
    /// Offset from the start of the variable to the target of the operand, in bytes.
    pub addend: u64,
    /// Operation of the instruction.
    pub operation: String,
}

/// Recipe for finding one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Kind of the variable.
    pub kind: RecipeKind,
    /// Size of the variable in bytes.
    pub size: u64,
    /// Operands that refer to the variable.
    pub witnesses: Vec<Witness>,
}

/// Shape of a function in the program that recipes were learned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Number of references in the function.
    pub references: usize,
    /// Fingerprint of the function's code.
    pub fingerprint: Fingerprint,
}

/// Recipes learned from one compilation, as text.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "generate", derive(serde::Deserialize))]
pub(super) struct Set<'a> {
    /// Number of references and fingerprint, by name of the function without [`PACKAGE`].
    #[cfg_attr(feature = "generate", serde(borrow))]
    pub(super) functions: Map<'a>,
    /// Recipes, by name of the variable.
    #[cfg_attr(feature = "generate", serde(borrow))]
    pub(super) variables: Map<'a>,
}

impl Set<'_> {
    pub(super) fn recipe(&self, variable: &str) -> Option<Recipe> {
        self.variables.get(variable)?.parse().ok()
    }

    pub(super) fn shape(&self, function: &str) -> Option<Shape> {
        self.functions.get(function)?.parse().ok()
    }
}

/// Damaged line of a table file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a damaged recipe")]
pub struct ParseError;

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.references, self.fingerprint)
    }
}

impl FromStr for Shape {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let (references, fingerprint) = s.split_once(' ').ok_or(ParseError)?;
        Ok(Shape {
            references: references.parse().map_err(|_| ParseError)?,
            fingerprint: fingerprint.parse().map_err(|_| ParseError)?,
        })
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            RecipeKind::Word => "word",
            RecipeKind::Slice => "slice",
            RecipeKind::Aggregate => "aggregate",
        };
        write!(f, "{kind} {}", self.size)?;
        for w in &self.witnesses {
            write!(f, " {}:{}:{}:{}", w.function, w.ordinal, w.addend, w.operation)?;
        }
        Ok(())
    }
}

impl FromStr for Recipe {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let mut words = s.split(' ');
        let kind = match words.next() {
            Some("word") => RecipeKind::Word,
            Some("slice") => RecipeKind::Slice,
            Some("aggregate") => RecipeKind::Aggregate,
            _ => return Err(ParseError),
        };
        let size = words.next().and_then(|w| w.parse().ok()).ok_or(ParseError)?;
        let witnesses = words.map(|w| witness(w).ok_or(ParseError)).collect::<Result<_, _>>()?;
        Ok(Recipe { kind, size, witnesses })
    }
}

fn witness(word: &str) -> Option<Witness> {
    let mut parts = word.rsplitn(4, ':');
    let operation = parts.next()?.to_owned();
    let addend = parts.next()?.parse().ok()?;
    let ordinal = parts.next()?.parse().ok()?;
    Some(Witness { function: parts.next()?.to_owned(), ordinal, addend, operation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_round_trip() {
        let line = "slice 24 allgadd:2:0:Mov (*mheap).alloc.func1:7:8:Lea";
        let recipe: Recipe = line.parse().unwrap();
        assert_eq!(recipe.to_string(), line);
        assert_eq!(recipe.witnesses[1].function, "(*mheap).alloc.func1");
        assert!("slice".parse::<Recipe>().is_err());
        assert!("slice 24 allgadd:2:Mov".parse::<Recipe>().is_err());
        let shape: Shape = "9 00000000000000ff".parse().unwrap();
        assert_eq!((shape.references, shape.to_string().as_str()), (9, "9 00000000000000ff"));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text(text: String) {
            let _ = text.parse::<Recipe>();
            let _ = text.parse::<Shape>();
        }
    }
}
