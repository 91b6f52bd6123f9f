//! What keys mean on the screen of `top`.

use std::io;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::report::top::Sort;

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// To leave.
    End,
    /// To begin anew.
    Forget,
    /// To see something else.
    Show(Change),
}

/// What is to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Functions in this order.
    Functions(Sort),
    /// Goroutines.
    Goroutines,
    /// Processes.
    Processes,
    /// So many lines further down.
    Down(isize),
    /// The first line.
    First,
    /// The same, without changing any more; or going on.
    Pause,
    /// Only that the size of the terminal has changed.
    Size,
}

/// The next of the keys that were pressed.
pub(super) fn pressed() -> io::Result<Option<Wish>> {
    while event::poll(Duration::ZERO)? {
        let wish = match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => meant(key),
            Event::Resize(..) => Some(Wish::Show(Change::Size)),
            _ => None,
        };
        if wish.is_some() {
            return Ok(wish);
        }
    }
    Ok(None)
}

/// The keys, as the last line of the screen names them.
pub(super) const HELP: &str =
    "f flat  c cumulative  n name  g goroutines  p processes  space pause  r reset  ↑↓ scroll  q quit";

fn meant(key: KeyEvent) -> Option<Wish> {
    const PAGE: isize = 20;
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return matches!(key.code, KeyCode::Char('c' | 'd')).then_some(Wish::End);
    }
    let change = match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return Some(Wish::End),
        KeyCode::Char('r') => return Some(Wish::Forget),
        KeyCode::Char('f') => Change::Functions(Sort::Flat),
        KeyCode::Char('c') => Change::Functions(Sort::Cumulative),
        KeyCode::Char('n') => Change::Functions(Sort::Name),
        KeyCode::Char('g') => Change::Goroutines,
        KeyCode::Char('p') => Change::Processes,
        KeyCode::Char(' ') => Change::Pause,
        KeyCode::Up | KeyCode::Char('k') => Change::Down(-1),
        KeyCode::Down | KeyCode::Char('j') => Change::Down(1),
        KeyCode::PageUp => Change::Down(-PAGE),
        KeyCode::PageDown => Change::Down(PAGE),
        KeyCode::Home => Change::First,
        _ => return None,
    };
    Some(Wish::Show(change))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_out() {
        for key in [
            KeyEvent::from(KeyCode::Esc),
            KeyEvent::from(KeyCode::Char('q')),
            KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL),
        ] {
            assert_eq!(meant(key), Some(Wish::End));
        }
        let cumulative = Wish::Show(Change::Functions(Sort::Cumulative));
        assert_eq!(meant(KeyEvent::from(KeyCode::Char('c'))), Some(cumulative));
        assert_eq!(meant(KeyEvent::from(KeyCode::Char('x'))), None);
    }
}
