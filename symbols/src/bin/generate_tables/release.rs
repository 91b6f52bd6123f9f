//! Toolchains that tables are made with.

use std::fmt;

use symbols::layout;
use symbols::version::GoVersion;

/// Release, release candidate or beta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release {
    /// Minor version: 28 in `go1.28rc1`.
    pub(crate) minor: u32,
    /// Patch number of a release; 0 for candidates and betas.
    pub(crate) patch: u32,
    /// Suffix such as `rc1` or `beta2`. `None` for a release.
    pub(crate) pre: Option<&'static str>,
}

impl Release {
    /// Parses a version such as `1.28.1`, `go1.28.1` or `1.28rc1`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let numbers = text.strip_prefix("go").unwrap_or(text).strip_prefix("1.")?;
        if let Some((minor, patch)) = numbers.split_once('.') {
            return Some(Release { minor: minor.parse().ok()?, patch: patch.parse().ok()?, pre: None });
        }
        let at = numbers.find(|c: char| !c.is_ascii_digit())?;
        let (minor, pre) = numbers.split_at_checked(at)?;
        let number = pre.strip_prefix("rc").or_else(|| pre.strip_prefix("beta"))?;
        number.parse::<u32>().ok()?;
        // Deliberate leak: only a few values in one run of the program.
        let pre = Box::leak(pre.to_owned().into_boxed_str());
        Some(Release { minor: minor.parse().ok()?, patch: 0, pre: Some(pre) })
    }

    /// Returns the value for `GOTOOLCHAIN`. Before 1.21, the name of a first release has no `.0`.
    pub(crate) fn toolchain(self) -> String {
        if self.minor < 21 && self.patch == 0 && self.pre.is_none() {
            format!("go1.{}", self.minor)
        } else {
            self.to_string()
        }
    }

    /// Returns the Go version that a program built with this toolchain reports.
    pub(crate) fn version(self) -> Option<GoVersion> {
        GoVersion::parse(&self.toolchain())
    }
}

impl From<layout::Release> for Release {
    fn from(release: layout::Release) -> Self {
        Release { minor: release.minor, patch: release.patch, pre: None }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pre {
            Some(pre) => write!(f, "go1.{}{pre}", self.minor),
            None => write!(f, "go1.{}.{}", self.minor, self.patch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let text = |text: &str| Release::parse(text).map(|r| (r.to_string(), r.toolchain()));
        let both = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(text("1.28rc1"), both("go1.28rc1", "go1.28rc1"));
        assert_eq!(text("go1.18.0"), both("go1.18.0", "go1.18"));
        assert_eq!(text("1.27.4"), both("go1.27.4", "go1.27.4"));
        assert_eq!(text("1.28"), None);
        assert_eq!(text("1.28rc"), None);
        assert_eq!(text("1.28x1"), None);
        assert_eq!(Release::parse("1.28rc1").unwrap().version().unwrap().pre.as_deref(), Some("rc1"));
    }
}
