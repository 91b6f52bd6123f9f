//! JSON schemas of all answers, generated from the types in this folder and kept in `docs/schema`.

/// Schemas by name of the answer, as in `docs/schema`.
pub const SCHEMAS: &[(&str, &str)] = &[
    ("gc", include_str!("../../schema/gc.json")),
    ("heap-of-runtimes", include_str!("../../schema/heap-of-runtimes.json")),
    ("heap", include_str!("../../schema/heap.json")),
    ("list", include_str!("../../schema/list.json")),
    ("memstats-of-runtimes", include_str!("../../schema/memstats-of-runtimes.json")),
    ("memstats", include_str!("../../schema/memstats.json")),
    ("process", include_str!("../../schema/process.json")),
    ("profile", include_str!("../../schema/profile.json")),
    ("saved", include_str!("../../schema/saved.json")),
    ("serve", include_str!("../../schema/serve.json")),
    ("setgc", include_str!("../../schema/setgc.json")),
    ("setmemlimit", include_str!("../../schema/setmemlimit.json")),
    ("stack-of-runtimes", include_str!("../../schema/stack-of-runtimes.json")),
    ("stack", include_str!("../../schema/stack.json")),
    ("stats-of-runtimes", include_str!("../../schema/stats-of-runtimes.json")),
    ("stats", include_str!("../../schema/stats.json")),
    ("top", include_str!("../../schema/top.json")),
    ("tree", include_str!("../../schema/tree.json")),
    ("version", include_str!("../../schema/version.json")),
];
