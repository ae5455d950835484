#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| omex_fuzz::onnx_graph(data));
