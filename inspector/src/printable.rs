//! Text from a target, made safe for terminals.
//!
//! A process chooses its name, its path and its build info. Printed unchanged, they could move the
//! cursor, change colours, fake lines, or make a terminal answer as if somebody had typed.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Replaces all characters that could act on a terminal by an escape such as `\x1b` or `\u{202e}`:
/// control characters (line ends included), invisible and direction-changing characters, and bytes
/// that are not UTF-8. A backslash is not escaped.
pub fn printable(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(acts) => Cow::Borrowed(text),
        _ => Cow::Owned(escape(bytes)),
    }
}

/// Escapes a string as [`printable`] does.
pub fn printable_str(text: &str) -> Cow<'_, str> {
    printable(text.as_bytes())
}

fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if acts(c) && c.is_ascii() => {
                    let _ = write!(out, "\\x{:02x}", u32::from(c));
                }
                c if acts(c) => {
                    let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        for b in chunk.invalid() {
            let _ = write!(out, "\\x{b:02x}");
        }
    }
    out
}

fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts_on_a_terminal() {
        assert!(matches!(printable("größe\\ /a b".as_bytes()), Cow::Borrowed(_)));
        assert_eq!(printable(b"a\x1b]0;t\x07\r\nb\x7f"), "a\\x1b]0;t\\x07\\r\\nb\\x7f");
        assert_eq!(printable(b"\xff\xc3("), "\\xff\\xc3(");
        assert_eq!(printable_str("\u{9b}31m\u{202e}x\u{200b}"), "\\u{9b}31m\\u{202e}x\\u{200b}");
        let all: Vec<u8> = (0..=255).collect();
        assert!(!printable(&all).chars().any(acts));
    }
}
