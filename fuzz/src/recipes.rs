//! Runtime globals by recipes: their text, the decoder of code, and solving a changed program.

use symbols::globals::recipe::{Recipe, Shape};
use symbols::globals::{code, solve};
use symbols::pclntab::Pclntab;
use symbols::version::GoVersion;

use crate::base::{self, BASES};
use crate::input::Input;

/// The bytes are a recipe's text, or changes to a program whose globals are looked for.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    if kind & 6 == 6 {
        let text = String::from_utf8_lossy(input.rest());
        let _ = GoVersion::parse(&text);
        let _ = text.parse::<Shape>();
        if let Ok(recipe) = text.parse::<Recipe>() {
            assert_eq!(recipe.to_string().parse(), Ok(recipe));
        }
        return;
    }
    let base = &BASES[usize::from(kind & 1)];
    let Some(image) = base::image(base.patched(&mut input)) else { return };
    let Ok(table) = Pclntab::load(&image, &base.header, &base.module) else { return };
    // Decoding is quick, solving is not.
    let first = input.below(table.len() as usize) as u32;
    for function in (0..32).chain(first..first.saturating_add(32)).filter_map(|i| table.func(i)) {
        if let Some(found) = code::decode(&image, function) {
            assert!(found.references.len() <= 256 << 10);
        }
    }
    if kind & 0xf8 == 8 {
        let version = GoVersion::release(18 + u32::from(input.u8()) % 11, u32::from(input.u8()) % 16);
        let _ = solve(&image, &table, &version, &["runtime.allglen", "runtime.sched"]);
    }
}
