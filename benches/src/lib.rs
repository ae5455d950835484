//! Benchmarks: `cargo bench -p omex-benches` for the kernels and the tokenizers, `benches/llama_cpp.py` for whole
//! models beside llama.cpp, `benches/tokenizers.py` for tokenizers beside Hugging Face's. What they gave on which
//! machine is kept in `benches/record`.
