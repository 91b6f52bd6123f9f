//! Finds kernels in Debian's packages and takes them out, without installing anything.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::output_of;
use crate::error::{Error, Result};

/// A kernel to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// What it is called in reports.
    pub name: String,
    /// The compressed image (`vmlinuz`).
    pub image: PathBuf,
    /// The series (`6.1`) of one of the distribution's, where every sub-test has to run; one that was named by its path
    /// may lack things.
    pub series: Option<String>,
}

/// The series that are always tested.
pub const SERIES: [&str; 2] = ["6.1", "6.12"];

/// Where the distribution's kernels of these series come from, where a machine's own lists lack them.
const RELEASE: &str = "bookworm";

/// A kernel image that is at hand.
#[must_use]
pub fn at(path: &Path) -> Kernel {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_prefix(IMAGE).unwrap_or(&name).to_owned();
    Kernel { name, image: path.to_owned(), series: None }
}

/// A kernel of a series (`6.1`): the one that `folder` has, else the newest one of the distribution's packages, which is
/// taken out into it.
///
/// The machine's own package lists come first; where they lack it, lists of Debian 12 and its backports are fetched
/// into `folder`, from where the machine gets its other packages. The machine's own configuration stays as it is.
///
/// # Errors
/// Where no package has it, or it cannot be fetched or unpacked.
pub fn of_series(series: &str, folder: &Path) -> Result<Kernel> {
    fs::create_dir_all(folder).map_err(Error::file(folder))?;
    let start = format!("{IMAGE}{series}.");
    let image = match only_file(folder, |name| name.starts_with(&start))? {
        Some(image) => image,
        None => fetch(series, folder)
            .map_err(|cause| Error::Unfetched { series: series.to_owned(), cause: Box::new(cause) })?,
    };
    Ok(Kernel { series: Some(series.to_owned()), ..at(&image) })
}

/// How the files of kernels begin.
const IMAGE: &str = "vmlinuz-";

fn fetch(series: &str, folder: &Path) -> Result<PathBuf> {
    let mut apt = Apt::default();
    let mut package = apt.newest(series)?;
    if package.is_none() {
        let tried = apt.use_lists_of_backports(folder)?;
        package = apt.newest(series)?;
        if package.is_none() {
            return Err(Error::NoKernel { series: series.to_owned(), tried });
        }
    }
    let package = package.unwrap_or_default();
    let name = package.trim_start_matches("linux-image-").trim_end_matches("-unsigned");
    let image = folder.join(format!("{IMAGE}{name}"));
    apt.take_out(&package, &image, folder)?;
    Ok(image)
}

/// `apt-get` and `apt-cache`, with the machine's package lists or others.
#[derive(Debug, Default)]
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(self.options.iter().flat_map(|option| ["-o", option.as_str()])).env("LC_ALL", "C");
        command
    }

    fn newest(&self, series: &str) -> Result<Option<String>> {
        let pattern = format!("^linux-image-{}[.].*-cloud-amd64(-unsigned)?$", series.replace('.', "[.]"));
        let found = output_of(self.command("apt-cache").args(["search", "--names-only"]).arg(&pattern), "")?;
        Ok(newest(&found))
    }

    /// From here on searches lists of Debian 12 and its backports; says which they are.
    fn use_lists_of_backports(&mut self, folder: &Path) -> Result<String> {
        // Debian's lists that this machine has already say which mirror it uses.
        let format = "$(ORIGIN)\t$(COMPONENT)\t$(LABEL)\t$(REPO_URI)";
        let lists = output_of(
            self.command("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]),
            "",
        )?;
        let mirror = lists.lines().find_map(|line| match *line.split('\t').collect::<Vec<&str>>() {
            ["Debian", "main", "Debian", mirror] => Some(mirror.to_owned()),
            _ => None,
        });
        let Some(mirror) = mirror else {
            return Ok("Debian's backports, as this machine knows no mirror of Debian".to_owned());
        };
        let folder = folder.join("apt");
        let write = |name: &str, text: &str| -> Result<PathBuf> {
            let path = folder.join(name);
            fs::write(&path, text).map_err(Error::file(&path))?;
            Ok(path)
        };
        for part in ["lists/partial", "cache/archives/partial"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).map_err(Error::file(&path))?;
        }
        let suites = [RELEASE.to_owned(), format!("{RELEASE}-backports")];
        let sources: String = suites.iter().map(|suite| format!("deb {mirror} {suite} main\n")).collect();
        let sources = write("sources.list", &sources)?;
        let mut set = |option: &str, path: &Path| self.options.push(format!("{option}={}", path.display()));
        set("Dir::Etc::sourcelist", &sources);
        set("Dir::Etc::sourceparts", Path::new("/dev/null"));
        set("Dir::State::lists", &folder.join("lists"));
        set("Dir::Cache", &folder.join("cache"));
        // The user that apt-get would become cannot write here.
        self.options.push("APT::Sandbox::User=root".to_owned());
        output_of(self.command("apt-get").arg("update"), "")?;
        Ok(suites.join(" and "))
    }

    fn take_out(&self, package: &str, image: &Path, folder: &Path) -> Result<()> {
        let unpacked = tempfile::tempdir_in(folder).map_err(Error::file(folder))?;
        let mut download = self.command("apt-get");
        download.current_dir(&unpacked).args(["-o", "APT::Sandbox::User=root", "download", package]);
        output_of(&mut download, "")?;
        let archive = only_file(unpacked.path(), |name| name.ends_with(".deb"))?
            .ok_or_else(|| Error::NoImage { package: package.into() })?;
        let tree = unpacked.path().join("tree");
        output_of(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&tree), "")?;
        let found = only_file(&tree.join("boot"), |name| name.starts_with(IMAGE))?
            .ok_or(Error::NoImage { package: archive })?;
        fs::rename(&found, image).map_err(Error::file(&found))
    }
}

fn only_file(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    let files = fs::read_dir(folder).map_err(Error::file(folder))?.flatten();
    Ok(files
        .map(|file| file.path())
        .find(|path| path.file_name().is_some_and(|name| wanted(&name.to_string_lossy()))))
}

/// The package with the greatest version in its name, of lines of `apt-cache search`.
fn newest(found: &str) -> Option<String> {
    let names = found.lines().filter_map(|line| line.split_whitespace().next());
    // A signed image and the same unsigned are one kernel; the name of the signed one is shorter.
    names.max_by(|a, b| by_numbers(a, b).then(b.len().cmp(&a.len()))).map(str::to_owned)
}

fn by_numbers(a: &str, b: &str) -> Ordering {
    let numbers = |name: &str| -> Vec<u64> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_is_taken() {
        let found = "linux-image-6.1.0-9-cloud-amd64 - Linux 6.1 (signed)\n\
                     linux-image-6.1.0-56-cloud-amd64-unsigned - Linux 6.1\n\
                     linux-image-6.1.0-56-cloud-amd64 - Linux 6.1 (signed)\n\
                     linux-image-6.1.0-48-cloud-amd64 - Linux 6.1 (signed)\n";
        assert_eq!(newest(found).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        let found = "linux-image-6.12.100+deb12-cloud-amd64 - x\nlinux-image-6.12.94+deb12-cloud-amd64 - x\n";
        assert_eq!(newest(found).as_deref(), Some("linux-image-6.12.100+deb12-cloud-amd64"));
        assert_eq!(newest(""), None);
    }

    #[test]
    fn kernels_by_path_have_the_name_of_their_file() {
        assert_eq!(at(Path::new("/boot/vmlinuz-5.10.0-1")).name, "5.10.0-1");
        assert_eq!(at(Path::new("/x/bzImage")).name, "bzImage");
    }
}
