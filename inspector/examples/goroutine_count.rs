//! The number of goroutines of a process as a metric, in the text format of Prometheus.
//!
//! ```sh
//! goroutine_count PID
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program")]

use std::process::ExitCode;

use gops_probe::{Error, Target};

fn main() -> ExitCode {
    let Some(pid) = std::env::args().nth(1).and_then(|argument| argument.parse().ok()) else {
        eprintln!("usage: goroutine_count PID");
        return ExitCode::from(2);
    };
    match metric(pid) {
        Ok(metric) => {
            print!("{metric}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn metric(pid: u32) -> Result<String, Error> {
    let stats = Target::pid(pid)?.stats()?;
    let mut text = String::from("# TYPE go_goroutines gauge\n");
    if let Some(goroutines) = stats.goroutines {
        text.push_str(&format!("go_goroutines{{pid=\"{pid}\"}} {goroutines}\n"));
    }
    Ok(text)
}
