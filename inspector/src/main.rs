//! The `gops-probe` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    gops_probe::cli::main()
}
