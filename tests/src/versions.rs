//! Programs with unusual Go versions: experiments, vendors' suffixes, nonsense, or no version.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::build::lock;
use crate::edit;
use crate::error::{Error, Result};
use crate::matrix::{build_root, minor, source_root};
use crate::process::copy_program;

/// Debug information that a program keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Debug {
    /// Stripped: no debug information.
    #[default]
    Stripped,
    /// Debug information of the C code alone: Go's linker leaves out its own, and the system's linker passes
    /// on that of C.
    OfC,
    /// Debug information as `go build` leaves it.
    All,
}

/// Build options of the memory fixture, besides stripping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Build {
    /// Toolchain of the build.
    pub toolchain: &'static str,
    /// Value of `GOEXPERIMENT`.
    pub experiment: &'static str,
    /// Version that the linker writes into the program; the toolchain's own if empty.
    pub version: &'static str,
    /// True if the linker's build info is overwritten after the build.
    pub wiped: bool,
    /// True to build with the race detector.
    pub race: bool,
    /// Debug information that is kept.
    pub debug: Debug,
}

impl Build {
    /// Returns a name for files.
    #[must_use]
    pub fn name(&self) -> String {
        let text = format!("{}-{}-{}", self.toolchain, self.experiment, self.version);
        let text = text.trim_end_matches('-');
        let mut name: String =
            text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
        let ending = match self.debug {
            Debug::Stripped => "",
            Debug::OfC => "-debug-of-c",
            Debug::All => "-debug",
        };
        name.push_str(ending);
        name.push_str(if self.race { "-race" } else { "" });
        name.push_str(if self.wiped { "-wiped" } else { "" });
        name
    }

    /// Builds the program and returns its path. Go itself decides whether a build is needed.
    ///
    /// # Errors
    /// Returns an error if it cannot be built.
    pub fn program(&self) -> Result<PathBuf> {
        let _lock = lock("versions.lock")?;
        let folder = build_root().join("versions");
        fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        let path = folder.join(Build { wiped: false, ..*self }.name());
        let module = folder.join(format!("go1.{}.mod", minor(self.toolchain)));
        fs::write(&module, format!("module example.com/fixtures\n\ngo 1.{}\n", minor(self.toolchain)))
            .map_err(Error::file(&module))?;
        let version = match self.version {
            "" => String::new(),
            version => format!(" '-X=runtime.buildVersion={version}'"),
        };
        let mut command = Command::new("go");
        command.current_dir(source_root()).args(["build", "-buildvcs=false", "-trimpath"]);
        let link = match self.debug {
            Debug::Stripped => "-s -w",
            Debug::OfC => "-w -linkmode=external",
            Debug::All => "",
        };
        command.arg(format!("-modfile={}", module.display())).arg(format!("-ldflags={link}{version}"));
        command.args(self.race.then_some("-race"));
        command.arg("-o").arg(&path).arg("./cmd/memory");
        command.env("GOTOOLCHAIN", format!("go{}", self.toolchain)).env("GOEXPERIMENT", self.experiment);
        let with_c = self.race || self.debug == Debug::OfC;
        command.env("CGO_ENABLED", if with_c { "1" } else { "0" }).env("GOWORK", "off");
        command.env_remove("GOFLAGS").env_remove("GODEBUG").env_remove("GOAMD64");
        crate::build::run(command)?;
        if !self.wiped {
            return Ok(path);
        }
        let (edited, wiped) = (path.with_extension("edited"), folder.join(self.name()));
        let mut image = fs::read(&path).map_err(Error::file(&path))?;
        edit::wipe_build_info(&mut image, &path)?;
        // The copy keeps the mode.
        fs::copy(&path, &edited).map_err(Error::file(&edited))?;
        fs::write(&edited, image).map_err(Error::file(&edited))?;
        copy_program(&edited, &wiped)?;
        Ok(wiped)
    }
}
