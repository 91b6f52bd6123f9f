//! Programs whose versions say something else than those of the Go project: experiments, vendors' suffixes, nonsense,
//! nothing.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::build::lock;
use crate::edit;
use crate::error::{Error, Result};
use crate::matrix::{build_root, minor, source_root};
use crate::process::copy_program;

/// What is left of a program beside its code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Debug {
    /// Nothing.
    #[default]
    Stripped,
    /// The debug information of its C code alone: Go's linker leaves out its own, and the system's passes that on.
    OfC,
    /// What `go build` leaves.
    All,
}

/// How the memory fixture is built, besides being stripped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Build {
    /// The toolchain.
    pub toolchain: &'static str,
    /// `GOEXPERIMENT`.
    pub experiment: &'static str,
    /// What the linker is told to call the version; nothing special where empty.
    pub version: &'static str,
    /// Whether the linker's build info is overwritten afterwards.
    pub wiped: bool,
    /// With the race detector.
    pub race: bool,
    /// Not stripped of everything.
    pub debug: Debug,
}

impl Build {
    /// A name for files.
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

    /// Builds it. Go itself knows whether there is something to do.
    ///
    /// # Errors
    /// Where it cannot be built.
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
