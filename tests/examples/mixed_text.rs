//! Writes the texts that tokenizers are compared on into a folder, for `tests/tokenizer_ids.py`.

use omex_tests::mixed_texts;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).ok_or(io::Error::other("usage: mixed_text FOLDER"))?;
    fs::create_dir_all(&folder)?;
    for (number, text) in mixed_texts().enumerate() {
        fs::write(Path::new(&folder).join(format!("{number:03}.txt")), text)?;
    }
    Ok(())
}
