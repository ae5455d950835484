//! Rotary position embedding (RoPE, arXiv:2104.09864).

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::{Check, MAX_HEAD_WIDTH};
use serde::{Deserialize, Serialize};

/// Which numbers of a head are turned together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// i and i + half of the rotated width.
    #[default]
    Halves,
    /// 2 i and 2 i + 1.
    Neighbours,
}

/// Turns the first numbers of each head by its token's angles, in place; what the angles do not
/// reach of a head stays.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Rotary<F: Form = Numbers> {
    /// The angles.
    pub angles: F::Value,
    /// The heads.
    pub value: F::Value,
    /// Width of a head; 256 at most.
    pub head_width: u32,
    /// Which numbers are turned together.
    #[serde(default)]
    pub pairing: Pairing,
}

operands!(Rotary { read angles, update value; head_width, pairing });

impl Operation for Rotary {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.tokens(&[self.angles, self.value])?;
        check.that((2..=MAX_HEAD_WIDTH).contains(&self.head_width))?;
        let width = self.angles.width;
        check.that(width.is_multiple_of(4) && width / 2 <= self.head_width)?;
        check.that(self.value.width.is_multiple_of(self.head_width.max(1)))
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let ([angles], mut heads) = player.values([self.angles], self.value)?;
        let rotated = angles.width / 2;
        for c in 0..heads.count {
            let Some((angles, _)) = angles.column(c).split_at_checked(rotated) else { break };
            for head in heads.column(c).chunks_exact_mut((self.head_width as usize).max(1)) {
                rotate(head, angles, self.pairing);
            }
        }
        Ok(())
    }
}

/// Turns the pairs of a head; `angles` are all cosines, then all sines.
pub(super) fn rotate(head: &mut [f32], angles: &[f32], pairing: Pairing) {
    let count = angles.len() / 2;
    let (cosines, sines) = angles.split_at(count);
    let turns = cosines.iter().zip(sines);
    let turn = |a: &mut f32, b: &mut f32, cosine: f32, sine: f32| {
        (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
    };
    match pairing {
        Pairing::Halves => {
            let Some((low, high)) = head.split_at_mut_checked(count) else { return };
            for ((a, b), (cosine, sine)) in low.iter_mut().zip(high).zip(turns) {
                turn(a, b, *cosine, *sine);
            }
        }
        Pairing::Neighbours => {
            for ([a, b], (cosine, sine)) in head.as_chunks_mut().0.iter_mut().zip(turns) {
                turn(a, b, *cosine, *sine);
            }
        }
    }
}
