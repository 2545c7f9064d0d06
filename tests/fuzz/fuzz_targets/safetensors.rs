#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tdb_tests::fuzz::run("safetensors", input));
