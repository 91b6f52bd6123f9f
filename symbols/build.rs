//! Packs the generated tables into the form in which the library reads them. The files themselves are what is edited and compared.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

#[path = "src/tables/pack.rs"]
mod pack;

const RELEASES: &[(u32, u32, &str)] = include!("data/amd64/index.rs");
const CANDIDATES: &[(u32, &str, &str)] = include!("data/amd64/candidates.rs");

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=data");
    println!("cargo::rerun-if-changed=src/tables/pack.rs");
    let bytes = pack::pack(RELEASES, CANDIDATES)?;
    let folder = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    fs::write(Path::new(&folder).join("tables.bin"), bytes)?;
    Ok(())
}
