//! Makes the tables in `data/` from probe programs, which are built with each Go toolchain. Each machine has
//! its own folder.
//!
//! ```text
//! generate-tables [--builds DIR] [VERSION…]
//!     Make the tables of these releases or candidates (`1.28.0`, `1.28rc1`).
//!     Without a version: make the tables of all known releases again.
//! generate-tables [--builds DIR] shapes VERSION
//!     Write the offsets of the moduledata fields that moved, for this release too.
//!     First step for a new minor release; build this command again afterwards.
//! generate-tables [--builds DIR] ways [WAY] [VERSION…]
//!     Learn the additional recipes for ways to compile again: for all of
//!     `pie inlined_more race profiled cover v3`, or for WAY and the ones after it.
//! generate-tables [--builds DIR] experiments [VERSION…]
//!     Measure which GOEXPERIMENTs of these releases change layouts.
//! generate-tables [--builds DIR] verify
//!     Compare recipes with the symbol tables of other programs.
//! generate-tables verify ELF…
//!     Compare recipes with the symbol tables of these programs.
//! ```
//!
//! The `go` command fetches the toolchains (`GOTOOLCHAIN`). `--builds` names a directory that keeps the probe
//! programs; existing programs in it are used again.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command for developers")]

mod build;
mod emit;
mod experiments;
mod learn;
mod minor;
mod release;
mod verify;
mod ways;

use build::{Mode, Program};
use release::Release;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use symbols::globals::VARIABLES;
use symbols::layout::{self, releases};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("generate-tables: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: impl Iterator<Item = String>) -> Outcome {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut builds = std::env::temp_dir().join("gops-probe-tables");
    let (mut wanted, mut only_ways, mut of_experiments) = (Vec::new(), None, false);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--builds" => builds = PathBuf::from(args.next().ok_or("--builds needs a directory")?),
            "verify" => {
                let programs: Vec<PathBuf> = args.map(PathBuf::from).collect();
                if !programs.is_empty() {
                    return verify::files(&programs);
                }
                std::fs::create_dir_all(&builds)?;
                return verify::matrix(&home.join("probe"), &builds, &home.join("../docs/recipes.md"));
            }
            "ways" => only_ways = Some(ways::FIRST.to_owned()),
            key if only_ways.is_some() && ways::is_learned(key) => only_ways = Some(arg),
            "shapes" => {
                std::fs::create_dir_all(&builds)?;
                let release = args.next().and_then(|version| Release::parse(&version));
                return minor::shapes(home, &builds, release.ok_or("shapes needs a release")?);
            }
            "experiments" => of_experiments = true,
            version => {
                wanted.push(Release::parse(version).ok_or_else(|| format!("not a release: {version}"))?)
            }
        }
    }
    if of_experiments {
        std::fs::create_dir_all(&builds)?;
        return experiments::measure(home, &builds, &wanted);
    }
    if wanted.is_empty() {
        wanted = releases().map(Release::from).collect();
    }
    std::fs::create_dir_all(&builds)?;
    if let Some(from) = only_ways {
        return ways::again(home, &builds, &wanted, &from);
    }
    for release in wanted {
        let build = |mode, program| -> Outcome<Vec<u8>> {
            let path = build::probe(&home.join("probe"), &builds, release, mode, program)?;
            Ok(std::fs::read(path)?)
        };
        let elf = build(Mode::Plain, Program::Large)?;
        let table = layout::from_dwarf(&elf)?;
        let learn = |mode| -> Outcome<learn::Learned> {
            let large = learn::Program::open(build(mode, Program::Large)?)?;
            let minimal = learn::Program::open(build(mode, Program::Minimal)?)?;
            let all = VARIABLES.iter().copied().collect();
            Ok(learn::learn(&large, &minimal, &table, &all, learn::MANY))
        };
        let recipes = [learn(Mode::Plain)?, learn(Mode::Unoptimised)?];
        let text = emit::file(release, &elf, &table, &recipes)?;
        let (text, supplements) =
            ways::complete(&home.join("probe"), &builds, release, &table, text, ways::FIRST)?;
        std::fs::write(build::tables(home).join(format!("{release}.json")), text)?;
        let [optimised, unoptimised] = recipes.map(|r| r.variables.len());
        let structs = table.structs().count();
        if release.pre.is_none() {
            minor::inventory(home, &builds, release)?;
        }
        println!("{release}: {structs} structs, recipes {optimised} + {unoptimised}{supplements}");
    }
    emit::index(&build::tables(home))?;
    minor::toolchains(home)
}
