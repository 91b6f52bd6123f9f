//! Regular expressions on the command line.

use regex::bytes::Regex;

/// Parses a regular expression.
///
/// # Errors
/// Returns a description of the fault in one line. The library draws a picture of several lines, which fits
/// into no message.
pub(super) fn parse_pattern(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| {
        let drawn = error.to_string();
        let cause = drawn.rsplit_once("error: ").map_or(drawn.as_str(), |(_, cause)| cause);
        cause.split_whitespace().collect::<Vec<_>>().join(" ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_one_line() {
        for (wrong, expected) in
            [("(", "unclosed group"), ("[a", "unclosed character class"), ("a{999}{999}{999}", "size limit")]
        {
            let error = parse_pattern(wrong).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{wrong}: {error}");
        }
        assert!(parse_pattern("a.b").unwrap().is_match(b"axb"));
    }
}
