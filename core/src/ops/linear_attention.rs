//! Attention whose past is a matrix for each head: state space models (Mamba-2, arXiv:2405.21060) and
//! gated DeltaNets (arXiv:2412.06464).

use super::{Form, Numbers, Operation, operands};
use crate::columns::{Columns, ColumnsMut};
use crate::engine::player::{Player, stream};
use crate::error::{Fault, RunError};
use crate::pass::Run;
use crate::program::{Check, Program};
use crate::rows::{TaskRows, share_rows_of_both};
use crate::simd::{Kernels, LANES, Step};
use crate::state::State;
use omex_hal::Parallel;
use serde::{Deserialize, Serialize};
use zerocopy::FromBytes;

/// Of each head, token after token: S = `decay` · S; S += k ⊗ u; `output` = Sᵀq + `skip` · v. By the delta
/// rule u = `rate` · (v - Sᵀk), and else `rate` · v.
///
/// Queries and keys are the numbers of as many groups as `groups` says, of which each serves as many heads;
/// values are the heads' own. The state of a head is `[values / 8][keys][8]`, zeros where a text begins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct LinearAttention<F: Form = Numbers> {
    /// Bytes of floats, [heads, values rounded up to 8, keys].
    pub state: F::Name,
    /// Vector [heads]; none for zeros.
    #[serde(default)]
    pub skip: Option<F::Name>,
    /// q, [groups, keys].
    pub query: F::Value,
    /// k, [groups, keys].
    pub key: F::Value,
    /// v, [heads, values].
    pub value: F::Value,
    /// What is left of a head's state.
    pub decay: F::Value,
    /// How much of a head's value is written.
    pub rate: F::Value,
    /// [heads, values].
    pub output: F::Value,
    /// Groups of heads that share queries and keys.
    pub groups: u32,
    /// The delta rule: a value replaces what its key found before.
    #[serde(default)]
    pub delta: bool,
}

operands!(LinearAttention {
    state state, maybe_weight skip, read query, read key, read value, read decay, read rate, write output;
    groups, delta
});

impl LinearAttention {
    /// Floats of the state of so many heads, each with so many keys and values.
    #[must_use]
    pub fn state_floats([heads, keys, values]: [u32; 3]) -> u64 {
        let shape = [heads, keys, values.next_multiple_of(LANES as u32)];
        shape.into_iter().map(u64::from).fold(1, u64::saturating_mul)
    }
}

/// Numbers of a head.
#[derive(Clone, Copy)]
struct Head {
    keys: usize,
    values: usize,
}

impl Head {
    /// Floats of its state.
    fn state(self) -> usize {
        LinearAttention::state_floats([1, self.keys as u32, self.values as u32]) as usize
    }
}

impl Operation for LinearAttention {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        let Self { query, key, value, decay, rate, output, groups, .. } = *self;
        check.tokens(&[query, key, value, decay, rate, output])?;
        check.equal(query.width, key.width)?;
        check.equal(value.width, output.width)?;
        check.equal(decay.width, rate.width)?;
        let heads = decay.width;
        check.that(groups > 0 && heads.is_multiple_of(groups))?;
        check.that(key.width.is_multiple_of(groups) && value.width.is_multiple_of(heads))?;
        let Head { keys, values } = self.head();
        let floats = Self::state_floats([heads, keys as u32, values as u32]);
        let state = |state| matches!(state, State::Bytes(n) if u64::from(n) == 4 * floats);
        check.states(self.state, state)?;
        self.skip.map_or(Ok(()), |skip| check.vector(skip, heads))
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        self.skip(player, layer)?;
        let index = self.state.at(layer);
        let Player { memory, program, plan, inputs, states, kernels, parallel, .. } = player;
        let reads = [self.query, self.key, self.value, self.decay, self.rate];
        let ([query, key, value, decay, rate], mut output) =
            memory.split(program, inputs.counts(), reads, self.output)?;
        let tokens = Tokens { query, key, value, decay, rate };
        let mut next = 0;
        while let Some(run) = inputs.run(next) {
            next = run.columns.end;
            let (state, bytes) = states.get(program, plan, index, run.sequence, 0..0)?;
            let State::Bytes(length) = state else { return Err(RunError::Program) };
            let bytes = bytes.get_mut(..length as usize).unwrap_or_default();
            let state = <[f32]>::mut_from_bytes(bytes).map_err(|_| RunError::Program)?;
            if run.position == 0 {
                state.fill(0.0);
            }
            self.attend(kernels, *parallel, &tokens, state, &mut output, &run);
        }
        Ok(())
    }

    fn multiply_adds(&self, _: &Program<'_>, _: u32) -> (u64, u64) {
        // What is found, what is left, what is written; and by the delta rule what was found before.
        let products = 3 + u64::from(self.delta);
        (products * self.head().state() as u64 * u64::from(self.decay.width), 0)
    }
}

/// What the tokens of a pass bring.
struct Tokens<'i> {
    query: Columns<'i>,
    key: Columns<'i>,
    value: Columns<'i>,
    decay: Columns<'i>,
    rate: Columns<'i>,
}

impl LinearAttention {
    fn head(&self) -> Head {
        let keys = (self.key.width / self.groups.max(1)) as usize;
        Head { keys, values: (self.value.width / self.decay.width.max(1)) as usize }
    }

    /// `output` = `skip` · v.
    fn skip(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        let values = self.head().values.max(1);
        let tensor = self.skip.map(|skip| player.tensor(skip, layer)).transpose()?;
        let Player { memory, program, inputs, pages, carry, .. } = player;
        let ([value], mut output) =
            memory.split(program, inputs.counts(), [self.value], self.output)?;
        let Some(tensor) = tensor else {
            (0..output.count).for_each(|c| output.column(c).fill(0.0));
            return Ok(());
        };
        let mut factors = stream(pages, carry, &tensor);
        let mut done = 0;
        while let Some(bytes) = factors.next_units()? {
            for factor in bytes.as_chunks::<4>().0 {
                let factor = f32::from_le_bytes(*factor);
                let head = done..done + values;
                for c in 0..output.count {
                    let v = value.column(c).get(head.clone()).unwrap_or_default();
                    let y = output.column(c).get_mut(head.clone()).unwrap_or_default();
                    y.iter_mut().zip(v).for_each(|(y, v)| *y = factor * v);
                }
                done = head.end;
            }
        }
        Ok(())
    }

    /// Takes the state through the tokens of a run, heads in parallel.
    fn attend(
        &self,
        kernels: &Kernels,
        parallel: &dyn Parallel,
        tokens: &Tokens<'_>,
        state: &mut [f32],
        output: &mut ColumnsMut<'_>,
        run: &Run,
    ) {
        let (head, heads) = (self.head(), self.decay.width as usize);
        let cores = if run.columns.len() * state.len() < TASK { 1 } else { parallel.cores() };
        let per_task = heads.div_ceil(cores.max(1));
        let floats = state.len();
        let mut state = ColumnsMut { values: state, stride: floats, width: floats, count: 1 };
        let per_task = [per_task * head.values, per_task * head.state()];
        share_rows_of_both(parallel, (output, &mut state), per_task, &|[rows, state]| {
            self.attend_rows(kernels, tokens, state, rows, run);
        });
    }

    /// The same of the heads of one task.
    fn attend_rows(
        &self,
        kernels: &Kernels,
        tokens: &Tokens<'_>,
        mut state: TaskRows<'_>,
        mut rows: TaskRows<'_>,
        run: &Run,
    ) {
        let head = self.head();
        let first = rows.range().start / head.values.max(1);
        let shared = (self.decay.width / self.groups.max(1)).max(1) as usize;
        let states = state.column(0).chunks_exact_mut(head.state().max(1));
        for (n, state) in states.enumerate() {
            let number = first + n;
            let (state, _) = state.as_chunks_mut::<LANES>();
            for c in run.columns.clone() {
                let one = |x: Columns<'_>| x.column(c).get(number).copied().unwrap_or_default();
                let step = Step {
                    decay: one(tokens.decay),
                    rate: one(tokens.rate),
                    delta: self.delta,
                    key: part(tokens.key.column(c), number / shared, head.keys),
                    query: part(tokens.query.column(c), number / shared, head.keys),
                    value: part(tokens.value.column(c), number, head.values),
                };
                let out = rows.column(c).get_mut(n * head.values..).unwrap_or_default();
                let out = out.get_mut(..head.values).unwrap_or_default();
                (kernels.recur)(state, &step, out);
            }
        }
    }
}

/// Fewer products than this are not worth waking another core.
const TASK: usize = 64 << 10;

/// Piece `number` of a column.
fn part(column: &[f32], number: usize, width: usize) -> &[f32] {
    column.get(number * width..(number + 1) * width).unwrap_or_default()
}
