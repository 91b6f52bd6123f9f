//! Guard of a change, started by another gops-probe: restores the process if that one is killed.

use std::time::Duration;

use super::args::{Common, GuardArgs};
use super::command::{Patience, Run};
use crate::Error;
use crate::change::guard::{Times, run};

impl Run for GuardArgs {
    fn run(&self, _common: &Common) -> Result<(), Error> {
        let times =
            Times { opening: Duration::from_millis(self.opening), open: Duration::from_millis(self.open) };
        run(self.pid, times)
    }

    fn patience(&self) -> Patience {
        Patience::Unwatched
    }

    fn stops(&self) -> bool {
        false
    }
}
