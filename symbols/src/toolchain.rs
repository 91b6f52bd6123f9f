//! Choice of a generated table file for a version. There is one file for each Go toolchain.

use std::sync::{LazyLock, OnceLock};

use crate::experiments::{self, Difference, Effect};
use crate::image::Arch;
use crate::tables::{self, File};
use crate::version::{GoVersion, OLDEST_MINOR};

/// Minor releases whose tables are hidden. See [`withhold`].
static WITHHELD: OnceLock<Vec<u32>> = OnceLock::new();

/// Table files of releases as (minor, patch, file), ascending.
static FILES: LazyLock<Vec<(u32, u32, File)>> =
    LazyLock::new(|| tables::releases().filter(|f| !is_withheld(f.0)).collect());

/// Table files of candidates and betas as (minor, name such as `rc1`, file), ascending.
static CANDIDATES: LazyLock<Vec<(u32, &'static str, File)>> =
    LazyLock::new(|| tables::candidates().collect());

fn is_withheld(minor: u32) -> bool {
    WITHHELD.get().is_some_and(|minors| minors.contains(&minor))
}

/// Hides the tables of these minor releases, for tests with releases that have no table yet. Must be called
/// before any table is used. Only the first call has an effect.
#[cfg(debug_assertions)]
pub fn withhold(minors: &[u32]) {
    WITHHELD.get_or_init(|| minors.to_vec());
}

/// Maximum distance, in minor releases, between a version and the table of a neighbour.
const NEIGHBOUR_DISTANCE: u32 = 2;

/// Go release that has a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    /// Minor version: 26 in `go1.26.8`.
    pub minor: u32,
    /// Patch number: 8 in `go1.26.8`.
    pub patch: u32,
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "go1.{}.{}", self.minor, self.patch)
    }
}

/// Evidence for a table: the relation of the table to the requested version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// Table of exactly this release, with GOEXPERIMENTs that were measured.
    Exact,
    /// Table of the nearest patch in the same minor release. Layouts can change within a minor release:
    /// calibrate.
    SameMinor {
        /// Release that the table was made from.
        used: Release,
    },
    /// Table of a release candidate or beta of the same minor release, which has no known final release:
    /// calibrate.
    Candidate {
        /// Minor version: 28 in `go1.28rc1`.
        minor: u32,
        /// Suffix: `rc1` in `go1.28rc1`.
        pre: &'static str,
    },
    /// Table of a neighbouring minor release. Only scalars can be right, and only after calibration.
    NeighbourMinor {
        /// Release that the table was made from.
        used: Release,
    },
    /// Table of a release of the same minor release, without the program's GOEXPERIMENTs, whose effects are
    /// unknown. Nothing is certain without calibration.
    OtherExperiments {
        /// Release that the table was made from.
        used: Release,
    },
    /// DWARF of the examined program itself.
    Dwarf,
}

/// Returns true if `version` is exactly the release of its numbers. Knowledge about that release then
/// applies. A vendor's suffix does not matter.
fn is_release(version: &GoVersion) -> bool {
    // Check of the text: since 1.21, even the first release of a minor ends in `.0`. `go1.25-20250209` is a
    // private snapshot.
    let named = version.raw.contains(&format!("go1.{}.{}", version.minor, version.patch))
        || (version.minor < 21 && version.patch == 0);
    named && version.pre.is_none() && !version.devel
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Evidence::Exact => f.write_str("table of this very release"),
            Evidence::SameMinor { used } => write!(f, "table of {used}, the nearest patch"),
            Evidence::Candidate { minor, pre } => {
                write!(f, "table of go1.{minor}{pre}, which came before the release")
            }
            Evidence::NeighbourMinor { used } => write!(f, "table of {used}, a neighbouring release"),
            Evidence::OtherExperiments { used } => {
                write!(f, "table of {used}, without the program's GOEXPERIMENTs, which are not known")
            }
            Evidence::Dwarf => f.write_str("the program's own DWARF"),
        }
    }
}

/// Returns the tables of candidates and betas of a minor release, oldest first.
fn candidates(minor: u32) -> &'static [(u32, &'static str, File)] {
    let of = |f: &(u32, &str, File)| f.0 == minor;
    let start = CANDIDATES.iter().position(of).unwrap_or(CANDIDATES.len());
    let len = CANDIDATES.iter().filter(|f| of(f) && !is_withheld(minor)).count();
    CANDIDATES.get(start..start + len).unwrap_or_default()
}

/// Returns the table of exactly this candidate or beta, if there is one.
fn candidate_itself(version: &GoVersion) -> Option<File> {
    let pre = version.pre.as_deref()?;
    // Exclusion of a changed candidate, which has a suffix: `go1.28rc1-custom`.
    let named = version.raw == format!("go1.{}{pre}", version.minor);
    let found = candidates(version.minor).iter().find(|f| f.1 == pre).map(|f| f.2);
    found.filter(|_| named && !version.devel)
}

/// Table file, with the changes by the program's GOEXPERIMENTs.
#[derive(Debug, Clone)]
pub(crate) struct Sheet {
    /// Table file.
    pub(crate) file: File,
    /// Changes by the program's GOEXPERIMENTs.
    pub(crate) difference: Option<Difference<'static>>,
    /// Evidence for the file and its changes.
    pub(crate) evidence: Evidence,
}

impl Sheet {
    fn plain(file: File, evidence: Evidence) -> Self {
        Sheet { file, difference: None, evidence }
    }
}

/// Returns the file to use for `version` on machine `arch`, with its evidence. `None` if the machine has no files.
pub(crate) fn file(arch: Arch, version: &GoVersion) -> Option<Sheet> {
    if arch != Arch::Amd64 {
        return None;
    }
    let (file, used, evidence) = by_numbers(version)?;
    let same_minor = used.minor == version.minor;
    Some(match experiments::effect(version) {
        Effect::None => Sheet::plain(file, evidence),
        // Restriction to the measured release: its differences are not known to apply to others.
        Effect::Measured(measured, difference) if same_minor => {
            let file = if measured == used { file } else { file_of(measured)? };
            let evidence = if measured == used { evidence } else { Evidence::SameMinor { used: measured } };
            Sheet { file, difference: Some(difference), evidence }
        }
        Effect::Unknown if same_minor => Sheet::plain(file, Evidence::OtherExperiments { used }),
        Effect::Measured(..) | Effect::Unknown => Sheet::plain(file, evidence),
    })
}

fn file_of(release: Release) -> Option<File> {
    FILES.iter().find(|f| (f.0, f.1) == (release.minor, release.patch)).map(|f| f.2)
}

/// Returns the file to use for the numbers of `version`, its release, and the evidence.
fn by_numbers(version: &GoVersion) -> Option<(File, Release, Evidence)> {
    let key = |&(minor, patch, _): &(u32, u32, File)| (minor, patch);
    if is_release(version)
        && let Ok(i) = FILES.binary_search_by_key(&(version.minor, version.patch), key)
    {
        let &(minor, patch, file) = FILES.get(i)?;
        return Some((file, Release { minor, patch }, Evidence::Exact));
    }
    if let Some(file) = candidate_itself(version) {
        return Some((file, Release { minor: version.minor, patch: 0 }, Evidence::Exact));
    }
    // Preference for the older of two equally near patches: later patches move fields, and rarely move them
    // back.
    let same = FILES.iter().filter(|f| f.0 == version.minor).min_by_key(|f| f.1.abs_diff(version.patch));
    if let Some(&(minor, patch, file)) = same {
        let used = Release { minor, patch };
        return Some((file, used, Evidence::SameMinor { used }));
    }
    if let Some(&(minor, pre, file)) = candidates(version.minor).last() {
        return Some((file, Release { minor, patch: 0 }, Evidence::Candidate { minor, pre }));
    }
    if version.minor < OLDEST_MINOR {
        return None;
    }
    let near = |f: &&(u32, u32, File)| f.0.abs_diff(version.minor) <= NEIGHBOUR_DISTANCE;
    let neighbour = FILES.iter().filter(near).min_by_key(|f| {
        // Nearest patch in time: the last patch of an older minor release, or the first of a newer one.
        let patch = if f.0 < version.minor { u32::MAX - f.1 } else { f.1 };
        (f.0.abs_diff(version.minor), patch)
    });
    let &(minor, patch, file) = neighbour?;
    let used = Release { minor, patch };
    Some((file, used, Evidence::NeighbourMinor { used }))
}

/// Returns the files that can apply to `version`, best first. The first is the result of [`file()`]. For a
/// release between two others, the file on the other side follows.
pub(crate) fn files(arch: Arch, version: &GoVersion) -> Vec<Sheet> {
    let Some(sheet) = file(arch, version) else { return Vec::new() };
    let other = match (sheet.evidence, bracket(version)) {
        (Evidence::Exact, _) | (_, None) => None,
        _ if sheet.difference.is_some() => None,
        (_, Some((below, above))) => {
            let other = if below == sheet.file { above } else { below };
            let known = FILES.iter().find(|f| f.2 == other);
            let released = known.map(|&(minor, patch, file)| {
                let used = Release { minor, patch };
                let evidence = match sheet.evidence {
                    Evidence::OtherExperiments { .. } => Evidence::OtherExperiments { used },
                    _ => Evidence::SameMinor { used },
                };
                Sheet::plain(file, evidence)
            });
            released.or_else(|| {
                let (minor, pre, file) = *CANDIDATES.iter().find(|f| f.2 == other)?;
                Some(Sheet::plain(file, Evidence::Candidate { minor, pre }))
            })
        }
    };
    std::iter::once(sheet).chain(other).collect()
}

/// Returns the file of a release, with the evidence of a neighbouring minor release.
#[cfg(feature = "generate")]
pub(crate) fn as_neighbour(used: Release) -> Option<Sheet> {
    Some(Sheet::plain(file_of(used)?, Evidence::NeighbourMinor { used }))
}

/// Returns true if `version` is between two releases of the same minor release that have tables, or is one of
/// them.
pub(crate) fn is_bracketed(version: &GoVersion) -> bool {
    bracket(version).is_some()
}

/// Returns the files of the nearest patches below and above a release, in the same minor release. For a
/// candidate, they are the files of the nearest candidate up to it and of the first release.
pub(crate) fn bracket(version: &GoVersion) -> Option<(File, File)> {
    if let Some(pre) = version.pre.as_deref().filter(|_| !version.devel) {
        let below = candidates(version.minor).iter().rfind(|f| f.1 <= pre)?;
        let above = FILES.iter().find(|f| f.0 == version.minor && f.1 == 0)?;
        return Some((below.2, above.2));
    }
    if !is_release(version) {
        return None;
    }
    let same = || FILES.iter().filter(|f| f.0 == version.minor);
    let below = same().rfind(|f| f.1 <= version.patch)?;
    let above = same().find(|f| f.1 >= version.patch)?;
    Some((below.2, above.2))
}

/// Iterates over the releases that have a table, oldest first.
pub fn releases() -> impl DoubleEndedIterator<Item = Release> {
    FILES.iter().map(|&(minor, patch, _)| Release { minor, patch })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_sorted_and_cover_every_minor() {
        let all: Vec<Release> = releases().collect();
        assert!(all.windows(2).all(|w| w[0] < w[1]), "{all:?}");
        let newest = all.last().unwrap().minor;
        for minor in OLDEST_MINOR..=newest {
            assert!(all.iter().any(|r| r.minor == minor), "no table for go1.{minor}");
        }
    }

    #[test]
    fn choice() {
        let fit = |raw: &str| file(Arch::Amd64, &GoVersion::parse(raw).unwrap()).map(|sheet| sheet.evidence);
        let found = |raw: &str| by_numbers(&GoVersion::parse(raw).unwrap()).map(|(_, r, e)| (r, e));
        let newest = releases().last().unwrap();
        let exact = found(&newest.to_string()).unwrap();
        assert_eq!(exact, (newest, Evidence::Exact));
        let (used, evidence) = found("go1.21.12").unwrap();
        assert_eq!(used, Release { minor: 21, patch: 13 });
        assert_eq!(evidence, Evidence::SameMinor { used });
        let used = newest;
        assert_eq!(fit(&format!("{newest} X:arenas")), Some(Evidence::Exact));
        assert_eq!(fit(&format!("{newest}-acme-X:bogus")), Some(Evidence::OtherExperiments { used }));
        assert_eq!(fit(&format!("{newest}-acme")), Some(Evidence::Exact));
        assert_eq!(found("go1.25.99-acme").map(|(used, _)| used.minor), Some(25));
        let (_, next) = found(&format!("go1.{}.0", newest.minor + 1)).unwrap();
        assert_eq!(next, Evidence::NeighbourMinor { used: newest });
        assert_eq!(fit(&format!("{newest} X:boringcrypto")), Some(Evidence::Exact));
        let (used, snapshot) = found("go1.25-20250209-RC00").unwrap();
        assert_eq!((used, snapshot), (Release { minor: 25, patch: 0 }, Evidence::SameMinor { used }));
        for (minor, pre, _) in CANDIDATES.iter() {
            let raw = format!("go1.{minor}{pre}");
            assert_eq!(found(&raw).unwrap().1, Evidence::Exact, "{raw}");
            let between = GoVersion::parse(&format!("{raw}9")).unwrap();
            let (below, above) = bracket(&between).unwrap();
            assert_ne!(below, above, "{raw}");
            assert_eq!(files(Arch::Amd64, &between).len(), 2, "{raw}");
        }
        assert!(found("go1.17.13").is_none());
        assert!(found("go1.99.0").is_none());
    }
}
