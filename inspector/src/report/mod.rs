//! Forms of answers: serde types for JSON, and the text that people and other tools read.
//!
//! JSON is versioned by [`SCHEMA`] and described in `docs/schema`. Addresses are strings of hexadecimal
//! digits with `0x`. Unknown values are absent.

pub mod answers;
pub mod changes;
pub mod dump;
pub(crate) mod go_text;
pub mod heap;
pub mod list;
pub mod memstats;
pub mod process;
mod process_text;
pub mod runtimes;
pub mod sampling;
pub mod schemas;
pub mod stack;
mod stack_json;
pub mod stats;
pub mod terminal;
pub mod top;
pub mod traceback;
pub mod tree;
pub mod version;

/// Version of the JSON answers. It changes if a field is removed or changes its meaning, not if one is added.
pub const SCHEMA: u32 = 1;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::answers::{ProfileOf, Saved, Serving, Sourced};
    use super::changes::{Gc, SetGc, SetMemLimit};
    use super::runtimes::Several;

    /// Compares a schema in `docs/schema` (here by the link `schema`) with the one made from its type. After
    /// a change of the types, run this test with `UPDATE_SCHEMAS=1`.
    fn check<T: schemars::JsonSchema>(name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schema/{name}.json"));
        let schema = serde_json::to_string_pretty(&generator().into_root_schema_for::<T>()).unwrap() + "\n";
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            std::fs::write(&path, &schema).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == schema, "{} is out of date: run this with UPDATE_SCHEMAS=1", path.display());
    }

    /// Generator for schemas of written JSON: a field that may be left out is not required.
    fn generator() -> schemars::SchemaGenerator {
        schemars::generate::SchemaSettings::draft2020_12().for_serialize().into_generator()
    }

    #[test]
    fn documented_schemas() {
        check::<super::list::List>("list");
        check::<super::process::ProcessInfo>("process");
        check::<super::tree::Tree>("tree");
        check::<super::version::Version>("version");
        check::<super::stack_json::Whole>("stack");
        check::<super::memstats::MemStatsAnswer>("memstats");
        check::<super::heap::HeapAnswer>("heap");
        check::<super::stats::SourcedStats>("stats");
        check::<Sourced<SetGc>>("setgc");
        check::<Sourced<Gc>>("gc");
        check::<Sourced<SetMemLimit>>("setmemlimit");
        check::<Sourced<Saved>>("saved");
        check::<Sourced<Serving>>("serve");
        check::<Sourced<ProfileOf>>("profile");
        check::<Several<super::stack_json::Whole>>("stack-of-runtimes");
        check::<Several<super::memstats::MemStatsAnswer>>("memstats-of-runtimes");
        check::<Several<super::heap::HeapAnswer>>("heap-of-runtimes");
        check::<Several<super::stats::SourcedStats>>("stats-of-runtimes");
        check::<Sourced<super::top::Top>>("top");
    }
}
