//! Text of `process`: the lines of gops, and further facts with `-v`.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use super::process::{Cgroup, Live, memory_percent};
use super::version::release_text;
use crate::printable::{printable, printable_str};
use crate::process::details::{Details, More, percent};
use crate::runtime::settings::Settings;

/// Writes the lines of gops, and the CPU usage over the measured time with `period` as its label. With
/// `verbose`, further facts follow.
///
/// # Errors
/// Returns an error if writing to `out` fails.
pub fn write_text(
    details: &Details,
    live: &Live,
    period: &str,
    verbose: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    if let Some(parent) = details.stat.parent {
        writeln!(out, "parent PID:\t{parent}")?;
    }
    writeln!(out, "threads:\t{}", details.stat.threads)?;
    if let Some(percent) = memory_percent(details) {
        writeln!(out, "memory usage:\t{percent:.3}%")?;
    }
    writeln!(out, "cpu usage:\t{:.3}%", details.cpu_percent_of_gops)?;
    if let Some(over) = &details.over_period {
        writeln!(out, "cpu usage ({period}):\t{:.3}%", percent(over.cpu_and_io, over.measured))?;
    }
    if let Some(user) = &details.user {
        writeln!(out, "username:\t{}", printable_str(user))?;
    }
    writeln!(out, "cmd+args:\t{}", printable(&details.command.join(&b' ')))?;
    writeln!(out, "elapsed time:\t{}", elapsed(details.elapsed_of_gops))?;
    for c in details.connections.iter().flatten() {
        writeln!(out, "local/remote:\t{} <-> {} ({})", c.local, c.remote, c.state)?;
    }
    match &details.more {
        Some(more) if verbose => write_more(details, more, live, out),
        _ => Ok(()),
    }
}

/// Formats a duration as `ps` does: `[[DD-]hh:]mm:ss`. Seconds are rounded as in gops, and can be 60.
fn elapsed(d: Duration) -> String {
    let (days, hours, minutes) = (d.as_secs() / 86_400, d.as_secs() / 3600 % 24, d.as_secs() / 60 % 60);
    let seconds = (d.as_secs() % 60) as f64 + f64::from(d.subsec_nanos()) / 1e9;
    let mut text = String::new();
    if days > 0 {
        let _ = write!(text, "{days:02}-");
    }
    if days > 0 || hours > 0 {
        let _ = write!(text, "{hours:02}:");
    }
    let _ = write!(text, "{minutes:02}:{seconds:02.0}");
    text
}

fn write_settings(
    settings: &Settings,
    line: &mut impl FnMut(&str, &str) -> io::Result<()>,
) -> io::Result<()> {
    let Settings { gomaxprocs, gogc, memory_limit } = *settings;
    if let Some(n) = gomaxprocs {
        line("GOMAXPROCS now", &n.to_string())?;
    }
    if let Some(percent) = gogc {
        line("GOGC now", &if percent < 0 { "off".to_owned() } else { percent.to_string() })?;
    }
    if let Some(limit) = memory_limit {
        line("GOMEMLIMIT now", &if limit == i64::MAX { "off".to_owned() } else { format!("{limit} bytes") })?;
    }
    Ok(())
}

fn write_more(details: &Details, more: &More, live: &Live, out: &mut dyn Write) -> io::Result<()> {
    let mut line = |key: &str, value: &str| writeln!(out, "{key}:\t{}", printable_str(value));
    if let Some(go) = &more.go {
        line("name", &go.name)?;
        let evidence: Vec<_> = go.program.evidence.iter().map(ToString::to_string).collect();
        line("go version", &format!("{} ({})", release_text(&go.program), evidence.join(", ")))?;
        line(
            "executable",
            &(String::from_utf8_lossy(&go.path) + if go.deleted { " (deleted)" } else { "" }),
        )?;
        if let Some(object) = &go.shared_object {
            line("shared object", &String::from_utf8_lossy(object))?;
        }
        if let Some(main) = go.program.build_info.as_ref().and_then(|i| i.main.as_ref()) {
            line("main module", format!("{} {}", main.path, main.version).trim_end())?;
        }
        if let Some(agent) = &live.agent {
            let confirmed = if agent.confirmed { "" } else { ", unconfirmed" };
            line("agent", &format!("port {}{confirmed}", agent.port))?;
        }
    }
    if let Some(id) = &more.build_ids.go {
        line("build id", id)?;
    }
    if let Some(id) = &more.build_ids.gnu {
        line("GNU build id", id)?;
    }
    for (name, value) in more.environment.iter().flatten() {
        line(name, &format!("{value} (environment)"))?;
    }
    write_settings(&live.settings, &mut line)?;
    for (name, settings) in &live.runtimes {
        line("runtime", &name.to_string())?;
        write_settings(settings, &mut line)?;
    }
    if let Some(id) = &more.container {
        line("container", id)?;
    }
    if let Some(uid) = &more.pod {
        line("pod", uid)?;
    }
    if let Some(cgroup) = Cgroup::new(more) {
        line("cgroup", &format!("{} (version {})", cgroup.path, cgroup.version))?;
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "no limit".to_owned());
        let used = cgroup.memory_used_bytes.map(|b| format!(", {b} bytes used")).unwrap_or_default();
        let limit = or_none(cgroup.memory_limit_bytes.map(|b| format!("{b} bytes")));
        line("memory limit", &(limit + &used))?;
        line("cpu limit", &or_none(cgroup.cpu_limit_cores.map(|c| format!("{c} cores"))))?;
        if let (Some(periods), Some(throttled), Some(us)) =
            (cgroup.cpu_periods, cgroup.cpu_throttled_periods, cgroup.cpu_throttled_us)
        {
            line("throttled", &format!("in {throttled} of {periods} periods, {us} µs of all threads"))?;
        }
    }
    if !more.other_namespaces.is_empty() {
        let names: Vec<_> = more.other_namespaces.iter().map(|n| n.name()).collect();
        line("other namespaces", &names.join(", "))?;
    }
    if details.status.ns_pids.len() > 1 {
        let pids: Vec<_> = details.status.ns_pids.iter().map(ToString::to_string).collect();
        line("pids", &pids.join(" "))?;
    }
    if let Some(tracer) = details.status.tracer {
        line("traced by", &tracer.to_string())?;
    }
    line("cost", &format!("{} bytes read in {} calls, none written", live.cost.bytes, live.cost.calls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_time_as_ps_and_gops_have_it() {
        let of = |seconds: f64| elapsed(Duration::from_secs_f64(seconds));
        assert_eq!(of(0.2), "00:00");
        assert_eq!(of(61.4), "01:01");
        assert_eq!(of(59.7), "00:60");
        assert_eq!(of(3600.0 + 2.0), "01:00:02");
        assert_eq!(of(86_400.0 * 3.0 + 60.0), "03-00:01:00");
        assert_eq!(of(86_400.0 * 123.0), "123-00:00:00");
    }

    /// Rounding of halves to even digits, as Go's `%.3f` does.
    #[test]
    fn percents_are_rounded_as_go_does() {
        assert_eq!(format!("{:.3} {:.3}", 0.0625f32, 0.1875f32), "0.062 0.188");
        assert_eq!(format!("{:02.0} {:02.0}", 0.5f64, 1.5f64), "00 02");
    }
}
