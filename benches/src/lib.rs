//! Benchmarks: `cargo bench -p omex-benches` for the kernels, `benches/llama_cpp.py` for whole
//! models beside llama.cpp. What they gave on which machine is kept in `benches/record`.
