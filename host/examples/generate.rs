//! A thread that owns a model and answers prompts, as a server would have it.
//!
//! `cargo run --release -p omex --example generate -- MODEL.omex "Once upon a time"`

use omex::cancel::Cancel;
use omex::draft::Drafting;
use omex::generate::{Event, Request, generate};
use omex::session::{OwnedEngine, Session, SessionOptions};
use omex_core::sample::Sampling;
use std::io::Write;
use std::sync::mpsc;
use std::thread;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(model), Some(prompt)) = (args.next(), args.next()) else {
        return Err("usage: generate MODEL.omex PROMPT".into());
    };
    let options = SessionOptions { memory: Some(64 << 20), ..SessionOptions::default() };
    let mut engine = OwnedEngine::new(Session::open(model.as_ref(), &options)?)?;
    let (prompts, asked) = mpsc::channel::<String>();
    let (pieces, told) = mpsc::channel();
    let answering = thread::spawn(move || -> omex::Result<()> {
        let model = engine.model().clone();
        for text in asked {
            let request = Request {
                saved: None,
                prompt: &model.encode(&text)?,
                max_tokens: 100,
                sampling: Sampling { temperature: 0.8, seed: 7, ..Sampling::GREEDY },
                mask: None,
                stop: &[],
                // Another thread may hold a clone of it, to end the text.
                cancel: Cancel::default(),
            };
            let drafting = Drafting::new(None, 0, &model);
            let tell = &mut |event: Event<'_>| {
                if let Event::Token { text, .. } | Event::End { text } = event {
                    // Nobody may be listening any more.
                    let _ = pieces.send(text.to_owned());
                }
                Ok(())
            };
            engine.with(|engine| generate(&model, engine, request, drafting, tell))?;
        }
        Ok(())
    });
    prompts.send(prompt)?;
    drop(prompts);
    for piece in told {
        print!("{piece}");
        std::io::stdout().flush()?;
    }
    println!();
    Ok(answering.join().expect("the thread does not panic")?)
}
