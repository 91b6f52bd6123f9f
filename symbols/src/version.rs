//! Go version strings.

use std::fmt;

/// A Go release, parsed from strings such as `go1.26.0`, `go1.20`, `go1.27rc1`, `devel go1.28-abcdef ...`,
/// `go1.24.3 X:staticlockranking` or with a vendor's suffix (`go1.22.5-custom`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GoVersion {
    /// The string as found.
    pub raw: String,
    /// The minor release: 26 of `go1.26.8`.
    pub minor: u32,
    /// The patch release; 0 where there is none.
    pub patch: u32,
    /// `rc1`, `beta2`: not a release.
    pub pre: Option<String>,
    /// A development version: layouts may be of the next release.
    pub devel: bool,
    /// GOEXPERIMENTs named after ` X:`; some change layouts.
    pub experiments: Vec<String>,
}

/// The oldest minor release that is supported.
pub const OLDEST_MINOR: u32 = 18;

impl GoVersion {
    /// Parses what `runtime.Version()` returns. `None` where no `go1.N` is in it.
    pub fn parse(raw: &str) -> Option<Self> {
        let start = raw
            .match_indices("go1.")
            .map(|(i, _)| i)
            .find(|&i| i == 0 || !raw.as_bytes().get(i - 1).is_some_and(|b| b.is_ascii_alphanumeric()))?;
        let rest = raw.get(start + 4..)?;
        let (minor, rest) = number(rest)?;
        let (patch, rest) = match rest.strip_prefix('.').and_then(number) {
            Some((patch, rest)) => (patch, rest),
            None => (0, rest),
        };
        let pre_len = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let pre = rest.get(..pre_len).filter(|p| p.starts_with("rc") || p.starts_with("beta"));
        let experiments = match raw.split_once(" X:") {
            Some((_, list)) => {
                let list = list.split(' ').next().unwrap_or("");
                list.split(',').filter(|e| !e.is_empty()).map(str::to_owned).collect()
            }
            None => Vec::new(),
        };
        Some(GoVersion {
            raw: raw.to_owned(),
            minor,
            patch,
            pre: pre.map(str::to_owned),
            devel: raw.starts_with("devel"),
            experiments,
        })
    }

    /// A release by its numbers.
    pub fn release(minor: u32, patch: u32) -> Self {
        GoVersion {
            raw: if patch == 0 && minor < 21 {
                format!("go1.{minor}")
            } else {
                format!("go1.{minor}.{patch}")
            },
            minor,
            patch,
            pre: None,
            devel: false,
            experiments: Vec::new(),
        }
    }

    /// Whether this is a released version without experiments, so that facts recorded for exactly this release hold.
    pub fn is_plain_release(&self) -> bool {
        self.pre.is_none() && !self.devel && self.experiments.is_empty()
    }
}

impl fmt::Display for GoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raw)
    }
}

fn number(s: &str) -> Option<(u32, &str)> {
    let len = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let value = s.get(..len)?.parse().ok()?;
    Some((value, s.get(len..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(raw: &str) -> Option<(u32, u32)> {
        GoVersion::parse(raw).map(|v| (v.minor, v.patch))
    }

    #[test]
    fn forms() {
        assert_eq!(numbers("go1.26.8"), Some((26, 8)));
        assert_eq!(numbers("go1.20"), Some((20, 0)));
        assert_eq!(numbers("devel go1.28-abcdef Tue Jan 3"), Some((28, 0)));
        assert_eq!(numbers("go1.22.5-custom"), Some((22, 5)));
        assert_eq!(numbers("notgo1.22"), None);
        assert_eq!(numbers("go1."), None);
        assert_eq!(numbers("go1.99999999999"), None);
        assert_eq!(numbers(""), None);
        let rc = GoVersion::parse("go1.27rc1").unwrap();
        assert_eq!((rc.minor, rc.pre.as_deref()), (27, Some("rc1")));
        let experiment = GoVersion::parse("go1.24.3 X:synctest,aliastypeparams").unwrap();
        assert_eq!(experiment.experiments, ["synctest", "aliastypeparams"]);
        assert!(!experiment.is_plain_release());
    }
}
