//! `tree`.

use super::args::Common;
use super::list;
use crate::Error;
use crate::report::tree::{Tree, write_text};

pub(super) fn run(common: &Common) -> Result<(), Error> {
    list::run_as(common, Tree::new, write_text)
}
