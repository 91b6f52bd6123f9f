//! Header line of a goroutine (`runtime.goroutineheader`).

use std::io::{self, Write};

use super::Level;
use crate::runtime::goroutine::{Goroutine, status};
use crate::runtime::snapshot::{Slot, Snapshot};
use crate::runtime::view::View;

/// Returns the state in the brackets of the header: the wait reason of a waiting goroutine, else the status.
pub fn header_status<'v>(view: &'v View, g: &Goroutine) -> &'v str {
    let waits = matches!(g.status(), status::WAITING | status::LEAKED);
    if waits && g.wait_reason != 0 {
        let reasons = view.table.wait_reasons();
        return reasons.get(usize::from(g.wait_reason)).map_or("unknown wait reason", |r| r);
    }
    status::name(g.status())
}

/// Returns the time that the goroutine has been waiting, in whole minutes. The value is 0 until a garbage
/// collection has seen the goroutine wait.
pub fn wait_minutes(snapshot: &Snapshot, g: &Goroutine) -> i64 {
    let waits = matches!(g.status(), status::WAITING | status::SYSCALL) && g.waitsince != 0;
    if waits { snapshot.taken_at.saturating_sub(g.waitsince) / 60_000_000_000 } else { 0 }
}

/// Writes the header line of a goroutine.
pub fn write_header(
    view: &View,
    snapshot: &Snapshot,
    slot: &Slot,
    level: Level,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let g = &slot.g;
    let details = slot.details.as_deref();
    write!(out, "goroutine {}", g.goid)?;
    if level == Level::System && view.release.names_g_and_m() {
        match snapshot.ms.iter().find(|m| m.addr == g.m && g.m != 0) {
            Some(m) => write!(out, " gp={:#x} m={} mp={:#x}", g.addr, m.id, m.addr)?,
            None => write!(out, " gp={:#x} m=nil", g.addr)?,
        }
    }
    let state = header_status(view, g);
    write!(out, " [{state}")?;
    if g.status() == status::LEAKED {
        out.write_all(b" (leaked)")?;
    }
    if g.is_scanned() {
        out.write_all(b" (scan)")?;
    }
    let durable = g.bubble != 0
        && view.release.marks_durable_waits()
        && (!view.release.marks_durable_waits_only_while_waiting() || g.status() == status::WAITING)
        && view.table.is_idle_in_synctest(g.wait_reason)
        && !state.ends_with("(durable)");
    if durable {
        out.write_all(b" (durable)")?;
    }
    let minutes = wait_minutes(snapshot, g);
    if minutes >= 1 {
        write!(out, ", {minutes} minutes")?;
    }
    if g.lockedm != 0 {
        out.write_all(b", locked to thread")?;
    }
    if let Some(bubble) = details.and_then(|d| d.bubble) {
        write!(out, ", synctest {} {bubble}", view.release.bubble_word())?;
    }
    let labels = details.filter(|_| view.traceback.labels).map_or(&[][..], |d| &d.labels);
    if labels.is_empty() {
        return out.write_all(b"]:\n");
    }
    let modern = view.release.prints_labels_behind_state();
    out.write_all(if modern { b"] {" } else { b" labels:{" })?;
    for (i, (key, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.write_all(b", ")?;
        }
        write_label(key, modern, out)?;
        out.write_all(b": ")?;
        write_label(value, modern, out)?;
    }
    out.write_all(if modern { b"}:\n" } else { b"}]:\n" })
}

fn write_label(text: &[u8], quote_only_if_needed: bool, out: &mut Vec<u8>) -> io::Result<()> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/' | b'_');
    if quote_only_if_needed && text.iter().all(plain) {
        return out.write_all(text);
    }
    write_quoted(text, out)
}

/// Writes quoted text as `runtime.printquoted` does.
fn write_quoted(text: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.write_all(b"\"")?;
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.write_all(b"\\n")?,
                '\r' => out.write_all(b"\\r")?,
                '\t' => out.write_all(b"\\t")?,
                '\\' | '"' => write!(out, "\\{c}")?,
                ' '..='~' => write!(out, "{c}")?,
                c if u32::from(c) < 127 => write!(out, "\\x{:02x}", u32::from(c))?,
                c if u32::from(c) < 0x1_0000 => write!(out, "\\u{:04x}", u32::from(c))?,
                c => write!(out, "\\U{:08x}", u32::from(c))?,
            }
        }
        for b in chunk.invalid() {
            write!(out, "\\x{b:02x}")?;
        }
    }
    out.write_all(b"\"")
}
