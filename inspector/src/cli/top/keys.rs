//! Keys on the screen of `top`.

use std::io;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::report::top::Sort;

/// Request of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Leave `top`.
    End,
    /// Remove the previous samples and begin anew.
    Forget,
    /// Change the view.
    Show(Change),
}

/// Change of the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Shows functions in this order.
    Functions(Sort),
    /// Shows goroutines.
    Goroutines,
    /// Shows processes.
    Processes,
    /// Scrolls down by this number of lines.
    Down(isize),
    /// Scrolls to the first line.
    First,
    /// Freezes the view, or resumes it.
    Pause,
    /// Adapts the view to a new size of the terminal.
    Size,
}

/// Returns the request of the next key that was pressed.
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

/// Keys, as the last line of the screen names them.
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
