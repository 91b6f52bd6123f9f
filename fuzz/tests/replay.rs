//! The kept corpus, and seeded mutations of it, through each target: a short run without a fuzzer.
//!
//! `GOPS_PROBE_FUZZ_SECONDS` is the budget of all mutations together (default 40), `GOPS_PROBE_FUZZ_SEED` another
//! choice of them.

use std::path::Path;
use std::time::{Duration, Instant};

use gops_probe_fuzz::TARGETS;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// xorshift64*: the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<_> =
        std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a kept input")).collect()
}

fn mutated(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus.get(random.below(corpus.len())).cloned().unwrap_or_default();
    for _ in 0..1 + random.below(8) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes.insert(at.min(bytes.len()), random.next() as u8),
            1 => bytes.truncate(at),
            2 => {
                let other = corpus.get(random.below(corpus.len())).map_or(&[][..], |o| o);
                let part = other.get(random.below(other.len())..).unwrap_or_default();
                bytes.splice(at.min(bytes.len()).., part.iter().copied());
            }
            3 => bytes.extend(random.next().to_le_bytes()),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte =
                        if random.below(2) == 0 { random.next() as u8 } else { *byte ^ 1 << random.below(8) };
                }
            }
        }
    }
    bytes
}

/// Runs one input; says which it was where that panics or takes long.
fn run(name: &str, target: fn(&[u8]), bytes: &[u8]) {
    const SLOW: Duration = Duration::from_secs(10);
    let begun = Instant::now();
    let result = std::panic::catch_unwind(|| target(bytes));
    let took = begun.elapsed();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert!(result.is_ok(), "{name} panics on {hex}");
    assert!(took < SLOW, "{name} takes {took:?} on {hex}");
}

#[test]
fn kept_and_mutated_inputs() {
    let budget = Duration::from_secs(number("GOPS_PROBE_FUZZ_SECONDS", 40));
    let seed = number("GOPS_PROBE_FUZZ_SEED", 1);
    println!("mutations for {budget:?}, seed {seed}");
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        run(name, target, &[]);
        for bytes in &corpus {
            run(name, target, bytes);
        }
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (begun, mut count) = (Instant::now(), 0);
        while begun.elapsed() < budget / TARGETS.len() as u32 && count < 20_000 {
            run(name, target, &mutated(&mut random, &corpus));
            count += 1;
        }
        println!("{name}: {} kept inputs, {count} mutations of them in {:?}", corpus.len(), begun.elapsed());
    }
}
