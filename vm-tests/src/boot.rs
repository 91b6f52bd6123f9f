//! Boots a kernel under QEMU and listens to its console.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::guest::{BEGUN, DONE, ONLY};

/// What a machine said until it was off.
#[derive(Debug, Default)]
pub(crate) struct Console {
    /// Its lines.
    pub(crate) lines: Vec<String>,
    /// From the start of QEMU to the first word of the runner.
    pub(crate) boot: Option<Duration>,
    /// From the start to its end.
    pub(crate) total: Duration,
    /// Why it is not to be trusted, beside what its lines say.
    pub(crate) problem: Option<String>,
}

const EMULATOR: &str = "qemu-system-x86_64";

/// Boots a kernel with an initial file system, until it switches itself off or `limit` is over. `said` is told each line.
///
/// # Errors
/// Where the emulator does not start.
pub(crate) fn boot(
    kernel: &Path,
    image: &Path,
    limit: Duration,
    only: Option<&str>,
    said: &dyn Fn(&str),
) -> Result<Console> {
    let mut command = Command::new(EMULATOR);
    // Without virtualisation, as it is missing in most machines that are virtual themselves, or there and broken.
    // Less room for translated code than this, and it is translated again and again.
    command.args(["-accel", "tcg,thread=multi,tb-size=512", "-machine", "pc"]);
    command.args(["-cpu", "max", "-smp", "2", "-m", "640"]);
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(image);
    // A panic reboots at once, which ends the emulator. What guards against flaws of processors, and a fifth level of
    // page tables, cost an emulated one most of its time.
    let only = only.map_or(String::new(), |names| format!(" {ONLY}={names}"));
    let parameters = "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off no5lvl";
    command.args(["-append", &format!("{parameters}{only}")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let begin = Instant::now();
    let child = command.spawn().map_err(|source| Error::Start {
        program: EMULATOR.to_owned(),
        source,
        hint: "; install qemu-system-x86",
    })?;
    let mut child = Ended(child);
    let mut console = Console::default();
    let (Some(output), Some(mut errors)) = (child.0.stdout.take(), child.0.stderr.take()) else {
        console.problem = Some("no pipes".to_owned());
        return Ok(console);
    };
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = errors.read_to_end(&mut text);
        String::from_utf8_lossy(&text).trim().to_owned()
    });
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|size| size > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    loop {
        match receiver.recv_timeout(limit.saturating_sub(begin.elapsed())) {
            Ok(line) => {
                if line.contains(BEGUN) {
                    console.boot.get_or_insert(begin.elapsed());
                }
                said(&line);
                console.lines.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                console.problem = Some(format!("it was not done after {limit:?}"));
                break;
            }
        }
    }
    drop(child);
    console.total = begin.elapsed();
    let errors = errors.join().unwrap_or_default();
    let panic = console.lines.iter().find(|line| line.contains("Kernel panic"));
    if let Some(line) = panic {
        console.problem = Some(line.clone());
    } else if console.problem.is_none() && !console.lines.iter().any(|line| line.contains(DONE)) {
        console.problem = Some(format!("it ended before the sub-tests did {errors}"));
    }
    Ok(console)
}

/// A child that does not outlive this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // After the console's end it goes by itself; a machine that hangs does not.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
