//! The `gops-probe` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    inspector::cli::main()
}
