//! The one piece of memory that the engine works in, and where everything lies in it.

use crate::error::LoadError;
use crate::pass::Record;
pub use crate::plan::Plan;
use crate::program::{Per, Program};
use crate::quant::{FloatGroup, QuantizedGroup};
use crate::state::State;
use core::mem::size_of;
use zerocopy::FromBytes;

/// Bytes of each part of the arena, in the order in which they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Values that a pass has one of.
    pub per_pass: u64,
    /// Values of each token.
    pub per_token: u64,
    /// Values of each token whose outputs are wanted.
    pub per_output: u64,
    /// Activations in the form in which kernels read them.
    pub staging: u64,
    /// A unit that a page's edge cuts.
    pub carry: u64,
    /// States of all sequences: keys and values, and others.
    pub states: u64,
    /// Which pages were checked.
    pub verified: u64,
    /// What each column of a pass holds.
    pub inputs: u64,
    /// How long each sequence is.
    pub ends: u64,
}

/// What every part of the arena is aligned to.
pub const ALIGNMENT: usize = 16;

impl Layout {
    /// Where everything lies for this program and plan, with `verified_pages` pages to keep track
    /// of.
    ///
    /// # Errors
    /// [`LoadError::Plan`] if the plan has a zero, more sinks than positions, or caches that no
    /// machine has room for.
    pub fn new(program: &Program<'_>, plan: &Plan, verified_pages: u32) -> Result<Self, LoadError> {
        let has_kv = program.states().any(|state| matches!(state, State::Kv { .. }));
        let too_large = plan.columns.max(plan.logit_columns).max(plan.kv_capacity) > MAX_POSITIONS;
        let counts = [plan.columns, plan.logit_columns, plan.sequences];
        let no_room = counts.contains(&0) || plan.logit_columns > plan.columns;
        if no_room
            || too_large
            || plan.sequences > MAX_SEQUENCES
            || has_kv && !plan.kv_format.is_played()
            || has_kv && plan.kv_sinks >= plan.kv_capacity
        {
            return Err(LoadError::Plan);
        }
        let align = |bytes: u64| bytes.next_multiple_of(ALIGNMENT as u64);
        let (columns, logit_columns) = (u64::from(plan.columns), u64::from(plan.logit_columns));
        let group = if program.has_float_matrices() {
            size_of::<FloatGroup>()
        } else {
            size_of::<QuantizedGroup>()
        };
        let groups = program.widest_input() / crate::quant::GROUP as u64;
        let sequences = u64::from(plan.sequences);
        let states = program.states().try_fold(0, |sum: u64, state| {
            sum.checked_add(plan.state_bytes(&state)).filter(|sum| *sum <= MAX_STATE_BYTES)
        });
        let states = states.and_then(|bytes| bytes.checked_mul(sequences));
        Ok(Self {
            per_pass: align(program.column_bytes(Per::Pass)),
            per_token: align(program.column_bytes(Per::Token) * columns),
            per_output: align(program.column_bytes(Per::Output) * logit_columns),
            staging: {
                let panels = align(groups * columns * group as u64);
                if cfg!(feature = "int8") {
                    panels.max(align(program.staging_bytes()))
                } else {
                    panels
                }
            },
            carry: align(program.longest_unit()),
            states: align(states.filter(|n| *n <= MAX_STATE_BYTES).ok_or(LoadError::Plan)?),
            verified: align(u64::from(verified_pages.div_ceil(8))),
            inputs: align(columns * size_of::<Record>() as u64),
            ends: align(sequences * size_of::<u32>() as u64),
        })
    }

    /// Bytes of the whole arena.
    #[must_use]
    pub fn total(&self) -> u64 {
        let values = self.per_pass + self.per_token + self.per_output;
        values + self.staging + self.carry + self.states + self.verified + self.inputs + self.ends
    }
}

/// Bounds every position and column count, so that sizes cannot overflow 64 bits.
const MAX_POSITIONS: u32 = 1 << 24;
/// So that the caches of all can be numbered in 32 bits.
const MAX_SEQUENCES: u32 = 1 << 16;
/// Bounds the states of all sequences, for the same reason.
const MAX_STATE_BYTES: u64 = 1 << 63;

/// The arena, cut into its parts.
pub(crate) struct Arena<'a> {
    pub(crate) per_pass: &'a mut [u8],
    pub(crate) per_token: &'a mut [u8],
    pub(crate) per_output: &'a mut [u8],
    pub(crate) staging: &'a mut [u8],
    pub(crate) carry: &'a mut [u8],
    pub(crate) states: &'a mut [u8],
    pub(crate) verified: &'a mut [u8],
    pub(crate) inputs: &'a mut [Record],
    pub(crate) ends: &'a mut [u32],
}

impl<'a> Arena<'a> {
    pub(crate) fn new(memory: &'a mut [u8], layout: &Layout) -> Result<Self, LoadError> {
        let (needed, given) = (layout.total(), memory.len() as u64);
        if !memory.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Err(LoadError::Alignment);
        }
        let mut rest = memory;
        let mut take = |bytes: u64| -> Result<&'a mut [u8], LoadError> {
            let whole = core::mem::take(&mut rest);
            let (part, behind) = usize::try_from(bytes)
                .ok()
                .and_then(|bytes| whole.split_at_mut_checked(bytes))
                .ok_or(LoadError::Memory { needed, given })?;
            rest = behind;
            Ok(part)
        };
        Ok(Self {
            per_pass: take(layout.per_pass)?,
            per_token: take(layout.per_token)?,
            per_output: take(layout.per_output)?,
            staging: take(layout.staging)?,
            carry: take(layout.carry)?,
            states: take(layout.states)?,
            verified: take(layout.verified)?,
            inputs: cast(take(layout.inputs)?)?,
            ends: cast(take(layout.ends)?)?,
        })
    }
}

/// Bytes as numbers; parts are multiples of 16 bytes on multiples of 16.
pub(crate) fn cast<T>(bytes: &mut [u8]) -> Result<&mut [T], LoadError>
where
    T: FromBytes + zerocopy::IntoBytes + zerocopy::KnownLayout + zerocopy::Immutable,
{
    <[T]>::mut_from_bytes(bytes).map_err(|_| LoadError::Alignment)
}
