//! What the tests of the whole system share. Each file in `tests/` is named after a promise.
//!
//! Test data that the repository does not carry lie in `shared/` beside it. A test that needs them
//! asks for them with [`require_shared!`], and says that it was skipped where they are absent.

mod adapted;
mod checkpoint;
mod fault;
pub mod hub;
mod made;
mod mixed_text;
mod models;
pub mod onnx;
mod oracle;
mod play;
mod process;
mod random;
mod shared;
mod sources;
mod stored;
mod synthetic;
mod xml;

pub use adapted::{Change, Matrix, add_adapter};
pub use checkpoint::{Checkpointed, archive, checkpoint, older_checkpoint, pickle, state_dict};
pub use fault::{Fault, FaultyPager};
pub use made::{MadeModel, made_models};
pub use mixed_text::{mixed_text, mixed_texts};
pub use models::{Converted, convert_from, mix, pack_with, shipped_model};
pub use oracle::check_program;
pub use play::{Rows, Setting, checksum, greedy, greedy_logits, logits, perplexity, worst_error};
pub use process::{
    Finished, answered, board, check_memory, json_of, omex, omex_binary, run, run_in, run_with,
    serial_board,
};
pub use random::Random;
pub use shared::{Npy, json, numbers, read_npy, shared};
pub use sources::sources;
pub use stored::{Tensor, all_tensors, is_half, rows, tensors, write_safetensors};
pub use synthetic::Synthetic;
pub use xml::check_xml;
