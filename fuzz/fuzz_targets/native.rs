//! ELF files of native code.
#![no_main]

// What all inputs share is made first: it is not part of any input's time.
libfuzzer_sys::fuzz_target!(init: gops_probe_fuzz::native::run(&[]), |data: &[u8]| gops_probe_fuzz::native::run(data));
