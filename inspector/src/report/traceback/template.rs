//! Template for the text of stacks with the same program counters. Such texts differ only in argument words
//! and, if addresses are shown, in the stack's address. Thousands of goroutines wait in one place: the text
//! is made once and filled in for each.

use std::ops::Range;

use symbols::pclntab::args::ArgToken;

/// Part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// Constant text: a range of [`Template::text`].
    Text(Range<usize>),
    /// Argument word with this index.
    Word(usize),
    /// Addresses ` fp=… sp=…` and ` pc=…`. `fp` and `sp` are relative to the innermost frame's stack pointer.
    Addresses { fp: u64, sp: u64, pc: u64 },
}

/// Text with gaps for argument words and addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Template {
    text: Vec<u8>,
    pieces: Vec<Piece>,
}

impl Template {
    /// Appends constant text.
    pub(super) fn push(&mut self, text: &[u8]) {
        let from = self.text.len();
        self.text.extend_from_slice(text);
        match self.pieces.last_mut() {
            Some(Piece::Text(range)) => range.end = self.text.len(),
            _ => self.pieces.push(Piece::Text(from..self.text.len())),
        }
    }

    /// Appends the addresses of a frame. `fp` and `sp` are distances from the innermost frame's stack
    /// pointer.
    pub(super) fn push_addresses(&mut self, fp: u64, sp: u64, pc: u64) {
        self.pieces.push(Piece::Addresses { fp, sp, pc });
    }

    /// Appends the argument list between its parentheses (`runtime.printArgs`). Its words begin at index
    /// `first_word` of the stack's words.
    pub(super) fn push_args(&mut self, tokens: &[ArgToken], first_word: usize) {
        let mut word = first_word;
        let mut first = true;
        for token in tokens {
            if !first && *token != ArgToken::Close {
                self.push(b", ");
            }
            first = false;
            match *token {
                ArgToken::Open => {
                    self.push(b"{");
                    first = true;
                }
                ArgToken::Close => self.push(b"}"),
                ArgToken::DotDotDot => self.push(b"..."),
                ArgToken::OffsetTooLarge => self.push(b"_"),
                ArgToken::Slot { live, .. } => {
                    self.pieces.push(Piece::Word(word));
                    word += 1;
                    if !live {
                        self.push(b"?");
                    }
                }
            }
        }
    }

    /// Writes the text of a stack with the argument words `words` and the stack pointer `stack_pointer`.
    pub(super) fn fill(&self, words: &[u64], stack_pointer: u64, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(range) => out.extend_from_slice(self.text.get(range.clone()).unwrap_or_default()),
                Piece::Word(index) => push_hex(words.get(*index).copied().unwrap_or(0), out),
                Piece::Addresses { fp, sp, pc } => {
                    out.extend_from_slice(b" fp=");
                    push_hex(stack_pointer.wrapping_add(*fp), out);
                    out.extend_from_slice(b" sp=");
                    push_hex(stack_pointer.wrapping_add(*sp), out);
                    out.extend_from_slice(b" pc=");
                    push_hex(*pc, out);
                }
            }
        }
    }

    /// Returns the approximate size of the template in bytes.
    pub(super) fn size(&self) -> usize {
        self.text.len() + self.pieces.len() * size_of::<Piece>()
    }
}

/// Appends `0x…` without the standard formatter: dumps have millions of such numbers.
fn push_hex(value: u64, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut buffer = [0u8; 18];
    let mut at = buffer.len();
    let mut rest = value;
    loop {
        at -= 1;
        buffer[at] = DIGITS[(rest & 15) as usize];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    buffer[at - 1] = b'x';
    buffer[at - 2] = b'0';
    out.extend_from_slice(&buffer[at - 2..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &Template, words: &[u64], sp: u64) -> String {
        let mut out = Vec::new();
        template.fill(words, sp, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn arguments_and_addresses_are_filled_in() {
        let slot = |live| ArgToken::Slot { offset: 0, size: 8, live };
        let mut template = Template::default();
        template.push(b"main.f(");
        template.push_args(
            &[
                slot(true),
                ArgToken::Open,
                slot(false),
                ArgToken::OffsetTooLarge,
                ArgToken::Close,
                ArgToken::DotDotDot,
            ],
            1,
        );
        template.push(b")");
        template.push_addresses(0x20, 8, 0x401000);
        assert_eq!(
            filled(&template, &[9, 0, u64::MAX], 0xc000_0000),
            "main.f(0x0, {0xffffffffffffffff?, _}, ...) fp=0xc0000020 sp=0xc0000008 pc=0x401000"
        );
        // Missing words are printed as zeros, never as words of another frame.
        assert_eq!(filled(&template, &[9], 0), "main.f(0x0, {0x0?, _}, ...) fp=0x20 sp=0x8 pc=0x401000");
    }

    proptest::proptest! {
        #[test]
        fn hexadecimal_as_the_standard_library_has_it(value: u64) {
            let mut out = Vec::new();
            push_hex(value, &mut out);
            proptest::prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{value:#x}"));
        }
    }
}
