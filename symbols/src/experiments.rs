//! What GOEXPERIMENTs do to the runtime's structs, as measured by `generate-tables experiments` for each experiment that
//! each minor release knows.

use std::collections::BTreeMap;

use crate::toolchain::Release;
use crate::version::GoVersion;

/// `(minor, patch, contents)`, ascending. The list is written by `generate-tables` beside the files themselves.
const FILES: &[(u32, u32, &str)] = include!("../data/amd64/experiments/index.rs");

/// What was measured with the experiments of one release.
#[derive(serde::Deserialize)]
struct File<'a> {
    /// Names of what the release does anyway.
    #[serde(borrow)]
    default: Vec<&'a str>,
    /// No struct is another one.
    #[serde(borrow)]
    same: Vec<&'a str>,
    #[serde(borrow)]
    different: BTreeMap<&'a str, Difference<'a>>,
}

/// What of the table of a release is another one with an experiment. An empty text stands for what is no more.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Difference<'a> {
    /// Lines of structs, by name.
    #[serde(borrow)]
    pub(crate) structs: BTreeMap<&'a str, &'a str>,
    /// Names of the types of variables.
    #[serde(borrow)]
    pub(crate) variables: BTreeMap<&'a str, &'a str>,
    /// Shapes of functions of the recipes.
    #[serde(borrow)]
    pub(crate) functions: BTreeMap<&'a str, &'a str>,
    /// Recipes, by variable.
    #[serde(borrow)]
    pub(crate) recipes: BTreeMap<&'a str, &'a str>,
}

impl Difference<'_> {
    /// What two experiments change together. `None` where both change the same struct. Code that both change is not known.
    fn and(mut self, other: Self) -> Option<Self> {
        let apart = other.structs.keys().all(|name| !self.structs.contains_key(name))
            && other.variables.keys().all(|name| !self.variables.contains_key(name));
        apart.then_some(())?;
        self.structs.extend(other.structs);
        self.variables.extend(other.variables);
        for (to, from) in [(&mut self.functions, other.functions), (&mut self.recipes, other.recipes)] {
            for (name, line) in from {
                to.entry(name).and_modify(|line| *line = "").or_insert(line);
            }
        }
        Some(self)
    }
}

/// What the experiments of a version do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing that is seen from outside.
    None,
    /// This, to the table of this release.
    Measured(Release, Difference<'static>),
    /// At least one was never measured, or two of them change the same struct.
    Unknown,
}

/// What the experiments of `version` do.
pub(crate) fn effect(version: &GoVersion) -> Effect {
    if version.experiments.is_empty() {
        return Effect::None;
    }
    let Some(&(minor, patch, text)) = FILES.iter().find(|f| f.0 == version.minor) else {
        return Effect::Unknown;
    };
    let Ok(mut file) = serde_json::from_str::<File<'static>>(text) else { return Effect::Unknown };
    let mut effect = Effect::None;
    for name in version.experiments.iter().map(String::as_str) {
        if file.default.contains(&name) || file.same.contains(&name) {
            continue;
        }
        let measured = Release { minor, patch };
        let difference = match (effect, file.different.remove(name)) {
            (Effect::None, Some(difference)) => Some(difference),
            (Effect::Measured(_, one), Some(other)) => one.and(other),
            _ => None,
        };
        let Some(difference) = difference else { return Effect::Unknown };
        effect = Effect::Measured(measured, difference);
    }
    effect
}

#[cfg(test)]
mod tests {
    use super::*;
    fn of(version: &str) -> Effect {
        effect(&GoVersion::parse(version).unwrap())
    }

    #[test]
    fn minors_were_measured() {
        for minor in 18..=27 {
            let files: Vec<_> = FILES.iter().filter(|f| f.0 == minor).collect();
            assert_eq!(files.len(), 1, "go1.{minor}");
            let file: File<'_> = serde_json::from_str(files[0].2).unwrap();
            assert!(file.same.len() + file.different.len() >= 3, "go1.{minor}");
            // A lock then has a rank, in all releases.
            assert!(file.different.contains_key("staticlockranking"), "go1.{minor}");
        }
    }

    #[test]
    fn two_differences() {
        let one = |name, line| Difference {
            structs: BTreeMap::from([(name, line)]),
            functions: BTreeMap::from([("schedinit", line)]),
            ..Difference::default()
        };
        let both = one("runtime.g", "8").and(one("runtime.m", "16")).unwrap();
        assert_eq!(both.structs.len(), 2);
        assert_eq!(both.functions.get("schedinit"), Some(&""));
        assert_eq!(one("runtime.g", "8").and(one("runtime.g", "16")), None);
    }

    #[test]
    fn effects() {
        assert_eq!(of("go1.25.7"), Effect::None);
        assert!(matches!(of("go1.25.7 X:greenteagc,jsonv2"), Effect::None | Effect::Measured(..)));
        assert_eq!(of("go1.25.7 X:nodwarf5,arenas,noarenas"), Effect::None);
        assert_eq!(of("go1.24.13 X:boringcrypto,arenas"), Effect::None);
        assert!(matches!(of("go1.24.13 X:noswissmap"), Effect::Measured(..)));
        assert_eq!(of("go1.25.7-1 X:systemcrypto"), Effect::Unknown);
        let Effect::Measured(release, difference) = of("go1.25.7 X:staticlockranking,jsonv2") else {
            panic!("not measured")
        };
        assert_eq!(release.minor, 25);
        assert!(difference.structs.get("runtime.mutex").is_some_and(|line| line.starts_with("24 ")));
    }
}
