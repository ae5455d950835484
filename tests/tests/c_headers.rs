//! The headers for C are made of the libraries' sources.
//!
//! After a change of these: `OMEX_UPDATE_HEADERS=1 cargo test -p omex-tests --test c_headers`.

use cbindgen::{Builder, Config};
use std::fs;
use std::path::{Path, PathBuf};

const UPDATE: &str = "OMEX_UPDATE_HEADERS";

/// The library's folder, and its header's name.
const HEADERS: [(&str, &str); 2] = [("core/capi", "omex.h"), ("host/capi", "omex_host.h")];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn made(library: &Path) -> String {
    let config = Config::from_file(library.join("cbindgen.toml")).unwrap();
    let builder = Builder::new().with_config(config).with_src(library.join("src/lib.rs"));
    let mut bytes = vec![];
    builder.generate().unwrap().write(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn they_are_what_the_sources_make() {
    for (library, name) in HEADERS {
        let library = repository().join(library);
        let (made, kept) = (made(&library), library.join("include").join(name));
        if std::env::var_os(UPDATE).is_some() {
            fs::write(kept, made).unwrap();
            continue;
        }
        let found = fs::read_to_string(&kept).unwrap_or_default();
        assert!(found == made, "{name} is out of date: run with {UPDATE}=1");
    }
}
