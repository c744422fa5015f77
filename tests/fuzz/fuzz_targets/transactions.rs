#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sipbox_fuzz::transactions::run(data));
