//! Recipes: which operand of which function names a variable. The form in which the table files keep them.

use std::fmt;
use std::str::FromStr;

use super::code::Fingerprint;
use crate::tables::Map;

/// All functions of recipes are of this package; the table files leave it away.
pub const PACKAGE: &str = "runtime.";

/// What kind of thing a variable is: how well its recipes carry over to other releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipeKind {
    /// At most a word, referred to as a whole.
    Word,
    /// A string or a slice.
    Slice,
    /// A struct or an array: references go to its fields, which move between releases.
    Aggregate,
}

/// One operand that names a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// The function, without [`PACKAGE`].
    pub function: String,
    /// Which of its references, from 0.
    pub ordinal: usize,
    /// Where in the variable it points.
    pub addend: u64,
    /// What the instruction does.
    pub operation: String,
}

/// How to find one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// What it is.
    pub kind: RecipeKind,
    /// Its size in bytes.
    pub size: u64,
    /// Who names it.
    pub witnesses: Vec<Witness>,
}

/// A function as the learner saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How many references it has.
    pub references: usize,
    /// Its code.
    pub fingerprint: Fingerprint,
}

/// The recipes learned from one way of compiling, as text.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "generate", derive(serde::Deserialize))]
pub(super) struct Set<'a> {
    /// By name, without [`PACKAGE`]: number of references, fingerprint.
    #[cfg_attr(feature = "generate", serde(borrow))]
    pub(super) functions: Map<'a>,
    /// By name.
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

/// A line of a table file that does not say what it should.
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
