//! Screen of `top`. The terminal is restored however the screen ends.

use std::io;

use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table, Wrap};
use ratatui::{DefaultTerminal, Frame};

use super::keys::{Change, HELP};
use crate::printable::printable_str;
use crate::report::top::{Sort, Top, percent};

/// Content of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Functions,
    Goroutines,
    Processes,
}

/// State of the view.
#[derive(Debug)]
pub(super) struct Shown {
    title: String,
    notes: Vec<String>,
    of: Of,
    sort: Sort,
    first: usize,
    paused: bool,
    top: Option<Top>,
}

impl Shown {
    pub(super) fn new(title: &str, sort: Sort, notes: &[String]) -> Self {
        Shown {
            title: printable_str(&format!("gops-probe top - {title}")).into_owned(),
            notes: notes.to_vec(),
            of: Of::Functions,
            sort,
            first: 0,
            paused: false,
            top: None,
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Functions(sort) => {
                (self.of, self.sort) = (Of::Functions, sort);
                if let Some(top) = &mut self.top {
                    top.sort(sort);
                }
            }
            Change::Goroutines => self.of = Of::Goroutines,
            Change::Processes => self.of = Of::Processes,
            Change::Down(by) => {
                self.first = self.first.saturating_add_signed(by).min(self.rows().saturating_sub(1))
            }
            Change::First => self.first = 0,
            Change::Pause => self.paused = !self.paused,
            Change::Size => {}
        }
        if matches!(change, Change::Functions(_) | Change::Goroutines | Change::Processes) {
            self.first = 0;
        }
    }

    fn update(&mut self, mut top: Top) {
        if !self.paused {
            top.sort(self.sort);
            self.top = Some(top);
        }
    }

    fn rows(&self) -> usize {
        self.top.as_ref().map_or(0, |top| match self.of {
            Of::Functions => top.functions.len(),
            Of::Goroutines => top.goroutines.len(),
            Of::Processes => top.processes.len(),
        })
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let width = frame.area().width;
        let notes = u16::try_from(self.notes.len()).unwrap_or(0).min(3);
        let summary = self.top.as_ref().map_or_else(|| "sampling".to_owned(), Top::summary);
        let [title, head, about, table, keys] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(height(&summary, width)),
            Constraint::Length(notes),
            Constraint::Min(1),
            Constraint::Length(height(HELP, width)),
        ])
        .areas(frame.area());
        let name = if self.paused { format!("{} (paused)", self.title) } else { self.title.clone() };
        let bold = Style::new().add_modifier(Modifier::BOLD);
        frame.render_widget(Line::styled(name, bold), title);
        frame.render_widget(Paragraph::new(summary).wrap(Wrap { trim: true }), head);
        let lines: Vec<Line<'_>> = self.notes.iter().map(|note| Line::raw(printable_str(note))).collect();
        frame.render_widget(Paragraph::new(lines), about);
        let dim = Style::new().add_modifier(Modifier::DIM);
        frame.render_widget(Paragraph::new(HELP).wrap(Wrap { trim: true }).style(dim), keys);
        if let Some(top) = &self.top {
            let most = usize::from(table.height);
            frame.render_widget(self.table(top, most), table);
        }
    }

    /// Makes the table of the rows from the first shown one, at most `most` rows.
    fn table<'t>(&self, top: &'t Top, most: usize) -> Table<'t> {
        let reversed = Style::new().add_modifier(Modifier::REVERSED);
        let number = Constraint::Length(9);
        let right = |text: String| Line::from(text).right_aligned();
        let first = self.first;
        match self.of {
            Of::Functions => {
                let row = |f: &'t crate::report::top::FunctionShare| {
                    let name = Line::from(printable_str(&f.name));
                    Row::new([right(percent(f.flat)), right(percent(f.cumulative)), name])
                };
                let rows = top.functions.iter().skip(first).take(most).map(row);
                let head = ["flat".to_owned(), "cum".to_owned()].map(right);
                let [flat, cumulative] = head;
                let head = Row::new([flat, cumulative, Line::from("function")]).style(reversed);
                Table::new(rows, [number, number, Constraint::Min(10)]).header(head)
            }
            Of::Goroutines => {
                let row = |g: &'t crate::report::top::GoroutineShare| {
                    let pid = g.pid.map(|pid| format!(" of {pid}")).unwrap_or_default();
                    let name = Line::from(printable_str(&g.begins));
                    Row::new([right(percent(g.share)), right(format!("{}{pid}", g.goid)), name])
                };
                let rows = top.goroutines.iter().skip(first).take(most).map(row);
                let head =
                    Row::new([right("share".into()), right("goroutine".into()), Line::from("begins with")]);
                Table::new(rows, [number, Constraint::Length(18), Constraint::Min(10)])
                    .header(head.style(reversed))
            }
            Of::Processes => {
                let row = |p: &'t crate::report::top::ProcessShare| {
                    let name = Line::from(printable_str(&p.name));
                    Row::new([right(percent(p.share)), right(p.pid.to_string()), name])
                };
                let rows = top.processes.iter().skip(first).take(most).map(row);
                let head = Row::new([right("share".into()), right("pid".into()), Line::from("process")]);
                Table::new(rows, [number, number, Constraint::Min(10)]).header(head.style(reversed))
            }
        }
    }
}

/// Returns the number of lines that a text takes if words are not divided, as the widget wraps it.
fn height(text: &str, width: u16) -> u16 {
    let (mut lines, mut used) = (1u16, 0);
    for word in text.split(' ') {
        let length = word.chars().count();
        if length > 0 && used > 0 && used + 1 + length > usize::from(width) {
            lines = lines.saturating_add(1);
            used = length;
        } else {
            used += length + usize::from(used > 0);
        }
    }
    lines.min(3)
}

/// Terminal that shows the view.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: DefaultTerminal,
    shown: Shown,
}

impl Screen {
    /// Takes over the terminal.
    pub(super) fn open(shown: Shown) -> io::Result<Self> {
        let mut screen = Screen { terminal: ratatui::try_init()?, shown };
        screen.draw(None)?;
        Ok(screen)
    }

    /// Changes the view.
    pub(super) fn change(&mut self, change: Change) {
        self.shown.change(change);
    }

    /// Adds a note about the view.
    pub(super) fn note(&mut self, note: String) {
        self.shown.notes.insert(0, note);
    }

    /// Draws the view, with newer data if given.
    pub(super) fn draw(&mut self, newer: Option<Top>) -> io::Result<()> {
        if let Some(top) = newer {
            self.shown.update(top);
        }
        let Screen { terminal, shown } = self;
        terminal.draw(|frame| shown.draw(frame))?;
        Ok(())
    }
}

/// Restores the terminal.
impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is there to be told of a failure.
        let _ = ratatui::try_restore();
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::capture::cpu::mode::Mode;
    use crate::report::top::{FunctionShare, GoroutineShare, ProcessShare};

    fn top() -> Top {
        let function =
            |name: &str, flat, cumulative| FunctionShare { name: name.to_owned(), flat, cumulative };
        Top {
            mode: Mode::Bpf,
            rate_hz: 99,
            seconds: 2.0,
            samples: 200,
            lost: 0,
            cpus: 1.01,
            garbage_collection: 0.125,
            scheduler: 0.0,
            kernel: 0.25,
            goroutines_ran: 1,
            functions: vec![function("main.hot", 0.75, 0.75), function("main.main\u{1b}[2J", 0.25, 1.0)],
            goroutines: vec![GoroutineShare { pid: None, goid: 7, begins: "main.main".into(), share: 1.0 }],
            processes: vec![ProcessShare { pid: 7, name: "orders".into(), share: 1.0 }],
        }
    }

    fn seen(shown: &Shown) -> String {
        let mut terminal = Terminal::new(TestBackend::new(100, 10)).unwrap();
        terminal.draw(|frame| shown.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn what_is_to_be_seen() {
        let mut shown = Shown::new("orders, process 7", Sort::Flat, &["a note".to_owned()]);
        assert!(seen(&shown).contains("sampling"));
        shown.update(top());
        let text = seen(&shown);
        for part in [
            "orders, process 7",
            "1.01 CPUs, garbage collection 12.5 %",
            "in 2 s by bpf)",
            "a note",
            "75.0 %   main.hot",
        ] {
            let squeezed = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                squeezed.contains(&part.split_whitespace().collect::<Vec<_>>().join(" ")),
                "{part}: {text}"
            );
        }
        assert!(!text.contains('\u{1b}'), "{text}");
        shown.change(Change::Functions(Sort::Cumulative));
        assert!(seen(&shown).find("main.main") < seen(&shown).find("main.hot"));
        shown.change(Change::Down(5));
        assert_eq!(shown.first, 1);
        shown.change(Change::Goroutines);
        assert!(seen(&shown).contains("goroutine") && shown.first == 0);
        shown.change(Change::Processes);
        assert!(seen(&shown).contains("7 orders "), "{}", seen(&shown));
        shown.change(Change::Pause);
        shown.update(Top { cpus: 9.0, ..top() });
        assert!(seen(&shown).contains("(paused)") && !seen(&shown).contains("9.00 CPUs"));
    }
}
