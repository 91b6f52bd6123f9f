//! Tests of all formats, with one example profile and with generated ones.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::text::Bounds;
use super::*;

fn function(name: &str) -> Function {
    Function {
        name: name.to_owned(),
        system_name: name.to_owned(),
        file: "/src/a.go".to_owned(),
        start_line: 7,
    }
}

fn example() -> Profile {
    let location = |address, lines: &[(usize, u32)]| Location {
        mapping: Some(0),
        address,
        lines: lines.iter().map(|&(function, line)| Line { function, line }).collect(),
    };
    let label = |key: &str, value| Label { key: key.to_owned(), value };
    Profile {
        sample_types: vec![ValueType::new("objects", "count"), ValueType::new("space", "bytes")],
        default_sample_type: 1,
        period: Some((ValueType::new("space", "bytes"), 512 << 10)),
        time: UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789),
        duration: None,
        mappings: vec![Mapping {
            start: 0x40_0000,
            end: 0x50_0000,
            offset: 0,
            file: "/bin/a".to_owned(),
            build_id: "ab12".to_owned(),
            symbolized: true,
        }],
        locations: vec![
            location(0x40_1000, &[(0, 11), (1, 21)]),
            location(0x40_2000, &[(2, 31)]),
            location(0x40_3000, &[]),
        ],
        functions: vec![
            function("a.inlined"),
            function("a.outer[go.shape.struct { A int; B int }]"),
            function("main.main"),
        ],
        samples: vec![
            Sample {
                stack: vec![0, 1],
                values: vec![2, 2048],
                labels: vec![
                    label("bytes", LabelValue::Number(1024, "bytes".to_owned())),
                    label("who", LabelValue::Text("me\x1b".to_owned())),
                ],
            },
            Sample { stack: vec![1], values: vec![1, 10], labels: Vec::new() },
            Sample { stack: vec![2, 1], values: vec![0, 0], labels: Vec::new() },
        ],
        comments: vec!["nothing\nelse".to_owned()],
    }
}

#[test]
fn pprof_reads_what_it_writes() {
    let profile = example();
    let bytes = pprof::write(&profile);
    assert_eq!(bytes, pprof::write(&profile));
    assert_eq!(pprof::read(&bytes).unwrap(), profile);
    let taken = Profile { duration: Some(Duration::from_millis(5)), ..profile };
    assert_eq!(pprof::read(&pprof::write(&taken)).unwrap(), taken);
}

#[test]
fn damaged_files() {
    let bytes = pprof::write(&example());
    for end in 0..bytes.len() {
        // Without its checksum the data may still be complete.
        let _either = pprof::read(&bytes[..end]);
    }
    assert!(pprof::read(&bytes[..bytes.len() / 2]).is_err());
    // A sample without the location that it names.
    assert_eq!(pprof::read(&[0x12, 0x02, 0x08, 0x01]), Err(pprof::DecodeError::Missing("location")));
    // Three million empty samples.
    assert_eq!(pprof::read(&[0x12, 0x00].repeat(3 << 20)), Err(pprof::DecodeError::TooLarge));
    // A function with a text that does not exist.
    assert_eq!(pprof::read(&[0x2a, 0x02, 0x10, 0x05]), Err(pprof::DecodeError::Missing("text")));
}

#[test]
fn folded_stacks() {
    let text = String::from_utf8(folded::write(&example(), 1).unwrap()).unwrap();
    let expected = "main.main 10\nmain.main;a.outer[go.shape.struct { A int, B int }];a.inlined 2048\n";
    assert_eq!(text, expected);
}

#[test]
fn text_for_people() {
    let text = String::from_utf8(text::write(&example(), 1, Bounds::default()).unwrap()).unwrap();
    let expected = "\
Type: space
Time: 2023-11-14T22:13:20Z
Total: 2.01kB in 3 samples
Other types: objects
Note: nothing\\nelse

Functions, by their own:
      flat  flat%   sum%        cum   cum%
       2kB  99.5%  99.5%        2kB  99.5%  a.inlined
       10B  0.49%   100%     2.01kB   100%  main.main
         0  0.00%   100%        2kB  99.5%  a.outer[go.shape.struct { A int; B int }]

Functions, with all they call:
      flat  flat%   sum%        cum   cum%
       10B  0.49%  0.49%     2.01kB   100%  main.main
       2kB  99.5%   100%        2kB  99.5%  a.inlined
         0  0.00%   100%        2kB  99.5%  a.outer[go.shape.struct { A int; B int }]

Sites:
       2kB  99.5%  bytes=1024bytes  who=me\\x1b
             a.inlined  /src/a.go:11
             a.outer[go.shape.struct { A int; B int }]  /src/a.go:21
             main.main  /src/a.go:31
       10B  0.49%
             main.main  /src/a.go:31
";
    assert_eq!(text, expected);
}

#[test]
fn a_file_for_speedscope() {
    let file: serde_json::Value =
        serde_json::from_slice(&speedscope::write(&example(), 1, "x").unwrap()).unwrap();
    assert_eq!(file["profiles"][1]["samples"], serde_json::json!([[2, 1, 0], [2]]));
    assert_eq!(file["profiles"][1]["weights"], serde_json::json!([2048, 10]));
    assert_eq!(file["profiles"][1]["unit"], "bytes");
    assert_eq!(file["activeProfileIndex"], 1);
    assert_eq!(
        file["shared"]["frames"][2],
        serde_json::json!({"name": "main.main", "file": "/src/a.go", "line": 7})
    );
}

#[test]
fn a_picture() {
    let svg = String::from_utf8(flamegraph::write(&example(), 0, "<heap> of 1").unwrap()).unwrap();
    assert!(svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>"));
    assert!(svg.contains("a.inlined") && svg.contains("&lt;heap&gt; of 1"));
    assert_eq!(svg, String::from_utf8(flamegraph::write(&example(), 0, "<heap> of 1").unwrap()).unwrap());
    let nothing = Profile { samples: Vec::new(), ..example() };
    assert!(flamegraph::write(&nothing, 0, "x").unwrap().starts_with(b"<?xml"));
}

#[test]
fn differences() {
    let before = example();
    let mut after = example();
    after.time += Duration::from_secs(3);
    // The same places under other numbers; one sample more, one less, one unchanged.
    after.functions.reverse();
    after.locations.iter_mut().flat_map(|l| &mut l.lines).for_each(|line| line.function = 2 - line.function);
    after.samples[0].values = vec![5, 5000];
    after.samples.push(Sample { stack: vec![2], values: vec![1, 1], labels: Vec::new() });
    after.samples.remove(1);
    let difference = diff(&before, &after).unwrap();
    assert_eq!(difference.duration, Some(Duration::from_secs(3)));
    assert_eq!(
        (difference.time, difference.functions.len(), difference.locations.len()),
        (before.time, 3, 3)
    );
    let values: Vec<_> = difference.samples.iter().map(|s| s.values.clone()).collect();
    assert_eq!(values, [vec![3, 2952], vec![1, 1], vec![-1, -10]]);
    assert!(diff(&before, &before).unwrap().samples.is_empty());
    let other = Profile { sample_types: vec![ValueType::new("objects", "count")], ..example() };
    assert_eq!(diff(&before, &other), Err(DifferentTypes));
    // Decreases are in the text, and in no picture.
    let text = String::from_utf8(text::write(&difference, 1, Bounds::default()).unwrap()).unwrap();
    assert!(text.contains("-10B") && text.contains("Duration: 3.00s"), "{text}");
    assert!(flamegraph::write(&difference, 1, "x").is_ok());
    speedscope::write(&difference, 1, "x").unwrap();
}

#[test]
fn sample_types_by_name() {
    let profile = example();
    assert_eq!(profile.sample_type(None), Ok(1));
    assert_eq!(profile.sample_type(Some("objects")), Ok(0));
    assert!(profile.sample_type(Some("else")).unwrap_err().to_string().contains("objects, space"));
}

fn any_profile() -> impl Strategy<Value = Profile> {
    let name = "[a-c;\\x00-\\x1f<\u{202e}]{0,6}";
    let functions = prop::collection::vec((name, any::<u32>()), 0..4);
    let locations =
        prop::collection::vec((any::<u64>(), prop::collection::vec((0usize..6, any::<u32>()), 0..3)), 0..5);
    let label = (
        name,
        prop_oneof![
            name.prop_map(LabelValue::Text),
            (any::<i64>(), name).prop_map(|(n, unit)| LabelValue::Number(n, unit)),
        ],
    );
    let sample = (
        prop::collection::vec(0usize..8, 0..6),
        prop::collection::vec(any::<i64>(), 0..4),
        prop::collection::vec(label, 0..3),
    );
    let types = prop::collection::vec((name, name), 0..4);
    (functions, locations, prop::collection::vec(sample, 0..6), types, 0usize..5, any::<u64>()).prop_map(
        |(functions, locations, samples, types, default_sample_type, nanoseconds)| Profile {
            sample_types: types.iter().map(|(kind, unit)| ValueType::new(kind, unit)).collect(),
            default_sample_type,
            period: None,
            time: UNIX_EPOCH + Duration::from_nanos(nanoseconds >> 1),
            duration: None,
            mappings: Vec::new(),
            locations: locations
                .into_iter()
                .map(|(address, lines)| Location {
                    mapping: Some(3),
                    address,
                    lines: lines.into_iter().map(|(function, line)| Line { function, line }).collect(),
                })
                .collect(),
            functions: functions
                .into_iter()
                .map(|(name, start_line)| Function { start_line, ..function(&name) })
                .collect(),
            samples: samples
                .into_iter()
                .map(|(stack, values, labels)| Sample {
                    stack,
                    values,
                    labels: labels.into_iter().map(|(key, value)| Label { key, value }).collect(),
                })
                .collect(),
            comments: Vec::new(),
        },
    )
}

fn acts(text: &str) -> bool {
    text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}')
}

proptest! {
    #[test]
    fn any_profile_is_written(before in any_profile(), after in any_profile()) {
        for profile in [&before, &after] {
            prop_assert!(pprof::read(&pprof::write(profile)).is_ok());
            for index in 0..5 {
                let folded = String::from_utf8(folded::write(profile, index).unwrap()).unwrap();
                prop_assert!(!acts(&folded));
                let text = String::from_utf8(text::write(profile, index, Bounds::default()).unwrap()).unwrap();
                prop_assert!(!acts(&text));
                speedscope::write(profile, index, "x").unwrap();
            }
            prop_assert!(flamegraph::write(profile, 0, "x").is_ok());
            serde_json::to_vec(&json::ProfileAnswer::from(profile)).unwrap();
        }
        if before.sample_types == after.sample_types {
            diff(&before, &after).unwrap();
        }
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let _either = pprof::read(&bytes);
        // Damaged inside the compression, which would notice damage.
        let mut message = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&pprof::write(&example())[..]), &mut message).unwrap();
        let index = at.index(message.len());
        message[index] = to;
        if let Ok(profile) = pprof::read(&message) {
            let _either = text::write(&profile, 0, Bounds::default());
            pprof::write(&profile);
        }
    }
}

#[test]
fn a_place_with_many_labels_is_one_row() {
    let mut profile = example();
    let sample = |id: i64, value: i64| Sample {
        stack: vec![1],
        values: vec![1, value],
        labels: vec![Label { key: "id".to_owned(), value: LabelValue::Number(id, String::new()) }],
    };
    profile.samples = (0..100).map(|id| sample(id, 10)).collect();
    profile.samples.push(sample(7, 500));
    let text = String::from_utf8(text::write(&profile, 1, Bounds::default()).unwrap()).unwrap();
    let (_, sites) = text.split_once("\nSites:\n").unwrap();
    let expected = "    1.46kB   100%
             main.main  /src/a.go:31
             label id=7  510B
             label id=0  10B
             label id=1  10B
             label id=2  10B
             label id=3  10B
             (95 more labels)
";
    assert_eq!(sites, expected);
}
