#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sipbox_fuzz::inputs::run(data));
