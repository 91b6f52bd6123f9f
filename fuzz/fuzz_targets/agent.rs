#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gops_probe_fuzz::agent::run(data));
