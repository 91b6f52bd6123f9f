//! Collections, and settings of the collector.

use crate::Error;
use crate::agent::GcPercent;
use crate::change::Options;
use crate::change::gc::{self, Collection};
use crate::change::knob::{self, Set};
use crate::change::subject::Subject;
use crate::process::Process;

/// The percentage as the runtime keeps it.
pub(crate) fn gc_percent(percent: GcPercent) -> Result<i32, Error> {
    if percent.0 < 0 {
        return Ok(-1);
    }
    i32::try_from(percent.0).map_err(|_| Error::Usage(format!("{percent} is too large for GOGC")))
}

/// Forces a collection from outside.
pub(crate) fn collect(
    process: &Process,
    runtime: Option<&str>,
    options: &Options<'_>,
) -> Result<Collection, Error> {
    gc::collect(&Subject::verify_chosen(process, runtime)?, options)
}

/// Sets GOGC from outside.
pub(crate) fn set_percent(
    process: &Process,
    runtime: Option<&str>,
    percent: i32,
    options: &Options<'_>,
) -> Result<Set<i32>, Error> {
    knob::set_gc_percent(&Subject::verify_chosen(process, runtime)?, percent, options)
}
