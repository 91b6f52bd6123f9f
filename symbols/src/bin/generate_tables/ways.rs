//! Ways to compile that change the code of the runtime, and the additional recipes that each way needs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use symbols::globals::{self, VARIABLES};
use symbols::image::Image;
use symbols::layout::{self, Table};
use symbols::moduledata;
use symbols::pclntab::Pclntab;

use crate::learn::{self, Learned};
use crate::release::Release;
use crate::{Outcome, build, emit};

/// Way to compile a program.
pub(crate) struct Way {
    /// Name for people.
    pub(crate) name: &'static str,
    /// Name in file names, and key of the recipes in the tables.
    pub(crate) key: &'static str,
    flags: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    /// First minor release that supports this way.
    since: u32,
}

const CGO: &[(&str, &str)] = &[("CGO_ENABLED", "1")];

const fn way(name: &'static str, key: &'static str, flags: &'static [&'static str]) -> Way {
    Way { name, key, flags, environment: &[], since: 0 }
}

/// Ways that the toolchain offers by its options. Ways outside of [`LEARNED`] do not need recipes of their
/// own: the usual recipes are enough.
pub(crate) const WAYS: &[Way] = &[
    way("plain", "plain", &[]),
    way("-gcflags=all=-N -l", "unoptimised", &["-gcflags=all=-N -l"]),
    way("PIE", "pie", &["-buildmode=pie"]),
    way("-gcflags=all=-l=4", "inlined_more", &["-gcflags=all=-l=4"]),
    Way { environment: CGO, ..way("-race", "race", &["-race"]) },
    Way { since: 21, ..way("PGO, all packages", "profiled", &["-pgo=compile"]) },
    Way { since: 21, ..way("PGO, another profile", "other_profile", &["-pgo=other"]) },
    way("-gcflags=all=-l", "not_inlined", &["-gcflags=all=-l"]),
    Way { since: 20, ..way("-cover", "cover", &["-cover", "-coverpkg=all"]) },
    Way { environment: CGO, ..way("cgo, external link", "cgo", &["-ldflags=-linkmode=external"]) },
    Way { environment: &[("GOAMD64", "v3")], ..way("GOAMD64=v3", "v3", &[]) },
];

/// Keys of the ways that have recipes of their own, in the order of learning. See [`learned`].
const LEARNED: [&str; 6] = ["pie", "inlined_more", "race", "profiled", "cover", "v3"];

/// Returns the ways that have recipes of their own, beginning with the key `from`. Each way adds only the
/// recipes that the ways before it lack.
fn learned(release: Release, from: &str) -> impl Iterator<Item = &'static Way> {
    let behind = LEARNED.iter().skip_while(move |key| **key != from);
    let way = |key: &&str| WAYS.iter().find(|way| way.key == *key);
    behind.filter_map(way).filter(move |way| way.exists(release))
}

/// First key in [`LEARNED`].
pub(crate) const FIRST: &str = LEARNED[0];

/// Returns true if `key` is in [`LEARNED`].
pub(crate) fn is_learned(key: &str) -> bool {
    LEARNED.contains(&key)
}

impl Way {
    /// Returns true if a release can compile in this way.
    pub(crate) fn exists(&self, release: Release) -> bool {
        release.minor >= self.since
    }

    /// Builds the program of `probe/NAME/main.go` in this way with `release`. An existing file in `builds` is
    /// used again.
    pub(crate) fn build(
        &self,
        source: &Path,
        builds: &Path,
        release: Release,
        name: &str,
    ) -> Outcome<PathBuf> {
        let output = builds.join(format!("{release}.{name}.{}", self.key));
        if output.exists() {
            return Ok(output);
        }
        let flags = self.flags.iter().map(|flag| {
            Ok(match *flag {
                "-pgo=compile" => {
                    format!("-pgo={}", build::goroot(release)?.join("src/cmd/compile/default.pgo").display())
                }
                "-pgo=other" => format!("-pgo={}", source.join("../../tests/fixtures/default.pgo").display()),
                other => other.to_owned(),
            })
        });
        let status = Command::new("go")
            .arg("build")
            .args(flags.collect::<Outcome<Vec<_>>>()?)
            .arg("-o")
            .arg(&output)
            .arg(format!("{name}/main.go"))
            .current_dir(source)
            .env("GOTOOLCHAIN", release.toolchain())
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "")
            .env("GOEXPERIMENT", "")
            .env("GOAMD64", "v1")
            .env("GOOS", "linux")
            .env("GOARCH", build::GOARCH)
            .env("GOWORK", "off")
            .envs(self.environment.iter().copied())
            .status()?;
        if status.success() { Ok(output) } else { Err(format!("{release}: {}: {status}", self.name).into()) }
    }
}

/// Adds the recipes that each way to compile needs to a table file. Returns the new text, and the number of
/// recipes for each way as text.
pub(crate) fn complete(
    source: &Path,
    builds: &Path,
    release: Release,
    table: &Table,
    mut text: String,
    from: &str,
) -> Outcome<(String, String)> {
    let mut counts = String::new();
    for way in learned(release, from) {
        // Race detector: with the first releases, `-race` needs a C compiler. Without one, its recipes are
        // left out.
        let learned = match supplement(way, source, builds, release, table, &text) {
            Ok(learned) => learned,
            Err(error) if way.key == "race" => {
                eprintln!("{release}: nothing is learned from -race: {error}");
                continue;
            }
            Err(error) => return Err(error),
        };
        if !learned.variables.is_empty() {
            text = emit::with(&text, way.key, &learned)?;
            write!(counts, ", {} {}", learned.variables.len(), way.key)?;
        }
    }
    Ok((text, counts))
}

/// Learns the additional recipes again in existing tables, for the way `from` and all later ways.
pub(crate) fn again(home: &Path, builds: &Path, releases: &[Release], from: &str) -> Outcome {
    for &release in releases {
        let path = build::tables(home).join(format!("{release}.json"));
        let found = release.version().as_ref().and_then(layout::lookup);
        let table = found.ok_or_else(|| format!("no table of {release}"))?.table;
        let keys = LEARNED.into_iter().skip_while(|key| *key != from);
        let text = emit::without(&std::fs::read_to_string(&path)?, keys);
        let (text, counts) = complete(&home.join("probe"), builds, release, &table, text, from)?;
        std::fs::write(path, text)?;
        println!("{release}{counts}");
    }
    Ok(())
}

/// Learns recipes for the variables that the table file does not find in programs compiled in one way.
fn supplement(
    way: &Way,
    source: &Path,
    builds: &Path,
    release: Release,
    table: &Table,
    text: &str,
) -> Outcome<Learned> {
    let core = std::fs::read(way.build(source, builds, release, "core")?)?;
    let minimal = std::fs::read(way.build(source, builds, release, "minimal")?)?;
    let mut missing = missing(&core, text)?;
    missing.extend(self::missing(&minimal, text)?);
    let (core, minimal) = (learn::Program::open(core)?, learn::Program::open(minimal)?);
    Ok(learn::learn(&core, &minimal, table, &missing, learn::FEW))
}

/// Returns the variables that a program's symbol table contains and that the recipes do not find.
fn missing(elf: &[u8], text: &str) -> Outcome<BTreeSet<&'static str>> {
    let image = Image::parse(Box::new(elf.to_vec()))?;
    let truth = globals::from_symtab(&image, VARIABLES);
    let (header, module) = moduledata::find(&image, None).ok_or("no moduledata")?;
    let pclntab = Pclntab::load(&image, &header, &module)?;
    let found = globals::solve_by(&image, &pclntab, text, VARIABLES);
    let missing = |name: &&str| truth.address(name).is_some() && found.address(name).is_none();
    Ok(VARIABLES.iter().copied().filter(missing).collect())
}
