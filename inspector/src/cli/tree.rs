//! `tree`.

use super::args::Common;
use super::{list, output};
use crate::Error;
use crate::process::find::{self, Detail};
use crate::report::tree::{Tree, write_text};

pub(super) fn run(common: &Common) -> Result<(), Error> {
    let detail = if common.json || common.verbose > 0 { Detail::All } else { Detail::Text };
    let found = find::all(detail)?;
    if common.json {
        output::write_json(common, &Tree::new(&found))?;
    } else {
        output::write(common, |out| write_text(&found, common.verbose > 0, out))?;
    }
    list::tell_unreadable(&found, common);
    list::conclude(&found.processes)
}
