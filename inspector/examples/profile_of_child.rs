//! Starts a program, takes a CPU profile of its first seconds, and writes it for `go tool pprof`.
//!
//! ```sh
//! profile_of_child cpu.pprof SECONDS PROGRAM [ARGUMENT...]
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program")]

use std::error::Error;
use std::process::{Child, Command};
use std::time::Duration;

use gops_probe::{CpuOptions, Target};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, seconds, program, rest @ ..] = arguments.as_slice() else {
        return Err("usage: profile_of_child FILE SECONDS PROGRAM [ARGUMENT...]".into());
    };
    let duration = Duration::from_secs_f64(seconds.parse()?);
    let mut child = Command::new(program).args(rest).spawn()?;
    let result = profile(&child, duration, file);
    // Whatever came of it, the child is not left behind.
    child.kill()?;
    child.wait()?;
    result
}

fn profile(child: &Child, duration: Duration, file: &str) -> Result<(), Box<dyn Error>> {
    let answer = Target::pid(child.id())?.cpu_profile(duration, &CpuOptions::default())?;
    std::fs::write(file, answer.to_pprof())?;
    if let Some(missing) = answer.missing() {
        eprintln!("note: {missing}");
    }
    Ok(())
}
