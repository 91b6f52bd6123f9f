//! `list`.

use std::io::Write as _;

use super::args::Common;
use super::{output, style::Style};
use crate::Error;
use crate::process::access::Denial;
use crate::process::find::{self, Detail, Found};
use crate::report::list::{List, write_text};

pub(super) fn run(common: &Common) -> Result<(), Error> {
    let detail = if common.json || common.verbose > 0 { Detail::All } else { Detail::Text };
    let found = find::all(detail)?;
    if common.json {
        output::write_json(common, &List::new(&found))?;
    } else {
        output::write(common, |out| write_text(&found, common.verbose > 0, out))?;
    }
    tell_unreadable(&found, common);
    Ok(())
}

/// Says how many processes could not be looked into, and why.
pub(super) fn tell_unreadable(found: &Found, common: &Common) {
    if found.hides_others {
        let style = Style::for_stderr(common.color);
        let denial = Denial::Hidden;
        let todo = denial.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        // A hint that cannot be written is no failure of the answer.
        let _ = writeln!(
            std::io::stderr().lock(),
            "{} the processes of other users are not shown: /proc is mounted with hidepid{todo}",
            style.hint("hint:"),
        );
    }
    let Some(denial) = found.denial.as_ref().filter(|_| found.unreadable > 0) else { return };
    let style = Style::for_stderr(common.color);
    let todo = denial.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    let mut err = std::io::stderr().lock();
    // A hint that cannot be written is no failure of the answer.
    let _ = writeln!(
        err,
        "{} {} process{} could not be looked into ({denial}){todo}",
        style.hint("hint:"),
        found.unreadable,
        if found.unreadable == 1 { "" } else { "es" },
    );
}
