//! Functions of two tensors of signed bytes, and of rows of them.

use super::super::super::tensors::{broadcast_shape, reach};
use super::*;
use omex_core::ops::{QuantizedAdd, QuantizedBinary, QuantizedFunction, QuantizedSum};

/// How a function of two scales what goes in and what comes out, as multipliers and shifts.
type Factors = [(i32, i32); 3];

impl Door<'_> {
    pub(super) fn add(&mut self, call: &Call<'_>) -> Drawn<View> {
        let file = self.result(call)?;
        let mut ends = [self.bytes(call, 0)?, self.bytes(call, 1)?];
        for end in &mut ends {
            *end = end.broadcast(&file.shape)?;
            *end = self.drawing.dense(end)?;
        }
        let [first, second] = ends;
        let scales = [own_scale(&first)?, own_scale(&second)?, scale(file)?];
        let [scale_1, scale_2, scale] = scales.map(|scale| f64::from(scale.scale));
        // So scaled, a sum of two stays below what 32 bits hold.
        let twice = 2.0 * scale_1.max(scale_2);
        let factors = [scale_1 / twice, scale_2 / twice, twice / (f64::from(1 << 20) * scale)];
        let [first_scale, second_scale, sum_scale] = factors.map(quantize_multiplier);
        let result = View { scale: Some(scales[2]), ..self.drawing.value(Dtype::I8, &file.shape)? };
        let add = QuantizedAdd::<Names> {
            first: self.drawing.operand(&first),
            second: self.drawing.operand(&second),
            output: ValueRef::all(&result.buffer),
            zeros: scales.map(|scale| scale.zero),
            multipliers: [first_scale.0, second_scale.0, sum_scale.0],
            shifts: [first_scale.1, second_scale.1, sum_scale.1],
            clamp: clamp(call.option(0), scales[2])?,
        };
        self.drawing.push(add);
        Ok(result)
    }

    pub(super) fn subtract(&mut self, call: &Call<'_>) -> Drawn<View> {
        let factors = |[first, second, to]: [Scale; 3]| {
            // The reference divides scales of differences as floats.
            let twice = 2.0 * first.scale.max(second.scale);
            let of_result = twice / ((1 << 20) as f32 * to.scale);
            [first.scale / twice, second.scale / twice, of_result].map(f64::from)
        };
        self.pair(call, QuantizedFunction::Subtract, |scales| {
            factors(scales).map(quantize_multiplier)
        })
    }

    pub(super) fn multiply(&mut self, call: &Call<'_>) -> Drawn<View> {
        self.pair(call, QuantizedFunction::Multiply, |scales| {
            let [first, second, to] = scales.map(|scale| f64::from(scale.scale));
            [(0, 0), (0, 0), quantize_multiplier(first * second / to)]
        })
    }

    /// The larger or the smaller of both, which have one scale.
    pub(super) fn extreme(&mut self, call: &Call<'_>, function: QuantizedFunction) -> Drawn<View> {
        let to = scale(self.result(call)?)?;
        for place in 0..2 {
            let view = self.bytes(call, place)?;
            if own_scale(&view)? != to {
                return Err(Refused::new("scales that differ", "one scale"));
            }
        }
        self.pair(call, function, |_| [(0, 0); 3])
    }

    fn pair(
        &mut self,
        call: &Call<'_>,
        function: QuantizedFunction,
        factors: impl Fn([Scale; 3]) -> Factors,
    ) -> Drawn<View> {
        let mut ends = [self.bytes(call, 0)?, self.bytes(call, 1)?];
        let to = scale(self.result(call)?)?;
        let scales = [own_scale(&ends[0])?, own_scale(&ends[1])?, to];
        let shape = broadcast_shape(&ends[0].shape, &ends[1].shape)?;
        let (dims, steps) = self.drawing.together(&mut ends, &shape)?;
        let result = View { scale: Some(to), ..self.drawing.value(Dtype::I8, &shape)? };
        let [first_steps, second_steps] = steps;
        let [first, second] = ends.each_ref().map(reach);
        // Only differences and products have fused activations.
        let activation = match function {
            QuantizedFunction::Max | QuantizedFunction::Min => 0,
            _ => call.option(0),
        };
        let factors = factors(scales);
        self.drawing.push(QuantizedBinary::<Names> {
            function,
            first,
            second,
            output: ValueRef::all(&result.buffer),
            dims,
            first_steps,
            second_steps,
            zeros: scales.map(|scale| scale.zero),
            multipliers: factors.map(|(multiplier, _)| multiplier),
            shifts: factors.map(|(_, shift)| shift),
            clamp: clamp(activation, to)?,
        });
        Ok(result)
    }

    /// Elements along axes, made their sum or their mean.
    pub(super) fn sum(&mut self, call: &Call<'_>, mean: bool) -> Drawn<View> {
        let input = self.bytes(call, 0)?;
        let file = self.result(call)?;
        let (from, to) = (own_scale(&input)?, scale(file)?);
        let rank = input.shape.len();
        let along = axes(&self.numbers(call, 1)?, rank)?;
        let others: Vec<usize> = (0..rank).filter(|axis| !along.contains(axis)).collect();
        let inner = input.transposed(&[&others[..], &along].concat())?;
        let rows = self.drawing.dense(&inner)?;
        let (mut multiplier, mut shift) =
            quantize_multiplier(f64::from(from.scale) / f64::from(to.scale));
        if mean {
            let count: usize = along.iter().map(|axis| input.shape[*axis]).product();
            // As many bits as the count takes are there to divide.
            let bits = (count.max(1).ilog2() as i32).min(31 + shift);
            multiplier = ((i64::from(multiplier) << bits) / count.max(1) as i64) as i32;
            shift -= bits;
        }
        let result = View { scale: Some(to), ..self.drawing.value(Dtype::I8, &file.shape)? };
        if rows.count() % result.count() != 0 {
            return Err(Refused::new(format!("a result of {:?}", file.shape), "what axes say"));
        }
        let input = self.drawing.operand(&rows);
        self.drawing.push(QuantizedSum::<Names> {
            input,
            output: ValueRef::all(&result.buffer),
            multiplier,
            shift,
            input_zero: from.zero,
            output_zero: to.zero,
        });
        Ok(result)
    }
}
