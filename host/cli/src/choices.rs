//! Options that are one of a few names.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use omex::export::{Dtype, Format};
use omex::package::Blocks;
use omex::pager::PageSource;
use omex::plan::{Kv, RunPrecision};

/// Names, what they mean, and what they stand for.
type Table<T> = &'static [(&'static str, &'static str, T)];

const KV: Table<Kv> = &[
    ("f16", "16-bit floats", Kv::F16),
    ("f32", "32-bit floats", Kv::F32),
    ("int8", "Signed bytes with a scale for each head of a position", Kv::Int8),
];

const PAGES: Table<PageSource> = &[
    ("mmap", "Mapped files", PageSource::Mmap),
    ("uring", "Direct reads through io_uring (Linux)", PageSource::Uring),
    ("direct", "Direct reads by threads", PageSource::Direct),
    ("read", "Reads through the system's cache, which keeps nothing", PageSource::Read),
];

const PRECISIONS: Table<RunPrecision> = &[
    ("base", "The base planes only: fewer bytes, coarser weights", RunPrecision::Base),
    ("full", "All planes", RunPrecision::Full),
    (
        "auto",
        "All planes, or the base planes where only these fit the memory; fewer in some layers while \
         memory is short",
        RunPrecision::Auto,
    ),
];

const EXPORTS: Table<Format> = &[
    ("gguf", "A file for llama.cpp", Format::Gguf),
    ("safetensors", "A folder for Hugging Face's transformers", Format::Safetensors),
];

const DTYPES: Table<Dtype> = &[
    ("f32", "32-bit floats, which hold every number of a package", Dtype::F32),
    ("bf16", "bfloat16", Dtype::Bf16),
    ("f16", "16-bit floats", Dtype::F16),
];

const BLOCKS: Table<Blocks> = &[
    ("paragraphs", "Documents: headings, paragraphs, lines, sentences", Blocks::Paragraphs),
    ("code", "Code in any language, by its indentation and blank lines", Blocks::Code),
];

/// Parses where a text is cut.
pub(crate) fn blocks() -> impl TypedValueParser<Value = Blocks> {
    one_of(BLOCKS)
}

/// Parses what a package is written as.
pub(crate) fn export() -> impl TypedValueParser<Value = Format> {
    one_of(EXPORTS)
}

/// Parses what floats are written as.
pub(crate) fn dtype() -> impl TypedValueParser<Value = Dtype> {
    one_of(DTYPES)
}

/// Parses a format of the KV cache.
pub(crate) fn kv() -> impl TypedValueParser<Value = Kv> {
    one_of(KV)
}

/// Parses where weights come from.
pub(crate) fn pages() -> impl TypedValueParser<Value = PageSource> {
    one_of(PAGES)
}

/// Parses which planes are read.
pub(crate) fn precision() -> impl TypedValueParser<Value = RunPrecision> {
    one_of(PRECISIONS)
}

fn one_of<T: Copy + Send + Sync>(table: Table<T>) -> impl TypedValueParser<Value = T> {
    let names = table.iter().map(|(name, help, _)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(names).try_map(move |name| {
        let found = table.iter().find(|(known, ..)| *known == name);
        found.map(|(.., value)| *value).ok_or("unknown name")
    })
}

#[cfg(test)]
mod tests {
    use super::{KV, PAGES};

    #[test]
    fn names_are_those_that_the_library_shows() {
        assert!(KV.iter().all(|(name, _, kv)| *name == kv.to_string()));
        assert!(PAGES.iter().all(|(name, _, pages)| *name == pages.name()));
    }
}
