//! Effects of GOEXPERIMENTs on the runtime's structs. `generate-tables experiments` measures each experiment
//! that a minor release knows.

use std::collections::BTreeMap;

use crate::toolchain::Release;
use crate::version::GoVersion;

/// Measured releases as `(minor, patch, contents)`, ascending. `generate-tables` writes this list beside the
/// files.
const FILES: &[(u32, u32, &str)] = include!("../data/amd64/experiments/index.rs");

/// Measurements with the experiments of one release.
#[derive(serde::Deserialize)]
struct File<'a> {
    /// Names of experiments that are the default of the release.
    #[serde(borrow)]
    default: Vec<&'a str>,
    /// Names of experiments that change no struct.
    #[serde(borrow)]
    same: Vec<&'a str>,
    #[serde(borrow)]
    different: BTreeMap<&'a str, Difference<'a>>,
}

/// Difference between the table of an experiment and the plain table of the release. An empty text means that
/// the entry does not exist with the experiment.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Difference<'a> {
    /// Lines of structs, by name.
    #[serde(borrow)]
    pub(crate) structs: BTreeMap<&'a str, &'a str>,
    /// Type names of variables, by variable.
    #[serde(borrow)]
    pub(crate) variables: BTreeMap<&'a str, &'a str>,
    /// Shapes of functions in recipes, by function.
    #[serde(borrow)]
    pub(crate) functions: BTreeMap<&'a str, &'a str>,
    /// Recipes, by variable.
    #[serde(borrow)]
    pub(crate) recipes: BTreeMap<&'a str, &'a str>,
}

impl Difference<'_> {
    /// Combines the differences of two experiments. `None` if both change the same struct or variable type.
    /// Functions and recipes that both change become unknown.
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

/// Effect of a version's experiments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Empty effect: no struct changes.
    None,
    /// Measured differences to the table of this release.
    Measured(Release, Difference<'static>),
    /// Unknown effect: an experiment was never measured, or two experiments change the same struct.
    Unknown,
}

/// Returns the effect of the experiments of `version`.
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
            // Check of a known effect: locks have a rank with this experiment, in all releases.
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
