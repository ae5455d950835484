//! What operations are played with.

use super::memory::Memory;
use super::states::States;
use crate::columns::{Columns, ColumnsMut};
use crate::error::RunError;
use crate::page::{Pages, Stream};
use crate::pass::Inputs;
use crate::plan::Plan;
use crate::program::{PerLayer, Program, Tensor, Value};
use crate::simd::Kernels;
use crate::state::State;
use crate::state::kv::Window;
use omex_hal::Parallel;

/// Is shown the number of each matrix and every column that it is multiplied with, `[columns of the
/// matrix]`.
pub type Observer<'a> = &'a mut (dyn FnMut(u32, &[f32]) + Send);

/// Plays operations over the slots of one arena.
pub(crate) struct Player<'a> {
    pub(crate) program: Program<'a>,
    pub(crate) plan: Plan,
    pub(crate) memory: Memory<'a>,
    /// Activations in the form in which kernels read them.
    pub(crate) staging: &'a mut [u8],
    pub(crate) carry: &'a mut [u8],
    pub(crate) states: States<'a>,
    pub(crate) pages: Pages<'a>,
    pub(crate) kernels: &'a Kernels,
    pub(crate) parallel: &'a dyn Parallel,
    pub(crate) observer: Option<Observer<'a>>,
    pub(crate) inputs: Inputs<'a>,
    /// Keys and values that the next attention stores.
    pub(crate) pending: Option<Stored>,
    /// This pass is the first of a program that takes no tokens.
    #[cfg(feature = "tensors")]
    pub(crate) begins: bool,
}

/// What an element becomes with one of a vector.
#[derive(Clone, Copy)]
pub(crate) enum Combine {
    Set,
    Add,
    Multiply,
}

/// Keys and values on their way into a cache.
#[derive(Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) state: u32,
    pub(crate) key: Value,
    pub(crate) value: Value,
}

impl Player<'_> {
    /// True if nothing was kept yet that could be recalled.
    pub(crate) fn begins(&self) -> bool {
        #[cfg(feature = "tensors")]
        return self.begins;
        #[cfg(not(feature = "tensors"))]
        true
    }

    /// The columns of values that are read, and those of one that is written.
    pub(crate) fn values<const N: usize>(
        &mut self,
        inputs: [Value; N],
        output: Value,
    ) -> Result<([Columns<'_>; N], ColumnsMut<'_>), RunError> {
        self.memory.split(&self.program, self.inputs.counts(), inputs, output)
    }

    /// As [`Self::values`], of an input that may be the output itself: then it is `None`.
    pub(crate) fn source(
        &mut self,
        input: Value,
        output: Value,
    ) -> Result<(Option<Columns<'_>>, ColumnsMut<'_>), RunError> {
        if input == output {
            let ([], output) = self.values([], output)?;
            return Ok((None, output));
        }
        let ([input], output) = self.values([input], output)?;
        Ok((Some(input), output))
    }

    /// A tensor as it is in a layer.
    pub(crate) fn tensor(&self, weight: PerLayer, layer: u32) -> Result<Tensor, RunError> {
        self.program.tensor(weight.at(layer)).ok_or(RunError::Program)
    }

    /// Combines each column of a value, in pieces as long as the vector, with a vector.
    pub(crate) fn with_vector(
        &mut self,
        vector: PerLayer,
        layer: u32,
        value: Value,
        combine: Combine,
    ) -> Result<(), RunError> {
        let tensor = self.tensor(vector, layer)?;
        let piece = (tensor.columns as usize).max(1);
        let Self { memory, program, inputs, pages, carry, .. } = self;
        let ([], mut value) = memory.split(program, inputs.counts(), [], value)?;
        let mut elements = stream(pages, carry, &tensor);
        let mut done = 0;
        while let Some(bytes) = elements.next_units()? {
            let (elements, _) = bytes.as_chunks::<4>();
            for c in 0..value.count {
                for piece in value.column(c).chunks_mut(piece) {
                    let pairs = piece.get_mut(done..).unwrap_or_default().iter_mut().zip(elements);
                    let number = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
                    match combine {
                        Combine::Set => pairs.for_each(|(x, y)| *x = number(y)),
                        Combine::Add => pairs.for_each(|(x, y)| *x += number(y)),
                        Combine::Multiply => pairs.for_each(|(x, y)| *x *= number(y)),
                    }
                }
            }
            done += elements.len();
        }
        Ok(())
    }

    /// Where the positions of a KV cache lie.
    pub(crate) fn kv_window(&self, state: u32) -> Result<Window, RunError> {
        match self.program.state(state) {
            Some(State::Kv { window, .. }) => Ok(self.plan.window(window)),
            _ => Err(RunError::Program),
        }
    }
}

/// All of a tensor, unit by unit.
pub(crate) fn stream<'s, 'a>(
    pages: &'s mut Pages<'a>,
    carry: &'s mut [u8],
    tensor: &Tensor,
) -> Stream<'s, 'a> {
    Stream::new(pages, carry, tensor.address, tensor.bytes(), tensor.unit_bytes())
}
