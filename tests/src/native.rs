//! Programs in C, C++ and Rust, built when tests need them, and their samples by `perf`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::build::{lock, run};
use crate::error::{Error, Result};
use crate::matrix::{build_root, source_root};

/// Source file in `fixtures/native`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Program in C.
    Calls,
    /// Program in C++.
    Objects,
    /// Program in Rust.
    Traits,
    /// Program in C with many threads, which executes itself on request.
    Successor,
    /// Program in C with a thread that is in a vfork nearly all the time.
    Forker,
}

impl Source {
    fn file(self) -> &'static str {
        match self {
            Self::Calls => "calls.c",
            Self::Objects => "objects.cpp",
            Self::Traits => "traits.rs",
            Self::Successor => "successor.c",
            Self::Forker => "forker.c",
        }
    }

    fn compiler(self) -> &'static str {
        match self {
            Self::Calls | Self::Successor | Self::Forker => "cc",
            Self::Objects => "c++",
            Self::Traits => "rustc",
        }
    }
}

/// Place of a program's symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Symbols {
    /// Symbols inside the program.
    Inside,
    /// Symbols in a separate file with the same build id.
    Apart,
    /// Symbols in a separate file, identified only by its checksum.
    ApartByChecksum,
}

/// Build options of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Build {
    /// Source of the program.
    pub source: Source,
    /// True if frames have frame pointers; unwind tables exist in any case.
    pub pointers: bool,
    /// Place of the symbols.
    pub symbols: Symbols,
}

impl Build {
    /// Builds the program with its shared object, if needed, and returns its path.
    ///
    /// # Errors
    ///
    /// Returns the message of the compiler.
    pub fn program(self) -> Result<PathBuf> {
        let _lock = lock("lock-native")?;
        let name = format!("{:?}-{}-{:?}", self.source, self.pointers, self.symbols).to_lowercase();
        let folder = build_root().join("native").join(name);
        let program = folder.join("program");
        let sources = source_root().join("native");
        let mut stamp = String::new();
        for file in ["proto.h", "library.h", "library.c", self.source.file()] {
            let path = sources.join(file);
            stamp += &fs::read_to_string(&path).map_err(Error::file(&path))?;
        }
        let stamp_file = folder.join("stamp");
        if program.exists() && fs::read_to_string(&stamp_file).is_ok_and(|text| text == stamp) {
            return Ok(program);
        }
        // A target that still runs keeps the old files.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        let source = sources.join(self.source.file());
        let mut command = Command::new(self.source.compiler());
        if self.source == Source::Traits {
            let pointers = if self.pointers { "yes" } else { "no" };
            command.args(["--edition=2024", "-g", "-Copt-level=2"]);
            command.arg(format!("-Cforce-frame-pointers={pointers}"));
        } else {
            let pointers = if self.pointers { "-fno-omit-frame-pointer" } else { "-fomit-frame-pointer" };
            let id = if self.symbols == Symbols::ApartByChecksum { "none" } else { "sha1" };
            let id = format!("-Wl,--build-id={id}");
            let library = folder.join("libcalls.so");
            let mut shared = Command::new("cc");
            shared.args(["-g", "-O2", "-fPIC", "-shared", pointers, &id, "-o"]);
            shared.arg(&library).arg(sources.join("library.c"));
            run(shared)?;
            // A second copy, for programs that load one later.
            let extra = folder.join("libextra.so");
            fs::copy(&library, &extra).map_err(Error::file(&extra))?;
            // Calls go through the procedure linkage table (PLT).
            command.args(["-g", "-O2", pointers, &id, "-Wl,-rpath,$ORIGIN", "-fplt", "-pthread", "-ldl"]);
            command.arg(&source).arg(&library);
        }
        if self.source == Source::Traits {
            command.arg(&source);
        }
        command.arg("-o").arg(&program);
        run(command)?;
        if self.symbols != Symbols::Inside {
            separate(&folder, &program)?;
        }
        fs::write(&stamp_file, &stamp).map_err(Error::file(&stamp_file))?;
        Ok(program)
    }
}

/// Moves the symbols of a program to a separate file, as distributions do.
fn separate(folder: &Path, program: &Path) -> Result<()> {
    let hidden = folder.join(".debug");
    fs::create_dir_all(&hidden).map_err(Error::file(&hidden))?;
    let debug = hidden.join("program.debug");
    let objcopy = |arguments: &[&Path]| {
        let mut command = Command::new("objcopy");
        command.args(arguments);
        run(command)
    };
    objcopy(&[Path::new("--only-keep-debug"), program, &debug])?;
    objcopy(&[Path::new("--strip-all"), program])?;
    let link = PathBuf::from(format!("--add-gnu-debuglink={}", debug.display()));
    objcopy(&[&link, program])?;
    Ok(())
}

/// Running `perf record`.
#[derive(Debug)]
pub struct Perf {
    child: Child,
    file: tempfile::TempDir,
}

/// Frame as `perf script` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PerfFrame {
    /// Symbol of the frame; empty for none.
    pub symbol: String,
    /// File of the frame.
    pub file: String,
}

impl Perf {
    /// Samples a process for some seconds, with the same stack size that we copy. `None` if there is no
    /// `perf`, or if the kernel denies it.
    #[must_use]
    pub fn start(pid: u32, rate: u32, seconds: u32) -> Option<Self> {
        let file = tempfile::tempdir().ok()?;
        let data = file.path().join("data");
        let mut trial = Command::new("perf");
        trial.args(["record", "-q", "-N", "-B", "-e", "cpu-clock:u", "-o"]).arg(file.path().join("trial"));
        trial.args(["--", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
        if !trial.status().is_ok_and(|status| status.success()) {
            return None;
        }
        let mut command = Command::new("perf");
        command.args(["record", "-q", "-N", "-B", "-e", "cpu-clock:u", "-m", "16M"]);
        command.args(["-F", &rate.to_string(), "--call-graph", "dwarf,16384", "-p", &pid.to_string(), "-o"]);
        command.arg(&data).args(["--", "sleep", &seconds.to_string()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        Some(Self { child, file })
    }

    /// Waits for the end and returns the stacks with their counts, the innermost frame first.
    ///
    /// # Errors
    ///
    /// Returns an error if `perf script` failed.
    pub fn stacks(mut self) -> Result<HashMap<Vec<PerfFrame>, u64>> {
        // If the target ended, `perf` ends with the status of a signal.
        let _ = self.child.wait();
        let mut command = Command::new("perf");
        command.args(["script", "--no-inline", "-F", "comm,ip,sym,dso", "-i"]);
        command.arg(self.file.path().join("data"));
        let text = run(command)?;
        let mut stacks = HashMap::new();
        let mut stack = Vec::new();
        for line in text.lines().chain([""]) {
            if let Some(frame) = line.strip_prefix(['\t', ' ']).and_then(frame) {
                stack.push(frame);
            } else if line.is_empty() && !stack.is_empty() {
                *stacks.entry(std::mem::take(&mut stack)).or_default() += 1;
            }
        }
        Ok(stacks)
    }
}

/// Parses `    7f0123 name (/file)`.
fn frame(line: &str) -> Option<PerfFrame> {
    let (address, rest) = line.trim().split_once(' ')?;
    u64::from_str_radix(address, 16).ok()?;
    let (symbol, file) = rest.rsplit_once(" (")?;
    let symbol = if symbol == "[unknown]" { "" } else { symbol };
    let file = file.strip_suffix(')')?.rsplit('/').next().unwrap_or_default();
    Some(PerfFrame { symbol: symbol.to_owned(), file: file.to_owned() })
}
