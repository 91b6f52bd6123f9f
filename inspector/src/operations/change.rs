//! Forced garbage collections, and settings of the garbage collector.

use crate::Error;
use crate::agent::GcPercent;
use crate::change::ChangeOptions;
use crate::change::gc::{self, Collection};
use crate::change::knob::{self, Needs, Set};
use crate::change::verified::VerifiedRuntime;
use crate::process::Process;

/// Converts a GC percentage to the form that the runtime keeps.
pub(crate) fn gc_percent(percent: GcPercent) -> Result<i32, Error> {
    if percent.0 < 0 {
        return Ok(-1);
    }
    i32::try_from(percent.0).map_err(|_| Error::Usage(format!("{percent} is too large for GOGC")))
}

/// Forces a garbage collection from outside.
pub(crate) fn collect(
    process: &Process,
    runtime: Option<&str>,
    options: &ChangeOptions<'_>,
) -> Result<Collection, Error> {
    gc::collect(&VerifiedRuntime::verify_chosen(process, runtime)?, options)
}

/// Sets GOGC from outside.
pub(crate) fn set_percent(
    process: &Process,
    runtime: Option<&str>,
    percent: i32,
    options: &ChangeOptions<'_>,
) -> Result<Set<i32>, Error> {
    knob::set_gc_percent(&VerifiedRuntime::verify_chosen(process, runtime)?, percent, options)
}

/// Sets the memory limit from outside, in bytes. Refuses a limit that would make the process collect all the
/// time, unless `force` is set. Also returns the memory that the process needed before.
///
/// # Errors
/// Returns [`Error::Refused`] if the limit is too low, and an error if the process cannot be read or written.
pub(crate) fn set_memory_limit(
    process: &Process,
    runtime: Option<&str>,
    limit: i64,
    force: bool,
    options: &ChangeOptions<'_>,
) -> Result<(Set<i64>, Needs), Error> {
    let subject = VerifiedRuntime::verify_chosen(process, runtime)?;
    let needs = knob::needs(&subject)?;
    if limit.cast_unsigned() <= needs.overhead && !force {
        return Err(Error::Refused {
            pid: process.pid(),
            what: format!(
                "{} bytes are mapped that no collection can free: with a limit of {limit} it would collect all the \
                 time; nothing is written",
                needs.overhead
            ),
            hint: Some("set a higher limit, or this one with --force".to_owned()),
        });
    }
    Ok((knob::set_memory_limit(&subject, limit, options)?, needs))
}
