//! `top` on a terminal: what is to be seen, what keys do, and that the terminal is as it was whatever ends it; and what it
//! writes where there is none. The program computes in functions whose shares of the time are known.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(clippy::panic, reason = "a wrong answer is a failed test")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fixtures::matrix::{NEWEST, QUICK};
use fixtures::{Cell, Fixture, Program, Variant, binary, build, machine};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

/// How long is waited for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(toolchain: &'static str) -> Fixture {
    let cell = Cell::new(toolchain, Variant::Stripped, Program::Hot);
    build::build(&[cell], 2, &|_, _| ()).unwrap();
    let mut fixture = Fixture::spawn(&cell, &[], &[]).unwrap();
    fixture.order("begin shares").unwrap();
    fixture
}

/// A terminal, as a program that draws one keeps it, and `gops-probe top` in it.
struct Terminal {
    probe: Child,
    ours: File,
    theirs: File,
    before: Termios,
    screen: vt100::Parser,
}

impl Terminal {
    const LINES: u16 = 30;
    const COLUMNS: u16 = 110;

    fn open(fixture: &Fixture) -> Self {
        let size = Winsize { ws_row: Self::LINES, ws_col: Self::COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let (ours, theirs) = (File::from(pair.master), File::from(pair.slave));
        let before = tcgetattr(&theirs).unwrap();
        // Its own session, with this as its terminal, and in the same process.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(binary().unwrap()).args(["top", "--interval=300ms", "--window=3s"]);
        command.arg(fixture.pid().to_string()).env("TERM", "xterm-256color");
        command.stdin(theirs.try_clone().unwrap());
        command.stdout(theirs.try_clone().unwrap());
        command.stderr(theirs.try_clone().unwrap());
        let [lines, columns] = [Self::LINES, Self::COLUMNS].map(|size| NonZero::new(size).unwrap());
        let screen = vt100::Parser::new(lines, columns, 0);
        Terminal { probe: command.spawn().unwrap(), ours, theirs, before, screen }
    }

    /// Shows what was written, if something comes in time.
    fn take(&mut self, patience: Duration) -> bool {
        let timeout =
            Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
        let mut events = [PollFd::new(&self.ours, PollFlags::IN)];
        if poll(&mut events, Some(&timeout)).unwrap() == 0 {
            return false;
        }
        let mut bytes = [0; 1 << 14];
        let length = self.ours.read(&mut bytes).unwrap();
        self.screen.process(&bytes[..length]);
        true
    }

    fn text(&self) -> String {
        self.screen.screen().contents()
    }

    /// Waits until this is to be seen.
    #[track_caller]
    fn see(&mut self, what: &str, seen: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let text = self.text();
            if seen(&text) {
                return text;
            }
            assert!(start.elapsed() < PATIENCE, "{what} is not to be seen:\n{text}");
            self.take(Duration::from_millis(200));
            // The whole of what is drawn at once.
            while self.take(Duration::from_millis(5)) {}
        }
    }

    fn press(&mut self, keys: &str) {
        self.ours.write_all(keys.as_bytes()).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.probe.id().cast_signed()), signal).unwrap();
    }

    /// Waits for its end; the terminal must be as it was.
    #[track_caller]
    fn ended(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        let status = loop {
            self.take(Duration::from_millis(20));
            if let Some(status) = self.probe.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it goes on:\n{}", self.text());
        };
        while self.take(Duration::ZERO) {}
        let screen = self.screen.screen();
        assert!(!screen.alternate_screen(), "the other screen is left");
        assert!(!screen.hide_cursor(), "the cursor is left hidden");
        assert_eq!(tcgetattr(&self.theirs).unwrap(), self.before, "the terminal's settings");
        (status, self.text())
    }
}

/// A failed test leaves none.
impl Drop for Terminal {
    fn drop(&mut self) {
        if self.probe.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.probe.kill();
            let _ = self.probe.wait();
        }
    }
}

/// The rows of functions: flat and cumulative in percent, and the name.
fn functions(text: &str) -> Vec<(f64, f64, String)> {
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [flat, "%", cumulative, "%", name] = words[..] else { return None };
        Some((flat.parse().ok()?, cumulative.parse().ok()?, name.to_owned()))
    };
    text.lines().filter_map(row).collect()
}

/// Whether fifty, thirty and twenty have what they are called after, about, with what is inlined in them.
fn are_the_shares(of: impl Fn(&str) -> Option<f64>) -> bool {
    [("fifty", 50.0), ("thirty", 30.0), ("twenty", 20.0)]
        .iter()
        .all(|(name, share)| of(&format!("main.{name}")).is_some_and(|found| f64::abs(found - share) < 8.0))
}

fn cumulative(text: &str) -> impl Fn(&str) -> Option<f64> {
    let rows = functions(text);
    move |name| rows.iter().find(|row| row.2 == name).map(|row| row.1)
}

#[test]
fn keys_and_what_they_show() {
    let _alone = machine::alone();
    for toolchain in QUICK {
        let mut fixture = start(toolchain);
        let mut terminal = Terminal::open(&fixture);
        let text = terminal.see("the shares", |text| are_the_shares(cumulative(text)));
        assert!(text.contains(&format!("process {}", fixture.pid())) && text.contains("q quit"), "{text}");
        let rows = functions(&text);
        assert!(rows.is_sorted_by(|a, b| a.0 >= b.0) && rows[0].0 > 40.0, "{text}");

        terminal.press("c");
        let text = terminal.see("what calls the rest first", |text| {
            functions(text).first().is_some_and(|row| row.0 < 1.0 && row.1 > 90.0)
        });
        assert!(functions(&text).is_sorted_by(|a, b| a.1 >= b.1), "{text}");
        terminal.press("n");
        terminal.see("an order by name", |text| {
            let rows = functions(text);
            rows.len() > 3 && rows.is_sorted_by(|a, b| a.2 <= b.2)
        });
        terminal.press("g");
        let goroutine = |text: &str| {
            let row = text.lines().find(|line| line.contains(" % "))?;
            let words: Vec<&str> = row.split_whitespace().collect();
            let [share, "%", goid, _] = words[..] else { return None };
            Some((share.parse::<f64>().ok()?, goid.parse::<u64>().ok()?))
        };
        let text = terminal.see("the goroutine that computes", |text| {
            text.contains("begins with") && goroutine(text).is_some_and(|(share, _)| share > 90.0)
        });
        assert!(goroutine(&text).is_some_and(|(_, goid)| goid > 1), "{text}");

        terminal.press("f ");
        terminal.see("that it pauses", |text| text.contains("(paused)") && text.contains("function"));
        while terminal.take(Duration::from_millis(100)) {}
        let (before, start) = (terminal.text(), Instant::now());
        while start.elapsed() < Duration::from_secs(1) {
            terminal.take(Duration::from_millis(100));
            assert_eq!(terminal.text(), before, "paused");
        }
        terminal.press(" ");
        terminal.see("that it goes on", |text| !text.contains("(paused)"));

        // A smaller one: nothing is written outside of it.
        let [lines, columns] = [12, 60].map(|size| NonZero::new(size).unwrap());
        terminal.screen.screen_mut().set_size(lines, columns);
        let size = rustix::termios::Winsize {
            ws_row: lines.get(),
            ws_col: columns.get(),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&terminal.theirs, size).unwrap();
        terminal.see("all keys in the last two lines", |text| {
            let shown: Vec<&str> = text.lines().collect();
            shown.len() == usize::from(lines.get())
                && matches!(shown.as_slice(), [.., first, last] if first.starts_with("f flat") && last.trim_end().ends_with("q quit"))
        });
        terminal.press("q");
        let (status, text) = terminal.ended();
        assert!(status.success(), "{status}: {text}");
        fixture.assert_untraced().unwrap();
    }
}

#[test]
fn whatever_ends_it_the_terminal_is_as_it_was() {
    let _alone = machine::alone();
    let mut fixture = start(NEWEST);
    let shown = |text: &str| text.contains("main.fifty");

    let mut terminal = Terminal::open(&fixture);
    terminal.see("a function", shown);
    terminal.press("\u{3}");
    let (status, text) = terminal.ended();
    assert!(status.success(), "Ctrl-C is a way to quit: {status}: {text}");

    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut terminal = Terminal::open(&fixture);
        terminal.see("a function", shown);
        terminal.signal(signal);
        let (status, text) = terminal.ended();
        assert_eq!(status.code(), Some(130), "{signal}: {status}: {text}");
    }
    fixture.assert_untraced().unwrap();

    let mut terminal = Terminal::open(&fixture);
    terminal.see("a function", shown);
    drop(fixture);
    let (status, text) = terminal.ended();
    assert!(status.success() && text.contains("the process ended"), "{status}: {text}");
}

#[test]
fn without_a_terminal() {
    let _alone = machine::alone();
    for toolchain in QUICK {
        let mut fixture = start(toolchain);
        let pid = fixture.pid().to_string();
        let run = |more: &[&str]| {
            let mut command = Command::new(binary().unwrap());
            // Often enough that samples in step with the program's rounds still see all parts of them.
            command.args(["top", &pid, "--interval=1s", "--count=2", "--rate=997"]).args(more);
            let output = command.stdin(Stdio::null()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {said}", output.status);
            String::from_utf8(output.stdout).unwrap()
        };
        let text = run(&[]);
        assert!(!text.contains('\u{1b}'), "{text}");
        let second = &text[text.rfind("cum").unwrap()..];
        assert!(are_the_shares(cumulative(second)), "{text}");

        let text = run(&["--json"]);
        let answers: Vec<Value> =
            serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>().unwrap();
        assert_eq!(answers.len(), 2, "{text}");
        let last = &answers[1];
        let of = |name: &str| {
            let all = last["functions"].as_array()?;
            all.iter().find(|function| function["name"] == name)?["cumulative"]
                .as_f64()
                .map(|share| share * 100.0)
        };
        assert!(are_the_shares(of), "{last:#}");
        assert_eq!(
            last["goroutines_ran"].as_u64(),
            last["goroutines"].as_array().map(|all| all.len() as u64)
        );
        // It would use a whole one, but others may want it too.
        assert!(last["cpus"].as_f64().is_some_and(|cpus| cpus > 0.1), "{last:#}");
        fixture.assert_untraced().unwrap();
    }
}
