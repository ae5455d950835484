//! Mixtures of experts: gated feed-forward layers of which each token meets some (arXiv:2401.04088).

use super::activation::elementwise;
use super::linear::multiply;
use super::route::check_choice;
use super::{Activation, Form, Numbers, Operation, Reads, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::{Check, Dtype, Per, PerLayer, Program, Tensor, Value};
use crate::quant::PANEL;
use serde::{Deserialize, Serialize};

/// `output` += Σ over a token's experts e of weight(e) · (`down[e]` × gated + `down_bias[e]`), where gated is
/// activation(gate) · (up + `up_plus`), and gate and up are the halves of
/// `gate_up[e]` × `input` + `gate_up_bias[e]`, within `limit`.
///
/// Experts are added in ascending order, so that a token's sum does not depend on the others in the
/// pass. Of an expert that no token is sent to nothing is read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Experts<F: Form = Numbers> {
    /// Matrix [experts · 2 · wide, input width]: of each expert the rows of the gate, then those of
    /// what it multiplies.
    pub gate_up: F::Name,
    /// Matrix [experts · output width, wide]: expert after expert.
    pub down: F::Name,
    /// Number of experts; each one's rows are whole panels.
    pub experts: u32,
    /// The gate's activation.
    pub activation: Activation,
    /// What is fed forward.
    pub input: F::Value,
    /// Which experts a token is sent to, as `Route` says it.
    pub route: F::Value,
    /// Room for an expert's tokens, and for its results: as wide as the input.
    pub gathered: F::Value,
    /// Room for gates and what they multiply, [2 · wide].
    pub wide: F::Value,
    /// Room for gated activations: `[wide]`.
    pub gated: F::Value,
    /// What is added to.
    pub output: F::Value,
    /// [experts · 2 · wide], once a pass.
    #[serde(default)]
    pub gate_up_bias: Option<F::Value>,
    /// [experts · output width], once a pass.
    #[serde(default)]
    pub down_bias: Option<F::Value>,
    /// What gates are at most, and what they multiply is at most, with either sign (gpt-oss,
    /// arXiv:2508.10925); 0 for no limit.
    #[serde(default)]
    pub limit: f32,
    /// What is added to what gates multiply.
    #[serde(default)]
    pub up_plus: f32,
}

operands!(Experts {
    weight gate_up, weight down, read input, read route, write gathered, write wide, write gated,
    update output, maybe_read gate_up_bias, maybe_read down_bias; experts, activation, limit, up_plus
});

impl Operation for Experts {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        let Self { input, route, gathered, wide, gated, output, .. } = *self;
        check.floats(&[input, route, gathered, wide, gated, output])?;
        check.apart(&[input, route, gathered, wide, gated, output])?;
        check.that(self.activation.is_played())?;
        check.equal(input.width, output.width)?;
        check.equal(input.width, gathered.width)?;
        check.that(wide.width.is_multiple_of(2))?;
        check.equal(wide.width / 2, gated.width)?;
        check_choice(check, route.width, self.experts)?;
        let whole = |rows: u32| rows.is_multiple_of(PANEL as u32);
        check.that(whole(wide.width) && whole(output.width))?;
        let rows = |rows: u32| self.experts.checked_mul(rows).ok_or(Fault::Shape);
        check.matrix(self.gate_up, rows(wide.width)?, input.width)?;
        check.matrix(self.down, rows(output.width)?, gated.width)?;
        check.that(self.limit.is_finite() && self.limit >= 0.0 && self.up_plus.is_finite())?;
        let biases = [(self.gate_up_bias, wide.width), (self.down_bias, output.width)];
        for (bias, width) in biases {
            let Some(bias) = bias else { continue };
            check.that(check.value(bias)? == (Per::Pass, Dtype::F32))?;
            check.equal(bias.width, rows(width)?)?;
        }
        Ok(())
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        self.announce(player, layer)?;
        for expert in 0..self.experts {
            let columns = self.gather(player, expert)?;
            if columns > 0 {
                self.feed_forward(player, layer, expert, columns)?;
                self.scatter(player, expert)?;
            }
        }
        Ok(())
    }

    fn multiply_adds(&self, program: &Program<'_>, layer: u32) -> (u64, u64) {
        let of = |weight: PerLayer| {
            let tensor = program.tensor(weight.at(layer));
            tensor.map_or(0, |t| u64::from(self.rows_per_token(&t)) * u64::from(t.columns))
        };
        (of(self.gate_up) + of(self.down), 0)
    }

    fn reads(&self) -> Reads {
        Reads::Rows
    }

    fn rows_per_token(&self, tensor: &Tensor) -> u32 {
        let chosen = self.route.width / 2;
        (tensor.rows / self.experts.max(1)).saturating_mul(chosen).min(tensor.rows)
    }
}

impl Experts {
    /// Announces the rows of all experts that some token is sent to, in the order of use.
    fn announce(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        for expert in 0..self.experts {
            if !self.is_chosen(player, expert)? {
                continue;
            }
            for weight in [self.gate_up, self.down] {
                let part = self.rows_of(player, weight, layer, expert)?;
                player.pages.want(&(part.address..part.address.saturating_add(part.bytes())));
            }
        }
        Ok(())
    }

    /// True if some token is sent to this expert.
    fn is_chosen(&self, player: &mut Player<'_>, expert: u32) -> Result<bool, RunError> {
        let ([route], gathered) = player.values([self.route], self.gathered)?;
        Ok((0..gathered.count).any(|column| weight(route.column(column), expert).is_some()))
    }

    /// Copies the columns that are sent to an expert side by side, and counts them.
    fn gather(&self, player: &mut Player<'_>, expert: u32) -> Result<usize, RunError> {
        let ([input, route], mut gathered) =
            player.values([self.input, self.route], self.gathered)?;
        let mut found = 0;
        for column in 0..gathered.count {
            if weight(route.column(column), expert).is_some() {
                let to = gathered.column(found).iter_mut();
                to.zip(input.column(column)).for_each(|(y, x)| *y = *x);
                found += 1;
            }
        }
        Ok(found)
    }

    /// What an expert makes of the first columns of `gathered`, in their place.
    fn feed_forward(
        &self,
        player: &mut Player<'_>,
        layer: u32,
        expert: u32,
        columns: usize,
    ) -> Result<(), RunError> {
        let Self { gathered, wide, gated, .. } = *self;
        let matrix = self.rows_of(player, self.gate_up, layer, expert)?;
        multiply(player, &matrix, [gathered, wide], Some(columns), false)?;
        self.add_bias(player, self.gate_up_bias, wide, expert, columns)?;
        self.limit(player, columns)?;
        let half = wide.width / 2;
        let gate = Value { width: half, ..wide };
        let up = Value { first: wide.first.saturating_add(half), ..gate };
        let (kernels, parallel) = (player.kernels, player.parallel);
        let ([gate, up], mut output) = player.values([gate, up], gated)?;
        output.count = columns;
        elementwise(self.activation, Some((gate, up)), &mut output, kernels, parallel);
        let matrix = self.rows_of(player, self.down, layer, expert)?;
        multiply(player, &matrix, [gated, gathered], Some(columns), false)?;
        self.add_bias(player, self.down_bias, gathered, expert, columns)
    }

    /// Adds an expert's part of a bias to the first columns of a value.
    fn add_bias(
        &self,
        player: &mut Player<'_>,
        bias: Option<Value>,
        value: Value,
        expert: u32,
        columns: usize,
    ) -> Result<(), RunError> {
        let Some(bias) = bias else { return Ok(()) };
        let first = bias.first.saturating_add(expert.saturating_mul(value.width));
        let bias = Value { first, width: value.width, ..bias };
        let ([bias], mut value) = player.values([bias], value)?;
        for column in 0..columns.min(value.count) {
            let sums = value.column(column).iter_mut().zip(bias.column(0));
            sums.for_each(|(sum, x)| *sum += x);
        }
        Ok(())
    }

    /// Keeps the first columns of gates and of what they multiply within the limit.
    fn limit(&self, player: &mut Player<'_>, columns: usize) -> Result<(), RunError> {
        let Self { wide, limit, up_plus, .. } = *self;
        if limit == 0.0 && up_plus == 0.0 {
            return Ok(());
        }
        let limit = if limit == 0.0 { f32::INFINITY } else { limit };
        let ([], mut both) = player.values([], wide)?;
        for column in 0..columns.min(both.count) {
            let both = both.column(column);
            let (gate, up) = both.split_at_mut(both.len() / 2);
            gate.iter_mut().for_each(|x| *x = at_most(*x, limit));
            up.iter_mut().for_each(|x| *x = -at_most(-at_most(*x, limit), limit) + up_plus);
        }
        Ok(())
    }

    /// Adds an expert's results to the columns that they belong to.
    fn scatter(&self, player: &mut Player<'_>, expert: u32) -> Result<(), RunError> {
        let ([results, route], mut output) =
            player.values([self.gathered, self.route], self.output)?;
        let mut found = 0;
        for column in 0..output.count {
            let Some(weight) = weight(route.column(column), expert) else { continue };
            for (y, x) in output.column(column).iter_mut().zip(results.column(found)) {
                *y += weight * x;
            }
            found += 1;
        }
        Ok(())
    }

    /// An expert's rows of a matrix, which are a matrix themselves.
    fn rows_of(
        &self,
        player: &Player<'_>,
        weight: PerLayer,
        layer: u32,
        expert: u32,
    ) -> Result<Tensor, RunError> {
        let all = player.tensor(weight, layer)?;
        let part = Tensor { rows: all.rows / self.experts.max(1), ..all };
        let before = part.bytes().saturating_mul(u64::from(expert));
        Ok(Tensor { address: all.address.saturating_add(before), ..part })
    }
}

/// What is not a number stays so.
fn at_most(x: f32, limit: f32) -> f32 {
    if x > limit { limit } else { x }
}

/// An expert's weight in a token's route, if it is there.
fn weight(route: &[f32], expert: u32) -> Option<f32> {
    let chosen = route.as_chunks::<2>().0.iter();
    chosen.copied().find(|[number, _]| *number == expert as f32).map(|[_, weight]| weight)
}
