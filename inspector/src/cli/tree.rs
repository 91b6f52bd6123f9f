//! Command `tree`.

use super::args::Common;
use super::command::Run;
use super::confinement::{LOOKING, Work};
use super::list;
use crate::Error;
use crate::report::tree::{Tree, write_text};

/// Command `tree`, which has no arguments.
pub(super) struct TreeCommand;

impl Run for TreeCommand {
    fn run(&self, common: &Common) -> Result<(), Error> {
        list::run_as(common, Tree::new, write_text)
    }

    fn work(&self) -> Work {
        LOOKING
    }

    fn stops(&self) -> bool {
        false
    }
}
