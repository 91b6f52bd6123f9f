//! Files of /proc, of which a process chooses parts; and what makes text safe for a terminal.

use inspector::process::facts::{Stat, Status, container_id};
use inspector::process::maps::Mapping;
use inspector::report::printable::printable;
use inspector::report::traceback::printed_name;
use inspector::runtime::attach::{bias_by_entry, bias_by_mapping};

use crate::base::{self, BASES, Patched};
use crate::input::Input;

/// The bytes are one of the files, or a name.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    let text = input.rest();
    match kind % 6 {
        0 => drop(Stat::parse(text)),
        1 => drop(Status::parse(text)),
        2 => drop(container_id(text)),
        3 => {
            let image = base::image(Patched::new(&BASES[1].bytes)).expect("an ELF file");
            for mapping in Mapping::parse_all(text) {
                let _ = mapping.contains(mapping.start);
                let _ = bias_by_mapping(&image, &mapping);
            }
        }
        4 => {
            let image = base::image(Patched::new(&BASES[1].bytes)).expect("an ELF file");
            let _ = bias_by_entry(&image, text);
        }
        _ => {
            let shown = printable(text);
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
            for minor in [18, 22, 26, 27] {
                let _ = printed_name(text, minor);
            }
        }
    }
}
