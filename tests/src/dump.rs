//! Parser of goroutine dumps, to compare two dumps of one process.

use std::collections::{BTreeMap, BTreeSet};

/// Goroutine dump: the text of Go's traceback of all goroutines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dump {
    /// Goroutines in the order of the text.
    pub goroutines: Vec<Goroutine>,
}

/// Goroutine of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goroutine {
    /// Number in the header.
    pub id: u64,
    /// Parts of the header.
    pub header: Header,
    /// Whole text of the goroutine with its header line, without the empty line after it.
    pub text: String,
}

/// Parts of a header `goroutine N [status, 3 minutes, locked to thread]:`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// Status or wait reason with its suffixes: the text before the first comma in the brackets.
    pub status: String,
    /// Whole minutes waited, if printed.
    pub minutes: Option<u64>,
    /// True if the goroutine is locked to its thread.
    pub locked: bool,
    /// Further parts in the brackets: the synctest bubble.
    pub details: Vec<String>,
    /// Text between the brackets and the colon: labels.
    pub labels: String,
}

/// Frame of a goroutine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Name of the function as printed; for a creator without the words around it.
    pub function: String,
    /// Text in the parentheses after the name.
    pub arguments: String,
    /// Path of the source file as printed.
    pub file: String,
    /// Line in the source file.
    pub line: u32,
    /// True for the `created by` line, which is not an active call.
    pub creator: bool,
}

impl Dump {
    /// Splits a dump at its goroutine headers. Text outside of goroutines is left out: the text that a fatal
    /// signal prints in front of them, and the registers after them.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let blocks = text.split("\n\n").map(|block| block.trim_matches('\n'));
        let goroutines = blocks.filter_map(|block| {
            let (id, header) = parse_header(block.lines().next()?)?;
            Some(Goroutine { id, header, text: block.to_owned() })
        });
        Self { goroutines: goroutines.collect() }
    }

    /// Returns the goroutine with this number.
    #[must_use]
    pub fn goroutine(&self, id: u64) -> Option<&Goroutine> {
        self.goroutines.iter().find(|goroutine| goroutine.id == id)
    }

    fn by_id(&self) -> BTreeMap<u64, &Goroutine> {
        // If two have the same number, the first one counts: a signal can interrupt a dump in its text.
        self.goroutines.iter().rev().map(|goroutine| (goroutine.id, goroutine)).collect()
    }
}

impl Goroutine {
    /// Returns the frames, innermost first, the creator last; other lines are left out.
    #[must_use]
    pub fn frames(&self) -> Vec<Frame> {
        let lines: Vec<&str> = self.text.lines().collect();
        let mut frames = Vec::new();
        for pair in lines.windows(2) {
            let Some(place) = pair[1].strip_prefix('\t') else { continue };
            let (call, creator) = match pair[0].strip_prefix("created by ") {
                Some(call) => (call.split(" in goroutine ").next().unwrap_or(call), true),
                None => (pair[0], false),
            };
            let (function, arguments) = match call.strip_suffix(')').and_then(split_arguments) {
                Some((function, arguments)) if !creator => (function, arguments),
                _ => (call, ""),
            };
            // Format: file.go:12 +0x34, with further words in a system traceback.
            let place = place.split(" +0x").next().unwrap_or(place);
            let place = place.split(" fp=0x").next().unwrap_or(place);
            let Some((file, line)) = place.rsplit_once(':') else { continue };
            let Ok(line) = line.parse() else { continue };
            frames.push(Frame {
                function: function.to_owned(),
                arguments: arguments.to_owned(),
                file: file.to_owned(),
                line,
                creator,
            });
        }
        frames
    }
}

/// Splits `name(arguments` at the parenthesis that opens the arguments. Names may have parentheses too, as in
/// `pkg.(*T).method`.
fn split_arguments(call: &str) -> Option<(&str, &str)> {
    let mut at = call.len();
    // Arguments have no parentheses: the last one in the text opens them.
    while let Some(open) = call[..at].rfind('(') {
        if !call[open..].starts_with("(*") {
            return Some((&call[..open], &call[open + 1..]));
        }
        at = open;
    }
    None
}

/// Parses `goroutine 7 [chan receive, 2 minutes]:` and its variations.
fn parse_header(line: &str) -> Option<(u64, Header)> {
    let rest = line.strip_prefix("goroutine ")?;
    let (id, rest) = rest.split_once(' ')?;
    let id = id.parse().ok()?;
    // System tracebacks have gp=…, m=… in front of the bracket.
    let rest = &rest[rest.find('[')? + 1..];
    let rest = rest.strip_suffix(':')?;
    let close = rest.find(']')?;
    // Labels of Go 1.26 are inside the brackets and may contain brackets.
    let (inside, labels) = match rest.split_once(" labels:{") {
        Some((inside, labels)) => (inside, labels.strip_suffix("}]").unwrap_or(labels)),
        None => (&rest[..close], rest[close + 1..].trim()),
    };
    let mut header = Header { labels: labels.to_owned(), ..Header::default() };
    for (position, part) in inside.split(", ").enumerate() {
        match part {
            _ if position == 0 => header.status = part.to_owned(),
            "locked to thread" => header.locked = true,
            _ => match part.strip_suffix(" minutes").and_then(|number| number.parse().ok()) {
                Some(minutes) => header.minutes = Some(minutes),
                None => header.details.push(part.to_owned()),
            },
        }
    }
    Some((id, header))
}

/// Difference between two texts of one goroutine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Number of the goroutine.
    pub id: u64,
    /// Text in the target's own dump; empty if the goroutine is missing there.
    pub expected: String,
    /// Text found from outside; empty if the goroutine was not found.
    pub found: String,
}

/// Text that the runtime prints instead of the frames of a goroutine that another thread runs.
const ELSEWHERE: &str = "\tgoroutine running on other thread; stack unavailable";

/// Comparison of the target's own dumps with dumps from outside, by goroutine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    /// Number of goroutines with the same text on both sides, byte for byte.
    pub equal: usize,
    /// Goroutines that ran on another thread: the target could not print their frames, and our dump shows
    /// them as running.
    pub running: Vec<u64>,
    /// Goroutines that differ, and also differ between two dumps of one side.
    pub moved: Vec<u64>,
    /// Goroutines that differ without an explanation.
    pub different: Vec<Difference>,
    /// True if the goroutines of both sides have the same order.
    pub same_order: bool,
}

impl Comparison {
    /// Returns true if each goroutine is the same or is known to have run meanwhile, and the order is the
    /// same.
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.different.is_empty() && self.same_order && self.equal > 0
    }

    /// Number of goroutines compared.
    #[must_use]
    pub fn total(&self) -> usize {
        self.equal + self.running.len() + self.moved.len() + self.different.len()
    }
}

/// Compares a dump from outside with the target's own dumps before and after it.
///
/// The goroutine `dumper` runs during the target's dump, so it is left out.
#[must_use]
pub fn compare(before: &Dump, found: &Dump, after: &Dump, dumper: u64) -> Comparison {
    against([before, after], [found, found], |id| id == dumper, None)
}

/// Compares the target's dumps with dumps from outside, those of each side in order of time.
///
/// Goroutines for which `left_out` returns true are not compared. Goroutine `out_of_place` may be at any
/// position.
pub(crate) fn against(
    own: [&Dump; 2],
    found: [&Dump; 2],
    left_out: impl Fn(u64) -> bool,
    out_of_place: Option<u64>,
) -> Comparison {
    let (theirs, ours) = (own.map(Dump::by_id), found.map(Dump::by_id));
    let texts = |maps: &[BTreeMap<u64, &Goroutine>; 2], id| {
        maps.each_ref().map(|map| map.get(&id).map_or("", |goroutine| goroutine.text.as_str()).to_owned())
    };
    let mut result = Comparison::default();
    let ids: BTreeSet<u64> = theirs[0].keys().chain(ours[0].keys()).copied().collect();
    for id in ids.into_iter().filter(|&id| !left_out(id)) {
        let (expected, found) = (texts(&theirs, id), texts(&ours, id));
        if expected.iter().any(|text| !text.is_empty() && found.contains(text)) {
            result.equal += 1;
        } else if expected[0].contains(ELSEWHERE)
            && ours.iter().any(|map| map.get(&id).is_some_and(|found| found.header.status == "running"))
        {
            result.running.push(id);
        } else if expected[0] != expected[1] || found[0] != found[1] {
            result.moved.push(id);
        } else {
            let ([expected, _], [found, _]) = (expected, found);
            result.different.push(Difference { id, expected, found });
        }
    }
    let order = |dump: &Dump, other: &BTreeMap<u64, &Goroutine>| -> Vec<u64> {
        let ids = dump.goroutines.iter().map(|goroutine| goroutine.id);
        ids.filter(|id| !left_out(*id) && Some(*id) != out_of_place && other.contains_key(id)).collect()
    };
    // The dumps nearest in time are compared: the target's first one, and our last one.
    result.same_order = order(own[0], &ours[1]) == order(found[1], &theirs[0]);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "goroutine 1 [running]:\nmain.main()\n\t/a/main.go:10 +0x1f\n\n\
        goroutine 7 [chan receive (durable), 3 minutes, locked to thread, synctest bubble 2] {k: \"a b\"}:\n\
        main.(*T[...]).method(0x1?, {0x2, 0x3})\n\t/a/t.go:20 +0x1\n\
        main.call(...)\n\t/a/t.go:5\n\
        created by main.main in goroutine 1\n\t/a/main.go:8 +0x2\n";

    #[test]
    fn headers_and_frames_are_read() {
        let dump = Dump::parse(TEXT);
        assert_eq!(dump.goroutines.len(), 2);
        let goroutine = dump.goroutine(7).unwrap();
        assert_eq!(goroutine.header.status, "chan receive (durable)");
        assert_eq!(goroutine.header.minutes, Some(3));
        assert!(goroutine.header.locked);
        assert_eq!(goroutine.header.details, ["synctest bubble 2"]);
        assert_eq!(goroutine.header.labels, "{k: \"a b\"}");
        let frames = goroutine.frames();
        assert_eq!(frames[0].function, "main.(*T[...]).method");
        assert_eq!(frames[0].arguments, "0x1?, {0x2, 0x3}");
        assert_eq!((frames[1].function.as_str(), frames[1].line), ("main.call", 5));
        assert_eq!(frames[2].function, "main.main");
        assert!(frames[2].creator);
    }

    #[test]
    fn system_headers_and_old_labels_are_read() {
        let (id, header) =
            parse_header("goroutine 3 gp=0xc0001 m=nil [select, 1 minutes labels:{\"a\": \"[x]\"}]:")
                .unwrap();
        assert_eq!((id, header.status.as_str(), header.minutes), (3, "select", Some(1)));
        assert_eq!(header.labels, "\"a\": \"[x]\"");
        assert!(parse_header("goroutine running on other thread; stack unavailable").is_none());
    }

    #[test]
    fn differences_need_an_explanation() {
        let before = Dump::parse(TEXT);
        let changed = Dump::parse(&TEXT.replace("t.go:20", "t.go:21"));
        assert!(compare(&before, &before, &before, 1).accepted());
        assert_eq!(compare(&before, &changed, &before, 1).different.len(), 1);
        // The target itself prints the change later.
        assert!(compare(&before, &changed, &changed, 1).accepted());
        let later = Dump::parse(&TEXT.replace("t.go:20", "t.go:22"));
        assert_eq!(compare(&before, &changed, &later, 1).moved, [7]);
        assert!(!compare(&before, &Dump::parse(""), &before, 1).accepted());
    }
}
