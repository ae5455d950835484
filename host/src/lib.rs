//! OMEX on a machine with an operating system: import, plan, pack and run models.
//!
//! The way of a model: [`import`] reads what other programs stored, [`arch`] knows what it computes,
//! [`convert`] turns it into a [`package`], [`compile`] its graph into the program that the core plays; [`plan`] decides what
//! fits into memory, [`session`] runs it, and [`batch`] runs many prompts at once. [`optimize`] makes integers of graphs of floats. [`pack`] makes a
//! flash image for a board. [`benchmark`] and [`compare`] measure models, [`profile`] the machine, and
//! [`forecast`] says from that what a plan will cost, and [`layers`] what each layer has in it;
//! [`trace`] shows what happens in memory while a model runs. With the feature `hub`, models come from a hub.
//!
//! To have a model in a program of your own: [`session::OwnedEngine`] and [`generate::generate`], as in
//! `examples/generate.rs`; for models that take numbers, [`infer::infer`], as in `examples/infer.rs`; for libraries that
//! hold a model whatever it does, [`runner::Runner`].

mod aligned;
pub mod arch;
pub mod bands;
pub mod batch;
pub mod benchmark;
pub mod calibrate;
pub mod cancel;
pub mod chat;
pub mod compare;
pub mod compile;
#[cfg(feature = "constrain")]
pub mod constrain;
pub mod convert;
pub mod device;
pub mod dispatch;
pub mod draft;
pub mod durable;
pub mod embed;
pub mod error;
mod event;
pub mod experts;
pub mod export;
pub mod features;
mod fixed_point;
pub mod forecast;
pub mod format;
pub mod generate;
pub mod graph;
#[cfg(feature = "hub")]
pub mod hub;
pub mod import;
pub mod infer;
pub mod input;
pub mod layers;
mod markup;
pub mod mask;
pub mod memory;
pub mod npy;
pub mod optimize;
pub mod pack;
pub mod package;
mod page_writer;
pub mod pager;
pub mod picture;
pub mod plan;
pub mod pool;
pub mod preprocess;
pub mod pressure;
mod printable;
pub mod profile;
pub mod quantize;
pub mod reads;
pub mod rerank;
pub mod runner;
pub mod sampling;
pub mod saved_session;
mod scratch;
pub mod session;
pub mod spill;
pub mod states;
pub mod stop;
pub mod synth;
pub mod system;
pub mod tokenizer;
pub mod trace;
pub mod whole;
mod work;

pub use error::{Error, Result};
