//! OMEX's side of `benches/tokenizers.py`: encodes the file named by each line of its input, and prints the seconds
//! that it took and the ids.

use omex::tokenizer::{Spec, compile, encode};
use omex_core::token::{EncodeOptions, Tokenizer};
use std::path::Path;
use std::time::Instant;
use std::{env, error, fs, io};

fn main() -> Result<(), Box<dyn error::Error>> {
    let json = env::args_os().nth(1).ok_or("usage: tokenizer TOKENIZER.JSON")?;
    let section = compile(&Spec::from_hf_json(Path::new(&json))?)?;
    let mut tokenizer = Tokenizer::open(section.as_slice())?;
    for line in io::stdin().lines() {
        let text = fs::read_to_string(line?)?;
        let options = EncodeOptions { add_special: false, parse_special: true };
        let start = Instant::now();
        let ids = encode(&mut tokenizer, &text, options)?;
        let seconds = start.elapsed().as_secs_f64();
        println!("{{\"seconds\": {seconds}, \"ids\": {ids:?}}}");
    }
    Ok(())
}
