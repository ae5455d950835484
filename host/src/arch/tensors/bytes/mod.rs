//! Graphs of floats, drawn again with operations of signed bytes where there are some.
//!
//! `apart` gives each value one meaning; then `draw` goes through the nodes, and has of each value bytes, floats or
//! both, by the steps that values are known to have: from samples, or from the graph itself (`given`).

mod apart;
mod draw;
mod functions;
mod fused;
mod given;
mod index;
mod prune;
mod rows;
mod step;

pub(crate) use apart::apart;
pub(crate) use draw::in_bytes;
pub(super) use given::{given_steps, is_quantized};
pub(crate) use step::{Step, Steps};
