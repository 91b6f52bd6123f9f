//! The generated table files, one per Go toolchain, and the choice of one for a version.

use std::sync::{LazyLock, OnceLock};

use crate::experiments::{self, Difference, Effect};
use crate::image::Arch;
use crate::tables::{self, File};
use crate::version::{GoVersion, OLDEST_MINOR};

/// Minor releases whose tables are as good as not there, see [`withhold`].
static WITHHELD: OnceLock<Vec<u32>> = OnceLock::new();

/// Minor, patch and file of each release, ascending.
static FILES: LazyLock<Vec<(u32, u32, File)>> =
    LazyLock::new(|| tables::releases().filter(|f| !is_withheld(f.0)).collect());

/// Minor, name (`rc1`) and file of each candidate and beta, ascending.
static CANDIDATES: LazyLock<Vec<(u32, &'static str, File)>> =
    LazyLock::new(|| tables::candidates().collect());

fn is_withheld(minor: u32) -> bool {
    WITHHELD.get().is_some_and(|minors| minors.contains(&minor))
}

/// Makes the tables of these minor releases as good as not there, for tests of what can be said of a release that has
/// none yet. Must come before any table is used; only the first call counts.
#[cfg(debug_assertions)]
pub fn withhold(minors: &[u32]) {
    WITHHELD.get_or_init(|| minors.to_vec());
}

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
    /// Made from exactly this release, with GOEXPERIMENTs that were measured.
    Exact,
    /// Made from the nearest patch of the same minor. Layouts do change within a minor: calibrate.
    SameMinor {
        /// The release it was made from.
        used: Release,
    },
    /// Made from a release candidate or beta of the same minor, of which no release is known: calibrate.
    Candidate {
        /// 28 of `go1.28rc1`.
        minor: u32,
        /// `rc1` of it.
        pre: &'static str,
    },
    /// Made from a neighbouring minor: only scalars have a chance to be right, and only after calibration.
    NeighbourMinor {
        /// The release it was made from.
        used: Release,
    },
    /// Made from a release of the same minor without GOEXPERIMENTs of which nobody knows what they change: nothing is
    /// certain that is not calibrated.
    OtherExperiments {
        /// The release it was made from.
        used: Release,
    },
    /// Read from the DWARF of the target itself.
    Dwarf,
}

/// Whether the version is the release of its numbers, so that what was learned from that release holds. A vendor's suffix
/// does not change that.
fn is_release(version: &GoVersion) -> bool {
    // Since 1.21 even the first release of a minor is `.0`; `go1.25-20250209` is somebody's snapshot.
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

/// The tables of candidates and betas of a minor, oldest first.
fn candidates(minor: u32) -> &'static [(u32, &'static str, File)] {
    let of = |f: &(u32, &str, File)| f.0 == minor;
    let start = CANDIDATES.iter().position(of).unwrap_or(CANDIDATES.len());
    let len = CANDIDATES.iter().filter(|f| of(f) && !is_withheld(minor)).count();
    CANDIDATES.get(start..start + len).unwrap_or_default()
}

/// The table of a candidate or beta, where there is one of this very.
fn candidate_itself(version: &GoVersion) -> Option<File> {
    let pre = version.pre.as_deref()?;
    // What follows the name is somebody's: `go1.28rc1-custom`.
    let named = version.raw == format!("go1.{}{pre}", version.minor);
    let found = candidates(version.minor).iter().find(|f| f.1 == pre).map(|f| f.2);
    found.filter(|_| named && !version.devel)
}

/// A table file, and what of it is another one in the program that is asked about.
#[derive(Debug, Clone)]
pub(crate) struct Sheet {
    /// The file.
    pub(crate) file: File,
    /// What the program's GOEXPERIMENTs change.
    pub(crate) difference: Option<Difference<'static>>,
    /// How well both together fit.
    pub(crate) evidence: Evidence,
}

impl Sheet {
    fn plain(file: File, evidence: Evidence) -> Self {
        Sheet { file, difference: None, evidence }
    }
}

/// The file to use for `version` on a machine, and how well it fits. `None` also for a machine that has no files.
pub(crate) fn file(arch: Arch, version: &GoVersion) -> Option<Sheet> {
    if arch != Arch::Amd64 {
        return None;
    }
    let (file, used, evidence) = by_numbers(version)?;
    let same_minor = used.minor == version.minor;
    Some(match experiments::effect(version) {
        Effect::None => Sheet::plain(file, evidence),
        // Only the very release that was measured is known to change in that way.
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

/// The file to use for the numbers of `version`, its release, and how well it fits.
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
    // Between two patches equally near, the older: fields are moved by later patches, rarely moved back.
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
        // The patch that is nearest in time: the last one below, the first one above.
        let patch = if f.0 < version.minor { u32::MAX - f.1 } else { f.1 };
        (f.0.abs_diff(version.minor), patch)
    });
    let &(minor, patch, file) = neighbour?;
    let used = Release { minor, patch };
    Some((file, used, Evidence::NeighbourMinor { used }))
}

/// The files that may know `version`, best first: that of [`file`], then the one on the other side of a release that
/// lies between two.
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

/// The file of a release, and the evidence it would be for another minor.
#[cfg(feature = "generate")]
pub(crate) fn as_neighbour(used: Release) -> Option<Sheet> {
    Some(Sheet::plain(file_of(used)?, Evidence::NeighbourMinor { used }))
}

/// Whether `version` is a release between two of the same minor that there are tables of, or one of them.
pub(crate) fn is_bracketed(version: &GoVersion) -> bool {
    bracket(version).is_some()
}

/// The files of the nearest patches below and above a release that lies between two of the same minor. A candidate lies
/// between an earlier one and the release.
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

/// The releases that there is a table for, oldest first.
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
