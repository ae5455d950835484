//! A step of an LSTM in integers, as TensorFlow Lite Micro's reference kernels compute it.

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::{Player, stream};
use crate::error::{Fault, RunError};
use crate::fixed_point::multiply_by_quantized_multiplier;
use crate::program::{Check, Dtype, Per, PerLayer, Program, Value};
use crate::quant::{CHANNEL_HEAD, Format};
use serde::{Deserialize, Serialize};
use zerocopy::FromBytes;

/// Entries of a table of sigmoids.
const ENTRIES: usize = 256;
/// Gates: input, forget, cell and output.
const GATES: usize = 4;

/// One step: each gate g is activation(clamp(scale_g · (bias_g + Σ weight · (x - zero))) + the same of the output
/// before), of the sigmoid or, of the cell gate, the hyperbolic tangent; sums are in steps of 2^-12 and results of
/// 2^-15. `cell` = forget · cell + input · candidate, and `output` = `output_zero` + scale · output gate ·
/// tanh(cell). Values have one column.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct QuantizedLstm<F: Form = Numbers> {
    /// For each gate's numbers, gate after gate, a row for the input: bias, multiplier, shift, weights.
    pub input_weight: F::Name,
    /// The same for the output of the step before.
    pub recurrent_weight: F::Name,
    /// Vector [256] of whole numbers, 65536 / (1 + e^(-i / 24)).
    pub sigmoids: F::Name,
    /// The input of this step, signed bytes.
    pub input: F::Value,
    /// The output of the step before, signed bytes.
    pub before: F::Value,
    /// What is remembered, in 16 bits and steps of 2^-`cell_bits`.
    pub cell: F::Value,
    /// The output of this step, signed bytes, apart from that before.
    pub output: F::Value,
    /// The input's zero point.
    #[serde(default)]
    pub input_zero: i32,
    /// The output's zero point.
    #[serde(default)]
    pub output_zero: i32,
    /// Bits behind the point of what is remembered.
    pub cell_bits: u8,
    /// The largest magnitude of what is remembered; 0: no bound.
    #[serde(default)]
    pub clip: u16,
    /// The scale of the output, of products in steps of 2^-30: multiplier · 2^(shift - 31).
    pub multiplier: i32,
    /// And the power of two.
    pub shift: i32,
}

operands!(QuantizedLstm {
    weight input_weight, weight recurrent_weight, weight sigmoids,
    read input, read before, update cell, write output;
    input_zero, output_zero, cell_bits, clip, multiplier, shift
});

impl Operation for QuantizedLstm {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        for value in [self.input, self.before, self.output] {
            check.that(check.value(value)? == (Per::Pass, Dtype::I8))?;
        }
        check.that(check.value(self.cell)? == (Per::Pass, Dtype::I16))?;
        check.equal(self.before.width, self.output.width)?;
        check.equal(self.cell.width, self.output.width)?;
        let zeros = [self.input_zero, self.output_zero];
        check.that(zeros.iter().all(|zero| (-128..=127).contains(zero)))?;
        check.that(self.cell_bits < 16 && self.clip <= i16::MAX.unsigned_abs())?;
        let rows = self.output.width.checked_mul(GATES as u32);
        let weights = [(self.input_weight, self.input), (self.recurrent_weight, self.before)];
        for (weight, value) in weights {
            check.tensors(weight, |t| {
                t.format == Format::Channels && Some(t.rows) == rows && t.columns == value.width
            })?;
        }
        check.vector(self.sigmoids, ENTRIES as u32)
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        let parts = [
            (self.input_weight, self.input, self.input_zero),
            (self.recurrent_weight, self.before, self.output_zero),
        ];
        for (number, part) in parts.into_iter().enumerate() {
            self.sum(player, layer, part, number > 0)?;
        }
        self.read_sigmoids(player, layer)?;
        let Player { memory, program, inputs, staging, .. } = player;
        let Staging { gates, sigmoids, output: made } =
            Staging::of(staging, self.output.width as usize)?;
        let ([], mut cell) =
            memory.split_as::<0, i8, i16>(program, inputs.counts(), [], self.cell)?;
        self.step(gates, Sigmoids(sigmoids), cell.column(0), made);
        let ([], mut output) =
            memory.split_as::<0, i8, i8>(program, inputs.counts(), [], self.output)?;
        output.column(0).copy_from_slice(made);
        Ok(())
    }

    fn staging_bytes(&self, _: &Program<'_>) -> u64 {
        Staging::bytes(self.output.width as usize) as u64
    }

    fn multiply_adds(&self, program: &Program<'_>, layer: u32) -> (u64, u64) {
        let of = |weight: PerLayer| {
            let tensor = program.tensor(weight.at(layer));
            tensor.map_or(0, |t| u64::from(t.rows) * u64::from(t.columns))
        };
        (of(self.input_weight) + of(self.recurrent_weight), 0)
    }
}

/// What a step works in.
struct Staging<'s> {
    /// The sums of all gates, one after another.
    gates: &'s mut [i16],
    sigmoids: &'s mut [u16],
    output: &'s mut [i8],
}

impl<'s> Staging<'s> {
    fn bytes(width: usize) -> usize {
        (GATES * width + ENTRIES) * 2 + width
    }

    fn of(staging: &'s mut [u8], width: usize) -> Result<Self, RunError> {
        let (gates, rest) =
            staging.split_at_mut_checked(2 * GATES * width).ok_or(RunError::Program)?;
        let (sigmoids, rest) = rest.split_at_mut_checked(2 * ENTRIES).ok_or(RunError::Program)?;
        let output = rest.get_mut(..width).ok_or(RunError::Program)?;
        let gates = <[i16]>::mut_from_bytes(gates).map_err(|_| RunError::Program)?;
        let sigmoids = <[u16]>::mut_from_bytes(sigmoids).map_err(|_| RunError::Program)?;
        let output = <[i8]>::mut_from_bytes(output).map_err(|_| RunError::Program)?;
        Ok(Self { gates, sigmoids, output })
    }
}

impl QuantizedLstm {
    /// What a value gives to the gates: their sums, or added to them.
    fn sum(
        &self,
        player: &mut Player<'_>,
        layer: u32,
        (weight, value, zero): (PerLayer, Value, i32),
        add: bool,
    ) -> Result<(), RunError> {
        let tensor = player.tensor(weight, layer)?;
        let Player { memory, program, pages, carry, staging, .. } = player;
        let values = memory.read::<i8>(program, value)?;
        let values = values.column(0);
        let Staging { gates, .. } = Staging::of(staging, self.output.width as usize)?;
        let mut gates = gates.iter_mut();
        let mut units = stream(pages, carry, &tensor);
        while let Some(rows) = units.next_units()? {
            let rows = rows.chunks_exact(tensor.unit_bytes().max(1));
            for (row, gate) in rows.zip(gates.by_ref()) {
                let sum = row_times(row, values, zero);
                *gate = if add { gate.saturating_add(sum) } else { sum };
            }
        }
        Ok(())
    }

    fn read_sigmoids(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        let tensor = player.tensor(self.sigmoids, layer)?;
        let Player { pages, carry, staging, .. } = player;
        let Staging { sigmoids, .. } = Staging::of(staging, self.output.width as usize)?;
        let mut entries = sigmoids.iter_mut();
        let mut elements = stream(pages, carry, &tensor);
        while let Some(bytes) = elements.next_units()? {
            for (bytes, entry) in bytes.as_chunks::<4>().0.iter().zip(entries.by_ref()) {
                *entry = f32::from_le_bytes(*bytes) as u16;
            }
        }
        Ok(())
    }

    /// Changes what is remembered, and makes the output of it.
    fn step(&self, gates: &[i16], table: Sigmoids<'_>, cell: &mut [i16], output: &mut [i8]) {
        let width = output.len();
        let gate = |number: usize| gates.get(number * width..).unwrap_or_default();
        let ends = gate(0).iter().zip(gate(1)).zip(gate(2)).zip(gate(3));
        // Products of gates in steps of 2^-30.
        let candidate_shift = i32::from(self.cell_bits) - 30 + 1;
        for ((cell, output), (((input, forget), candidate), out)) in
            cell.iter_mut().zip(output).zip(ends)
        {
            let [input, forget, out] = [input, forget, out].map(|gate| table.sigmoid(*gate));
            let candidate = table.tanh(*candidate, GATE_BITS);
            let kept = scaled(forget * i32::from(*cell), 1 << 30, 1 - 15);
            let new = scaled(input * candidate, 1 << 30, candidate_shift);
            let mut sum = word(kept).saturating_add(word(new));
            if self.clip > 0 {
                let clip = self.clip.cast_signed();
                sum = sum.min(clip).max(clip.wrapping_neg());
            }
            *cell = sum;
            let product = table.tanh(sum, self.cell_bits) * out;
            let byte = scaled(product, self.multiplier, self.shift);
            *output = byte.saturating_add(self.output_zero).clamp(-128, 127) as i8;
        }
    }
}

/// Bits behind the point of a gate's sum.
const GATE_BITS: u8 = 12;

fn scaled(x: i32, multiplier: i32, shift: i32) -> i32 {
    multiply_by_quantized_multiplier(x, multiplier, shift)
}

fn word(x: i32) -> i16 {
    x.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

/// A row of weights times values, scaled.
fn row_times(row: &[u8], values: &[i8], zero: i32) -> i16 {
    let Some((head, weights)) = row.split_first_chunk::<CHANNEL_HEAD>() else { return 0 };
    let (words, _) = head.as_chunks::<4>();
    let mut words = words.iter().map(|bytes| i32::from_le_bytes(*bytes));
    let mut next = || words.next().unwrap_or_default();
    let (bias, multiplier, shift) = (next(), next(), next());
    let products = weights.iter().zip(values);
    let sum = products.fold(bias, |sum, (weight, x)| {
        sum.wrapping_add(i32::from(weight.cast_signed()) * (i32::from(*x) - zero))
    });
    word(scaled(sum, multiplier, shift))
}

/// 65536 / (1 + e^(-i / 24)), between which numbers are interpolated.
#[derive(Clone, Copy)]
struct Sigmoids<'t>(&'t [u16]);

impl Sigmoids<'_> {
    /// The sigmoid of x, a place in steps of 1/24 / 2^`bits`, in steps of 2^(-16 - `bits`).
    fn at(self, x: i32, bits: u32) -> i32 {
        let place = x.unsigned_abs() >> bits;
        let entry = |place: u32| i32::from(self.0.get(place as usize).copied().unwrap_or(u16::MAX));
        let (a, b) = (entry(place), entry(place + 1));
        let rest = (x.unsigned_abs() & ((1 << bits) - 1)) as i32;
        (a << bits) + rest * (b - a)
    }

    /// The sigmoid of x with 12 bits behind the point, in steps of 2^-15.
    fn sigmoid(self, x: i16) -> i32 {
        const BITS: u32 = 9;
        let x = 3 * i32::from(x);
        let half = if x.unsigned_abs() >> BITS >= 255 { 0x7fff << 10 } else { self.at(x, BITS) };
        let result = if x >= 0 { half + (1 << BITS) } else { (1 << 25) - half + (1 << BITS) - 1 };
        result >> (BITS + 1)
    }

    /// The hyperbolic tangent of x with so many bits behind the point, in steps of 2^-15.
    fn tanh(self, x: i16, bits: u8) -> i32 {
        const BITS: u32 = 8;
        let x = 3 * i32::from(x);
        let x = match bits {
            // Three times 16 bits and four more.
            0..=GATE_BITS => x << (GATE_BITS - bits),
            more => (x + (1 << (more - GATE_BITS - 1))) >> (more - GATE_BITS),
        };
        let half = if x.unsigned_abs() >> BITS >= 255 { 0xffff << BITS } else { self.at(x, BITS) };
        let result = half - (1 << 23);
        (if x >= 0 { result + 128 } else { 127 - result }) >> BITS
    }
}
