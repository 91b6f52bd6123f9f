//! Goroutine dump that an agent printed, parsed. The result has only what the text says.

use std::io::{self, Write};

use serde::Serialize;

use super::answers::Source;
use super::stack::{Counts, Filter, States};
use super::stack_json as json;

/// Goroutines of a dump, in the order of its text.
#[derive(Debug)]
pub struct Dump<'t> {
    goroutines: Vec<Goroutine<'t>>,
}

/// Goroutine of a dump.
#[derive(Debug)]
struct Goroutine<'t> {
    id: u64,
    /// State or wait reason.
    state: &'t str,
    wait_minutes: Option<i64>,
    locked_to_thread: bool,
    bubble: Option<u64>,
    /// Whole text of the goroutine, without the empty line behind it.
    text: &'t str,
}

impl<'t> Dump<'t> {
    /// Parses a dump. Text that is no goroutine is left out; returns `None` if no goroutine is found.
    pub fn parse(text: &'t str) -> Option<Self> {
        let blocks = text.split("\n\n").map(|block| block.trim_matches('\n'));
        let goroutines: Vec<_> = blocks.filter_map(Goroutine::parse).collect();
        (!goroutines.is_empty()).then_some(Dump { goroutines })
    }

    fn wanted<'d>(&'d self, filter: &'d Filter) -> impl Iterator<Item = &'d Goroutine<'t>> {
        self.goroutines.iter().filter(|g| {
            filter.goid.is_none_or(|id| id == g.id)
                && filter.state.as_deref().is_none_or(|s| s == g.state)
                && filter.pattern.as_ref().is_none_or(|p| p.is_match(g.text.as_bytes()))
        })
    }

    /// Counts the goroutines in each state.
    pub fn states(&self) -> States {
        States::of(self.goroutines.iter().map(|goroutine| goroutine.state))
    }

    /// Writes the goroutines that `filter` lets pass, as the agent printed them.
    ///
    /// # Errors
    /// Returns an error if writing to `out` fails.
    pub fn write_text(&self, filter: &Filter, out: &mut dyn Write) -> io::Result<Counts> {
        let mut counts = Counts::default();
        for goroutine in self.wanted(filter) {
            if counts.goroutines > 0 {
                out.write_all(b"\n")?;
            }
            writeln!(out, "{}", goroutine.text)?;
            counts.goroutines += 1;
        }
        Ok(counts)
    }

    /// Writes the goroutines that `filter` lets pass, in the format of `stack --json`. Addresses, labels and
    /// evidence are left out: a dump does not have them.
    ///
    /// # Errors
    /// Returns an error if writing to `out` fails.
    pub fn write_json(&self, source: &Source, filter: &Filter, out: &mut dyn Write) -> io::Result<Counts> {
        #[derive(Serialize)]
        struct Answer<'a> {
            #[serde(flatten)]
            source: &'a Source,
            consistency: &'static str,
            goroutines: Vec<json::Goroutine<'a>>,
            counts: Counts,
        }
        let goroutines: Vec<_> = self.wanted(filter).map(Goroutine::json).collect();
        let counts = Counts { goroutines: goroutines.len(), ..Counts::default() };
        // The agent stops the world for a dump.
        serde_json::to_writer(&mut *out, &Answer { source, consistency: "instant", goroutines, counts })?;
        out.write_all(b"\n")?;
        Ok(counts)
    }
}

impl<'t> Goroutine<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let header = text.lines().next()?.strip_prefix("goroutine ")?.strip_suffix(':')?;
        let (id, rest) = header.split_once(" [")?;
        let (within, _) = rest.rsplit_once(']')?;
        // Labels stand behind the brackets or within them.
        let within = within.split_once(" labels:{").map_or(within, |(state, _)| state);
        let within = within.split_once("] {").map_or(within, |(state, _)| state);
        let mut parts = within.split(", ");
        let state = parts.next()?;
        let suffixes = [" (scan)", " (durable)", " (leaked)"];
        let state = suffixes.iter().fold(state, |state, suffix| state.strip_suffix(suffix).unwrap_or(state));
        let mut goroutine = Goroutine {
            // The runtime may print details of its own between the number and the brackets.
            id: id.split(' ').next()?.parse().ok()?,
            state,
            wait_minutes: None,
            locked_to_thread: false,
            bubble: None,
            text,
        };
        for part in parts {
            if let Some(minutes) = part.strip_suffix(" minutes") {
                goroutine.wait_minutes = minutes.parse().ok();
            } else if part == "locked to thread" {
                goroutine.locked_to_thread = true;
            } else if let Some(bubble) = part.strip_prefix("synctest ") {
                goroutine.bubble = bubble.rsplit(' ').next().and_then(|n| n.parse().ok());
            }
        }
        Some(goroutine)
    }

    fn json(&self) -> json::Goroutine<'t> {
        let mut frames = Vec::new();
        let (mut created_by, mut parent, mut left_out) = (None, None, None);
        let mut lines = self.text.lines().skip(1).peekable();
        while let Some(line) = lines.next() {
            if let Some(creator) = line.strip_prefix("created by ") {
                let (name, by) =
                    creator.split_once(" in goroutine ").map_or((creator, None), |(n, g)| (n, Some(g)));
                created_by = Some(name.into());
                parent = by.and_then(|g| g.trim().parse().ok());
                break;
            }
            if let Some(count) = line.strip_prefix("...").and_then(|l| l.split(' ').next()) {
                // `...additional frames elided...` does not give a number.
                left_out = left_out.or(count.parse().ok());
                continue;
            }
            let Some(place) = lines.peek().and_then(|next| next.strip_prefix('\t')) else { continue };
            let place = place.rsplit_once(" +0x").map_or(place, |(place, _)| place);
            let place = place.split_once(" fp=").map_or(place, |(place, _)| place);
            if let Some((file, number)) = place.rsplit_once(':')
                && let Ok(number) = number.parse()
            {
                let (function, arguments) = split_call(line);
                frames.push(json::Frame {
                    function: function.to_owned(),
                    file: file.to_owned(),
                    line: number,
                    inlined: arguments == "...",
                    pc: None,
                });
                lines.next();
            }
        }
        json::Goroutine {
            id: self.id,
            state: self.state,
            address: None,
            parent,
            created_by,
            wait_minutes: self.wait_minutes,
            locked_to_thread: self.locked_to_thread,
            thread: None,
            bubble: self.bubble,
            labels: Vec::new(),
            confirmed: true,
            incomplete: None,
            frames_left_out: left_out,
            frames,
        }
    }
}

/// Splits `pkg.(*T).f(0x1, {0x2, 0x3})` into name and arguments. Names may have parentheses and braces;
/// arguments have only braces.
fn split_call(line: &str) -> (&str, &str) {
    let Some(inner) = line.strip_suffix(')') else { return (line, "") };
    match inner.rfind('(') {
        Some(at) => (inner.get(..at).unwrap_or(line), inner.get(at + 1..).unwrap_or("")),
        None => (line, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::AgentTarget;

    const TEXT: &str = "goroutine 1 [chan receive (nil chan), 3 minutes, locked to thread]:\n\
        main.(*T).wait(...)\n\t/src/a b/main.go:7\nmain.main()\n\t/src/a b/main.go:12 +0x1d\n\n\
        goroutine 18 [select (no cases), synctest bubble 2]:\nmain.f[...](0x1, {0x2?, 0x3})\n\t/src/f.go:1 +0x2\n\
        ...23 frames elided...\ncreated by main.main.func1 in goroutine 1\n\t/src/main.go:9 +0x5\n\n\
        goroutine 19 [running] {a: b}:\n\tgoroutine running on other thread; stack unavailable\n";

    fn json(filter: &Filter) -> serde_json::Value {
        let source = Source::new(&AgentTarget::Process("7".parse().unwrap()), "agent");
        let mut out = Vec::new();
        Dump::parse(TEXT).unwrap().write_json(&source, filter, &mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn what_a_dump_says() {
        let answer = json(&Filter::default());
        assert_eq!((&answer["pid"], &answer["via"]), (&7.into(), &"agent".into()));
        assert_eq!(answer["counts"]["goroutines"], 3);
        let first = &answer["goroutines"][0];
        assert_eq!(first["state"], "chan receive (nil chan)");
        assert_eq!((&first["wait_minutes"], &first["locked_to_thread"]), (&3.into(), &true.into()));
        assert_eq!(first["frames"][0]["function"], "main.(*T).wait");
        assert_eq!(
            (&first["frames"][0]["inlined"], &first["frames"][1]["inlined"]),
            (&true.into(), &false.into())
        );
        assert_eq!(
            (&first["frames"][1]["file"], &first["frames"][1]["line"]),
            (&"/src/a b/main.go".into(), &12.into())
        );
        assert_eq!(first.get("address"), None);
        let second = &answer["goroutines"][1];
        assert_eq!((&second["bubble"], &second["parent"]), (&2.into(), &1.into()));
        assert_eq!(
            (&second["created_by"], &second["frames_left_out"]),
            (&"main.main.func1".into(), &23.into())
        );
        assert_eq!(second["frames"][0]["function"], "main.f[...]");
        assert_eq!(answer["goroutines"][2]["state"], "running");
    }

    #[test]
    fn filters_keep_the_text() {
        let dump = Dump::parse(TEXT).unwrap();
        let text = |filter: &Filter| {
            let mut out = Vec::new();
            let counts = dump.write_text(filter, &mut out).unwrap();
            (String::from_utf8(out).unwrap(), counts.goroutines)
        };
        assert_eq!(text(&Filter::default()), (TEXT.to_owned(), 3));
        let one = Filter { goid: Some(18), ..Filter::default() };
        assert_eq!(text(&one).0, TEXT.split("\n\n").nth(1).unwrap().to_owned() + "\n");
        let state = Filter { state: Some("running".into()), ..Filter::default() };
        assert_eq!(text(&state).1, 1);
        assert!(Dump::parse("<html>\n\nnothing").is_none());
    }
}
