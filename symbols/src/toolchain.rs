//! The generated table files, one per Go toolchain, and the choice of one for a version.

use crate::version::{GoVersion, OLDEST_MINOR};

/// `(minor, patch, contents)`, ascending. The list is written by `generate-tables` beside the files themselves.
const FILES: &[(u32, u32, &str)] = include!("../data/index.rs");

/// How far ahead of the newest table a version may be for the newest table to be offered as a neighbour.
const NEIGHBOUR_DISTANCE: u32 = 2;

/// A Go release that there is a table for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    /// 26 of `go1.26.8`.
    pub minor: u32,
    /// 8 of `go1.26.8`.
    pub patch: u32,
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "go1.{}.{}", self.minor, self.patch)
    }
}

/// How well the table that was found fits the version that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// Made from exactly this release.
    Exact,
    /// Made from the nearest patch of the same minor, or from the same release without its GOEXPERIMENTs.
    /// Layouts do change within a minor: calibrate.
    SameMinor {
        /// The release it was made from.
        used: Release,
    },
    /// Made from a neighbouring minor: only scalars have a chance to be right, and only after calibration.
    NeighbourMinor {
        /// The release it was made from.
        used: Release,
    },
    /// Read from the DWARF of the target itself.
    Dwarf,
}

/// GOEXPERIMENTs that change neither structs nor code of the runtime.
const HARMLESS: &[&str] = &[
    "aliastypeparams",
    "boringcrypto",
    "coverageredesign",
    "fieldtrack",
    "jsonv2",
    "loopvar",
    "noaliastypeparams",
    "nocoverageredesign",
    "rangefunc",
];

/// Whether the version is the release of its numbers, so that what was learned from that release holds.
fn is_release(version: &GoVersion) -> bool {
    // Since 1.21 even the first release of a minor is `.0`; `go1.25-20250209` is somebody's snapshot.
    let named = version.raw.contains(&format!("go1.{}.{}", version.minor, version.patch))
        || (version.minor < 21 && version.patch == 0);
    let harmless = version.experiments.iter().all(|e| HARMLESS.contains(&e.as_str()));
    named && harmless && version.pre.is_none() && !version.devel
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Evidence::Exact => f.write_str("table of this very release"),
            Evidence::SameMinor { used } => write!(f, "table of {used}, the nearest patch"),
            Evidence::NeighbourMinor { used } => write!(f, "table of {used}, a neighbouring release"),
            Evidence::Dwarf => f.write_str("the program's own DWARF"),
        }
    }
}

/// The file to use for `version`, its release, and how well it fits.
pub(crate) fn file(version: &GoVersion) -> Option<(&'static str, Release, Evidence)> {
    let key = |&(minor, patch, _): &(u32, u32, &str)| (minor, patch);
    if is_release(version)
        && let Ok(i) = FILES.binary_search_by_key(&(version.minor, version.patch), key)
    {
        let &(minor, patch, text) = FILES.get(i)?;
        return Some((text, Release { minor, patch }, Evidence::Exact));
    }
    // Between two patches equally near, the older: fields are moved by later patches, rarely moved back.
    let same = FILES.iter().filter(|f| f.0 == version.minor).min_by_key(|f| f.1.abs_diff(version.patch));
    if let Some(&(minor, patch, text)) = same {
        let used = Release { minor, patch };
        return Some((text, used, Evidence::SameMinor { used }));
    }
    if version.minor < OLDEST_MINOR {
        return None;
    }
    let near = |f: &&(u32, u32, &str)| f.0.abs_diff(version.minor) <= NEIGHBOUR_DISTANCE;
    let neighbour = FILES.iter().filter(near).min_by_key(|f| {
        // The patch that is nearest in time: the last one below, the first one above.
        let patch = if f.0 < version.minor { u32::MAX - f.1 } else { f.1 };
        (f.0.abs_diff(version.minor), patch)
    });
    let &(minor, patch, text) = neighbour?;
    let used = Release { minor, patch };
    Some((text, used, Evidence::NeighbourMinor { used }))
}

/// The files that may know `version`, best first: that of [`file`], then the one on the other side of a release that
/// lies between two.
pub(crate) fn files(version: &GoVersion) -> Vec<(&'static str, Evidence)> {
    let Some((text, _, evidence)) = file(version) else { return Vec::new() };
    let mut files = vec![(text, evidence)];
    if evidence != Evidence::Exact
        && let Some((below, above)) = bracket(version)
    {
        let other = if std::ptr::eq(below, text) { above } else { below };
        let known = FILES.iter().find(|f| std::ptr::eq(f.2, other));
        let used = known.map(|&(minor, patch, _)| Release { minor, patch });
        files.extend(used.map(|used| (other, Evidence::SameMinor { used })));
    }
    files
}

/// The file of a release, and the evidence it would be for another minor.
#[cfg(feature = "generate")]
pub(crate) fn as_neighbour(used: Release) -> Option<(&'static str, Evidence)> {
    let file = FILES.iter().find(|f| (f.0, f.1) == (used.minor, used.patch))?;
    Some((file.2, Evidence::NeighbourMinor { used }))
}

/// The files of the nearest patches below and above a release that lies between two of the same minor.
pub(crate) fn bracket(version: &GoVersion) -> Option<(&'static str, &'static str)> {
    if !is_release(version) {
        return None;
    }
    let same = || FILES.iter().filter(|f| f.0 == version.minor);
    let below = same().rfind(|f| f.1 <= version.patch)?;
    let above = same().find(|f| f.1 >= version.patch)?;
    Some((below.2, above.2))
}

/// The releases that there is a table for, oldest first.
pub fn releases() -> impl Iterator<Item = Release> {
    FILES.iter().map(|&(minor, patch, _)| Release { minor, patch })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_sorted_and_cover_every_minor() {
        let all: Vec<Release> = releases().collect();
        assert!(all.windows(2).all(|w| w[0] < w[1]), "{all:?}");
        for minor in OLDEST_MINOR..=27 {
            assert!(all.iter().any(|r| r.minor == minor), "no table for go1.{minor}");
        }
    }

    #[test]
    fn choice() {
        let found = |raw: &str| file(&GoVersion::parse(raw).unwrap()).map(|(_, r, e)| (r, e));
        let newest = releases().last().unwrap();
        let exact = found(&newest.to_string()).unwrap();
        assert_eq!(exact, (newest, Evidence::Exact));
        let (used, evidence) = found("go1.21.12").unwrap();
        assert_eq!(used, Release { minor: 21, patch: 13 });
        assert_eq!(evidence, Evidence::SameMinor { used });
        let (_, experiment) = found(&format!("{newest} X:arenas")).unwrap();
        assert_eq!(experiment, Evidence::SameMinor { used: newest });
        let (_, next) = found(&format!("go1.{}.0", newest.minor + 1)).unwrap();
        assert_eq!(next, Evidence::NeighbourMinor { used: newest });
        let (_, harmless) = found(&format!("{newest} X:boringcrypto")).unwrap();
        assert_eq!(harmless, Evidence::Exact);
        let (used, snapshot) = found("go1.25-20250209-RC00").unwrap();
        assert_eq!((used, snapshot), (Release { minor: 25, patch: 0 }, Evidence::SameMinor { used }));
        assert!(found("go1.17.13").is_none());
        assert!(found("go1.99.0").is_none());
    }
}
