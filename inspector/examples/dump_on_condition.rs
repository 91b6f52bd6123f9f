//! Waits until a process has more than so many goroutines, then writes all of them to a file.
//!
//! ```sh
//! dump_on_condition PID 10000 dump.txt
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program")]

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::time::Duration;

use gops_probe::{StackOptions, Target};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pid, most, file] = arguments.as_slice() else {
        return Err("usage: dump_on_condition PID GOROUTINES FILE".into());
    };
    let (target, most): (Target, u64) = (Target::pid(pid.parse()?)?, most.parse()?);
    // Each question is an error once the process has exited, so this ends with it.
    while target.stats()?.goroutines.is_none_or(|goroutines| goroutines <= most) {
        std::thread::sleep(Duration::from_millis(200));
    }
    let goroutines = target.stack(&StackOptions::default())?;
    let mut out = BufWriter::new(File::create(file)?);
    let counts = goroutines.write_text(&mut out)?;
    out.flush()?;
    println!("{} goroutines, {} of them unconfirmed", counts.goroutines, counts.unconfirmed);
    Ok(())
}
