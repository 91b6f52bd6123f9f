//! Version strings of Go.

use std::fmt;

/// Go version, parsed from a string. Examples: `go1.26.0`, `go1.20`, `go1.27rc1`, `devel go1.28-abcdef ...`,
/// `go1.24.3 X:staticlockranking`, `go1.26.8-X:jsonv2`, or with a vendor's suffix (`go1.22.5-custom`,
/// `go1.22.12 (Red Hat 1.22.12-1.el9_5) X:strictfipsruntime`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GoVersion {
    /// Original version string.
    pub raw: String,
    /// Minor version: 26 in `go1.26.8`.
    pub minor: u32,
    /// Patch number; 0 if there is none.
    pub patch: u32,
    /// Suffix such as `rc1` or `beta2`. `None` for a release.
    pub pre: Option<String>,
    /// True for a development version: layouts can be those of the next release.
    pub devel: bool,
    /// GOEXPERIMENTs after ` X:` or `-X:`, or from the build settings. Some change layouts.
    pub experiments: Vec<String>,
}

/// Oldest supported minor release.
pub const OLDEST_MINOR: u32 = 18;

impl GoVersion {
    /// Parses a string from `runtime.Version()`. `None` if it does not contain `go1.N`.
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
        let experiments = experiments(rest);
        Some(GoVersion {
            raw: raw.to_owned(),
            minor,
            patch,
            pre: pre.map(str::to_owned),
            // Development versions: `devel go1.25-…` before Go 1.25, `go1.26-devel_…` from then on.
            devel: raw.starts_with("devel") || rest.starts_with("-devel"),
            experiments,
        })
    }

    /// Creates the version of a release from its numbers.
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

    /// Adds the experiments of a build setting (`GOEXPERIMENT=a,b`). A vendor's version string can omit them.
    #[must_use]
    pub fn with_experiments(mut self, setting: &str) -> Self {
        for name in setting.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if !self.experiments.iter().any(|known| known == name) {
                self.experiments.push(name.to_owned());
            }
        }
        self
    }

    /// Returns true for a release without experiments. Facts recorded for exactly this release then apply.
    pub fn is_plain_release(&self) -> bool {
        self.pre.is_none() && !self.devel && self.experiments.is_empty()
    }
}

impl fmt::Display for GoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raw)
    }
}

/// Returns the experiments of all lists ` X:a,b` and `-X:a,b` (from Go 1.26 on) after the numbers of a
/// release. Vendors write their own text before a list, and can add a list of their own.
fn experiments(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (at, mark) in text.match_indices("X:") {
        let after = text.get(..at).and_then(|before| before.chars().next_back());
        if !after.is_some_and(|c| c == '-' || c.is_whitespace()) {
            continue;
        }
        let list = text.get(at + mark.len()..).unwrap_or_default();
        let end =
            list.find(|c: char| !(c.is_ascii_alphanumeric() || c == ',' || c == '_')).unwrap_or(list.len());
        for name in list.get(..end).unwrap_or_default().split(',').filter(|name| !name.is_empty()) {
            if !found.iter().any(|known| known == name) {
                found.push(name.to_owned());
            }
        }
    }
    found
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

    #[test]
    fn vendors_and_experiments() {
        let parsed = |raw: &str| {
            let v = GoVersion::parse(raw).unwrap_or_else(|| panic!("{raw}"));
            assert!(!v.devel && v.pre.is_none(), "{raw}");
            ((v.minor, v.patch), v.experiments.join(","))
        };
        let no = String::new();
        assert_eq!(parsed("go1.25.7 X:jsonv2"), ((25, 7), "jsonv2".to_owned()));
        assert_eq!(parsed("go1.26.8-X:jsonv2"), ((26, 8), "jsonv2".to_owned()));
        assert_eq!(parsed("go1.26.8-X:jsonv2,nogreenteagc"), ((26, 8), "jsonv2,nogreenteagc".to_owned()));
        let red_hat = "go1.22.12 (Red Hat 1.22.12-1.el9_5) X:strictfipsruntime";
        assert_eq!(parsed(red_hat), ((22, 12), "strictfipsruntime".to_owned()));
        assert_eq!(parsed("go1.25.7-1 X:systemcrypto"), ((25, 7), "systemcrypto".to_owned()));
        assert_eq!(parsed("go1.26.8-acme"), ((26, 8), no.clone()));
        assert_eq!(
            parsed("go1.26.8-acme-X:jsonv2 X:systemcrypto,jsonv2"),
            ((26, 8), "jsonv2,systemcrypto".to_owned())
        );
        assert_eq!(parsed("go1.20.14b4"), ((20, 14), no.clone()));
        assert_eq!(parsed("go1.18.10b7 X:boringcrypto"), ((18, 10), "boringcrypto".to_owned()));
        assert_eq!(parsed("go1.24.13-fips"), ((24, 13), no.clone()));
        assert_eq!(parsed("go1.24.13-MAX:not"), ((24, 13), no.clone()));
        assert_eq!(parsed("go1.24.13 X:"), ((24, 13), no));
        let devel = GoVersion::parse("devel go1.28-abcdef Tue Jan 3 X:jsonv2").unwrap();
        assert!(devel.devel && devel.experiments == ["jsonv2"]);
        let newer = GoVersion::parse("go1.28-devel_abcdef Tue Jan 3").unwrap();
        assert!(newer.devel, "the form of Go 1.25 and later");
        let set = GoVersion::parse("go1.25.7 X:jsonv2").unwrap().with_experiments("jsonv2,synctest,");
        assert_eq!(set.experiments, ["jsonv2", "synctest"]);
    }
}
