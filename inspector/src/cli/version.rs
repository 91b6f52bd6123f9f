//! `version`.

use super::args::{Common, VersionArgs};
use super::output;
use crate::Error;
use crate::process::find;
use crate::report::version::{Version, write_text};

pub(super) fn run(args: &VersionArgs, common: &Common) -> Result<(), Error> {
    let process = args.target.process("version", common)?;
    let found = find::one(&process)?;
    if common.json {
        output::write_json(common, &Version::new(&found))
    } else {
        output::write(common, |out| write_text(&found, common.verbose > 0, out))
    }
}
