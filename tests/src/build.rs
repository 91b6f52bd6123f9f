//! Builds the cells of the matrix with the Go toolchains that `GOTOOLCHAIN` fetches.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use crate::edit;
use crate::error::{Error, Result};
use crate::matrix::{Cell, Program, Selection, Variant, build_root, cells, minor, source_root};

/// Result of building one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Binary existed and matches the present sources.
    UpToDate,
    /// Binary was built in this time.
    Built(Duration),
}

/// Builds and returns the cells of a program that `GOPS_PROBE_MATRIX` selects, restricted to names that
/// contain `GOPS_PROBE_CELL`.
///
/// # Errors
///
/// Returns the errors of [`build`], and an error if `GOPS_PROBE_MATRIX` names no selection.
pub fn selected(program: Program) -> Result<Vec<Cell>> {
    let selection = Selection::from_environment().map_err(Error::Selection)?;
    let only = std::env::var("GOPS_PROBE_CELL").unwrap_or_default();
    let is_wanted = |cell: &Cell| cell.program == program && cell.to_string().contains(&only);
    let found: Vec<Cell> = cells(selection).into_iter().filter(is_wanted).collect();
    build(&found, 2, &|_, _| ())?;
    Ok(found)
}

/// Builds the missing or outdated cells of `cells`; `jobs` Go commands run at a time.
///
/// Only one build runs per build folder; another one waits for it. `progress` is called after each cell.
///
/// # Errors
///
/// Returns the error of the first cell that failed; builds in progress are finished.
pub fn build(cells: &[Cell], jobs: usize, progress: &(dyn Fn(Cell, Outcome) + Sync)) -> Result<()> {
    // Tests whose cells are all built need not wait for a build in progress.
    if cells.iter().all(|&cell| Recipe::of(cell).is_ok_and(|recipe| recipe.is_done(cell))) {
        for &cell in cells {
            progress(cell, Outcome::UpToDate);
        }
        return Ok(());
    }
    let _lock = lock("lock")?;
    // Edited copies are made after the builds that they are copied from.
    let (built, edited): (Vec<Cell>, Vec<Cell>) =
        cells.iter().partition(|cell| cell.variant.derived_from().is_none());
    for batch in [built, edited] {
        let next = AtomicUsize::new(0);
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                scope.spawn(|| {
                    while let Some(&cell) = batch.get(next.fetch_add(1, Ordering::Relaxed)) {
                        match build_cell(cell) {
                            Ok(outcome) => progress(cell, outcome),
                            Err(error) => {
                                next.store(batch.len(), Ordering::Relaxed);
                                if let Ok(mut failure) = failure.lock() {
                                    failure.get_or_insert(error);
                                }
                            }
                        }
                    }
                });
            }
        });
        if let Ok(Some(error)) = failure.into_inner() {
            return Err(error);
        }
    }
    Ok(())
}

/// Takes a lock file of the build folder and holds it until dropped.
pub(crate) fn lock(name: &str) -> Result<Flock<fs::File>> {
    let root = build_root();
    fs::create_dir_all(&root).map_err(Error::file(&root))?;
    let path = root.join(name);
    let file = fs::File::create(&path).map_err(Error::file(&path))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::file(&path)(errno.into()))
}

fn build_cell(cell: Cell) -> Result<Outcome> {
    let begin = Instant::now();
    let recipe = Recipe::of(cell)?;
    if recipe.is_done(cell) {
        return Ok(Outcome::UpToDate);
    }
    let directory = cell.directory();
    fs::create_dir_all(&directory).map_err(Error::file(&directory))?;
    match cell.variant.derived_from() {
        Some(variant) => edit_copy(cell, &Cell { variant, ..cell }.path())?,
        None => recipe.run(cell)?,
    }
    let stamp = stamp_file(cell);
    fs::write(&stamp, &recipe.stamp).map_err(Error::file(&stamp))?;
    Ok(Outcome::Built(begin.elapsed()))
}

/// Path of the stamp file, which holds the recipe that a cell was built by.
fn stamp_file(cell: Cell) -> PathBuf {
    cell.directory().join(format!("{}.stamp", cell.program))
}

fn edit_copy(cell: Cell, origin: &Path) -> Result<()> {
    let mut image = fs::read(origin).map_err(Error::file(origin))?;
    match cell.variant {
        Variant::NoSections => edit::remove_section_headers(&mut image, origin)?,
        _ => edit::wipe_build_info(&mut image, origin)?,
    }
    // The copy keeps the mode; a target that still runs keeps the old file.
    let path = cell.path();
    let fresh = path.with_extension("new");
    fs::copy(origin, &fresh).map_err(Error::file(&fresh))?;
    fs::write(&fresh, &image).map_err(Error::file(&fresh))?;
    fs::rename(&fresh, &path).map_err(Error::file(&path))
}

/// Go command of a cell, and the stamp: a text that changes if the result would change.
#[derive(Debug)]
struct Recipe {
    environment: Vec<(&'static str, String)>,
    arguments: Vec<String>,
    stamp: String,
}

impl Recipe {
    fn of(cell: Cell) -> Result<Self> {
        let variant = cell.variant;
        let agent = cell.program == Program::Agent;
        let cgo = matches!(variant, Variant::Cgo | Variant::Race | Variant::CShared)
            || cell.program == Program::Cgo;
        let mut environment = vec![
            ("GOTOOLCHAIN", format!("go{}", cell.toolchain)),
            ("CGO_ENABLED", if cgo { "1" } else { "0" }.to_owned()),
            ("GOWORK", "off".to_owned()),
            ("GOEXPERIMENT", String::new()),
        ];
        if variant == Variant::V3 {
            environment.push(("GOAMD64", "v3".to_owned()));
        }
        let mut link = String::new();
        let mut arguments = vec!["build".to_owned(), "-buildvcs=false".to_owned()];
        if !agent {
            arguments.push(format!("-modfile={}", module_file(cell)));
        }
        if variant != Variant::Plain {
            arguments.push("-trimpath".to_owned());
            link.push_str("-s -w ");
        }
        match variant {
            Variant::Pie => arguments.push("-buildmode=pie".to_owned()),
            Variant::Cgo => link.push_str("-linkmode=external "),
            Variant::Race => arguments.push("-race".to_owned()),
            Variant::NoOpt => arguments.push("-gcflags=all=-N -l".to_owned()),
            Variant::Inlined => arguments.push("-gcflags=all=-l=4".to_owned()),
            Variant::Cover => arguments.extend(["-cover".to_owned(), "-coverpkg=all".to_owned()]),
            Variant::CShared => arguments.push("-buildmode=c-shared".to_owned()),
            Variant::Pgo => arguments.push(format!("-pgo={}", profile_file().display())),
            _ => {}
        }
        if cell.minor() >= 24 {
            // The linker reserves the function that enters a bubble for the standard library.
            link.push_str("-checklinkname=0 ");
        }
        arguments.push(format!("-ldflags={}", link.trim_end()));
        let mut stamp = format!("{}\n{environment:?}\n{arguments:?}\n", cell.variant);
        write_sources(&mut stamp, cell)?;
        let output = cell.library().unwrap_or_else(|| cell.path());
        arguments.push("-o".to_owned());
        arguments.push(output.display().to_string());
        arguments.push(match variant {
            Variant::CShared => "./cmd/cshared".to_owned(),
            _ if agent => ".".to_owned(),
            _ => format!("./cmd/{}", cell.program),
        });
        Ok(Self { environment, arguments, stamp })
    }

    /// Returns true if the cell's binary was made by this recipe.
    fn is_done(&self, cell: Cell) -> bool {
        cell.path().exists() && fs::read_to_string(stamp_file(cell)).is_ok_and(|text| text == self.stamp)
    }

    fn run(&self, cell: Cell) -> Result<()> {
        write_module_file(cell)?;
        let mut command = Command::new("go");
        // The agent is a dependency that other programs do not need: it has its own module.
        let module = match cell.program {
            Program::Agent => source_root().join("agent"),
            _ => source_root(),
        };
        command.current_dir(module).args(&self.arguments);
        command.env_remove("GOFLAGS").env_remove("GODEBUG").env_remove("GOAMD64");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        run(command)?;
        if cell.variant == Variant::CShared {
            let mut command = Command::new("gcc");
            command.arg("-O2").arg("-o").arg(cell.path());
            command.arg(source_root().join("loader/loader.c")).arg("-ldl");
            run(command)?;
        }
        Ok(())
    }
}

/// Path of a module file with the toolchain's own language version, as in a program of its time. Language
/// version and default debug settings depend on it.
fn module_file(cell: Cell) -> String {
    build_root().join("modules").join(format!("go1.{}.mod", cell.minor())).display().to_string()
}

fn write_module_file(cell: Cell) -> Result<()> {
    let path = PathBuf::from(module_file(cell));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::file(parent))?;
    }
    let origin = source_root().join("go.mod");
    let text = fs::read_to_string(&origin).map_err(Error::file(&origin))?;
    let text = text.replace("\ngo 1.18\n", &format!("\ngo 1.{}\n", minor(cell.toolchain)));
    // The file is written under another name first: several builds of one minor run at a time.
    let fresh = path.with_extension(format!("{}-{}-{}", cell.toolchain, cell.variant, cell.program));
    fs::write(&fresh, text).map_err(Error::file(&fresh))?;
    fs::rename(&fresh, &path).map_err(Error::file(&path))
}

/// Path of the committed CPU profile that [`Variant::Pgo`] is built with.
fn profile_file() -> PathBuf {
    source_root().join("default.pgo")
}

/// Appends the names and hashes of a program's sources to the stamp.
fn write_sources(stamp: &mut String, cell: Cell) -> Result<()> {
    let shared = ["go.mod", "proto"];
    let profile = (cell.variant == Variant::Pgo).then_some("default.pgo");
    for name in shared.iter().chain(cell.program.sources()).copied().chain(profile) {
        let path = source_root().join(name);
        let mut files = vec![path.clone()];
        if path.is_dir() {
            files.clear();
            for entry in fs::read_dir(&path).map_err(Error::file(&path))? {
                files.push(entry.map_err(Error::file(&path))?.path());
            }
            files.sort();
        }
        for file in files {
            let mut hasher = DefaultHasher::new();
            fs::read(&file).map_err(Error::file(&file))?.hash(&mut hasher);
            let label = file.file_name().unwrap_or_default().to_string_lossy();
            let _ = writeln!(stamp, "{name} {label} {:016x}", hasher.finish());
        }
    }
    Ok(())
}

/// Runs a command to its end and returns its output.
pub(crate) fn run(mut command: Command) -> Result<String> {
    let program = format!("{command:?}");
    let output = command.output().map_err(|source| Error::Start { program: program.clone(), source })?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Error::Failed { program, stderr: String::from_utf8_lossy(&output.stderr).into_owned() })
    }
}
