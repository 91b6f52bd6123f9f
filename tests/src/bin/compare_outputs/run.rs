//! One run of one program.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cases::Case;

/// `nobody`: a user who may look at no process of ours.
const NOBODY: u32 = 65534;
/// A program that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// One of the two programs.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: String,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Name, mode and content of each file that it wrote, sorted.
    pub(crate) files: Vec<(String, u32, Vec<u8>)>,
}

impl Program {
    /// Runs a case in an empty folder, and takes back what the case changed.
    pub(crate) fn run(&self, case: &Case, folder: &Path) -> io::Result<Outcome> {
        let place = folder.join("run");
        fs::create_dir(&place)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777))?;
        let outcome = self.run_in(case, &place, folder);
        fs::remove_dir_all(&place)?;
        let outcome = outcome?;
        if let Some(undo) = &case.undo {
            self.command(undo, folder).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        }
        Ok(outcome)
    }

    fn command(&self, arguments: &[String], place: &Path) -> Command {
        let mut command = Command::new(&self.path);
        command.args(arguments).current_dir(place).stdin(Stdio::null());
        // What a user may have set would change messages, and where agents are looked for.
        for name in
            ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "GOPS_CONFIG_DIR", "XDG_CONFIG_HOME", "COLUMNS"]
        {
            command.env_remove(name);
        }
        command
    }

    fn run_in(&self, case: &Case, place: &Path, folder: &Path) -> io::Result<Outcome> {
        let (out, err) = (folder.join("stdout"), folder.join("stderr"));
        let mut command = self.command(&case.arguments, place);
        command.stdout(File::create(&out)?).stderr(File::create(&err)?);
        if case.without_rights {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = command.spawn()?;
        let pid = Pid::from_raw(child.id().cast_signed());
        let begun = Instant::now();
        let mut interrupted = false;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                child.kill()?;
            }
            // It is served once that is said. The child is not reaped yet, so that the number is its own.
            if case.until_served && !interrupted && fs::read_to_string(&err)?.contains("serving:") {
                kill(pid, Signal::SIGINT)?;
                interrupted = true;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(place)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let content = if metadata.is_file() { fs::read(entry.path())? } else { Vec::new() };
            files.push((
                entry.file_name().to_string_lossy().into_owned(),
                metadata.permissions().mode(),
                content,
            ));
        }
        files.sort();
        Ok(Outcome { end: status.to_string(), stdout: fs::read(out)?, stderr: fs::read(err)?, files })
    }
}
