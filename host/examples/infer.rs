//! A model that takes numbers: set the input, run, read the outputs.
//!
//! `cargo run --release -p omex --example infer -- kws.omex input.npy`

use omex::infer::{Input, infer};
use omex::npy::Array;
use omex::session::{Session, SessionOptions};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [model, input] = &args[..] else { return Err("usage: infer MODEL.omex INPUT.npy".into()) };
    let mut session = Session::open(model.as_ref(), &SessionOptions::default())?;
    let path = Path::new(input);
    let input = Input { name: None, path, array: Array::read(path)? };
    for (name, array) in infer(&mut session, &[input])? {
        println!("{name} {:?}: {} bytes", array.shape, array.bytes.len());
    }
    Ok(())
}
