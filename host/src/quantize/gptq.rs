//! Rounding that makes up for its own errors (GPTQ, arXiv:2210.17323).
//!
//! Plain rounding minimises the error of each weight. What matters is the error of the outputs,
//! which depends on how inputs go together: after a weight is rounded, the weights behind it are
//! moved so that the output changes least. Then, with all weights rounded, each is tried again, and
//! the scales are fitted again (coordinate descent, arXiv:2309.01885). This needs the inputs' second
//! moments.

use super::{Group, int4_scale};
use half::f16;
use omex_core::quant::GROUP;

/// Columns that make up for each other's errors.
const BLOCK: usize = 256;
/// What is added to the diagonal, as a part of its mean.
const DAMPING: f64 = 0.05;

/// Second moments of a matrix's inputs: for each block of columns, the sums of `x * xᵀ`.
#[derive(Clone, Debug)]
pub struct Hessian {
    columns: usize,
    /// Row by row, the upper triangles of the blocks; the rest is unused.
    blocks: Vec<Vec<f64>>,
}

impl Hessian {
    /// No inputs seen yet.
    #[must_use]
    pub fn new(columns: usize) -> Self {
        let widths = (0..columns).step_by(BLOCK).map(|start| BLOCK.min(columns - start));
        Self { columns, blocks: widths.map(|width| vec![0.0; width * width]).collect() }
    }

    /// Bytes that this takes, or what is made of it, whichever is more.
    #[must_use]
    pub fn bytes(columns: u32) -> u64 {
        let width = (BLOCK as u64).min(columns.into());
        u64::from(columns) * width * (size_of::<f64>() + size_of::<f32>()) as u64
    }

    /// Adds an input.
    pub fn add(&mut self, x: &[f32]) {
        for (block, x) in self.blocks.iter_mut().zip(x.chunks(BLOCK)) {
            for (i, row) in block.chunks_exact_mut(x.len()).enumerate() {
                let factor = f64::from(x[i]);
                for (sum, x) in row[i..].iter_mut().zip(&x[i..]) {
                    *sum += factor * f64::from(*x);
                }
            }
        }
    }

    /// How errors are made up for; `None` if no input was ever different from zero.
    #[must_use]
    pub fn compensation(&self) -> Option<Compensation> {
        let moments: Vec<_> = self.blocks.iter().map(|block| damped(block)).collect();
        let factors = moments.iter().map(|block| inverse_factor(block)).collect::<Option<_>>()?;
        Some(Compensation { columns: self.columns, factors, moments })
    }
}

/// How the error of a rounded weight is spread over the weights behind it.
#[derive(Clone, Debug)]
pub struct Compensation {
    columns: usize,
    /// For each block, the upper Cholesky factor of the inverse of its Hessian.
    factors: Vec<Vec<f32>>,
    /// The damped Hessians.
    moments: Vec<Vec<f64>>,
}

impl Compensation {
    /// Quantizes a row to int4.
    #[must_use]
    pub fn quantize_row(&self, row: &[f32]) -> Vec<Group> {
        let mut groups = vec![];
        let blocks = row[..self.columns].chunks(BLOCK);
        for ((factor, moments), block) in self.factors.iter().zip(&self.moments).zip(blocks) {
            let mut rounded = round_with_compensation(block, factor);
            for _ in 0..SWEEPS {
                rounded.sweep(block, moments);
            }
            groups.extend(rounded.groups());
        }
        groups
    }
}

/// How often all weights are tried again.
const SWEEPS: usize = 4;

/// A block of a row, rounded.
struct Rounded {
    integers: Vec<i8>,
    /// One a group.
    scales: Vec<f16>,
}

fn round_with_compensation(block: &[f32], factor: &[f32]) -> Rounded {
    let mut weights = block.to_vec();
    let width = weights.len();
    let mut rounded = Rounded { integers: vec![0; width], scales: vec![] };
    for first in (0..width).step_by(GROUP) {
        let end = width.min(first + GROUP);
        let mut group = [0.0; GROUP];
        group[..end - first].copy_from_slice(&weights[first..end]);
        let scale = int4_scale(&group);
        rounded.scales.push(scale);
        for i in first..end {
            rounded.integers[i] = round(weights[i], scale);
            let spread = &factor[i * width..(i + 1) * width];
            let error = (weights[i] - rounded.value(i) as f32) / spread[i];
            for (weight, share) in weights[i + 1..].iter_mut().zip(&spread[i + 1..]) {
                *weight -= error * share;
            }
        }
    }
    rounded
}

impl Rounded {
    fn value(&self, i: usize) -> f64 {
        f64::from(self.integers[i]) * f64::from(self.scales[i / GROUP])
    }

    /// Rounds each weight again with all others as they are, then fits each scale again.
    fn sweep(&mut self, block: &[f32], moments: &[f64]) {
        let width = block.len();
        let row = |i: usize| &moments[i * width..(i + 1) * width];
        // The gradient of the output's squared error: (weights - rounded) H.
        let mut gradient = vec![0.0; width];
        for (i, weight) in block.iter().enumerate() {
            add(&mut gradient, f64::from(*weight) - self.value(i), row(i));
        }
        for i in 0..width {
            let before = self.value(i);
            let wanted = before + gradient[i] / row(i)[i];
            self.integers[i] = round(wanted as f32, self.scales[i / GROUP]);
            add(&mut gradient, before - self.value(i), row(i));
        }
        for (number, first) in (0..width).step_by(GROUP).enumerate() {
            let group = first..width.min(first + GROUP);
            let q = |i: usize| f64::from(self.integers[i]);
            let slope: f64 = group.clone().map(|i| q(i) * gradient[i]).sum();
            let curvature: f64 = group
                .clone()
                .map(|i| q(i) * group.clone().map(|j| q(j) * row(i)[j]).sum::<f64>())
                .sum();
            if curvature > 0.0 {
                let before = f64::from(self.scales[number]);
                self.scales[number] = f16::from_f64(before + slope / curvature);
                let change = before - f64::from(self.scales[number]);
                for i in group {
                    add(&mut gradient, change * f64::from(self.integers[i]), row(i));
                }
            }
        }
    }

    fn groups(&self) -> impl Iterator<Item = Group> + '_ {
        self.integers.chunks(GROUP).zip(&self.scales).map(|(q, scale)| {
            let mut integers = [0; GROUP];
            integers[..q.len()].copy_from_slice(q);
            Group::Integers(*scale, integers)
        })
    }
}

/// Adds `factor` times `row` to `sum`.
fn add(sum: &mut [f64], factor: f64, row: &[f64]) {
    if factor != 0.0 {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += factor * x);
    }
}

fn round(weight: f32, scale: f16) -> i8 {
    let scale = scale.to_f32();
    if scale == 0.0 { 0 } else { (weight / scale).round_ties_even().clamp(-8.0, 7.0) as i8 }
}

/// A block's Hessian, both triangles, with more weight on the diagonal.
fn damped(block: &[f64]) -> Vec<f64> {
    let n = block.len().isqrt();
    let mut h = block.to_vec();
    let damping = DAMPING * (0..n).map(|i| h[i * n + i]).sum::<f64>() / n as f64;
    for i in 0..n {
        h[i * n + i] += damping;
        for j in 0..i {
            h[i * n + j] = h[j * n + i];
        }
    }
    h
}

/// The upper factor U of a Hessian's inverse: `H⁻¹ = Uᵀ U`.
fn inverse_factor(h: &[f64]) -> Option<Vec<f32>> {
    let n = h.len().isqrt();
    let inverse = invert(&cholesky(h, n)?, n);
    let lower = cholesky(&inverse, n)?;
    let mut upper = vec![0.0; n * n];
    for i in 0..n {
        for j in i..n {
            upper[i * n + j] = lower[j * n + i] as f32;
        }
    }
    Some(upper)
}

/// The lower factor L of a symmetric matrix: `A = L Lᵀ`; `None` if it is not positive definite.
fn cholesky(a: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut l = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let (row_i, row_j) = (&l[i * n..i * n + j], &l[j * n..j * n + j]);
            let sum = a[i * n + j] - row_i.iter().zip(row_j).map(|(x, y)| x * y).sum::<f64>();
            l[i * n + j] = if i != j {
                sum / l[j * n + j]
            } else if sum > 0.0 && sum.is_finite() {
                sum.sqrt()
            } else {
                return None;
            };
        }
    }
    Some(l)
}

/// The inverse of `L Lᵀ`, one column of the identity after another.
fn invert(l: &[f64], n: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; n * n];
    for column in 0..n {
        let mut y = vec![0.0; n];
        for i in column..n {
            let known: f64 = (column..i).map(|k| l[i * n + k] * y[k]).sum();
            let unit = if i == column { 1.0 } else { 0.0 };
            y[i] = (unit - known) / l[i * n + i];
        }
        for i in (0..n).rev() {
            let known: f64 = (i + 1..n).map(|k| l[k * n + i] * inverse[k * n + column]).sum();
            inverse[i * n + column] = (y[i] - known) / l[i * n + i];
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_squared_is_the_inverse() {
        let mut hessian = Hessian::new(3);
        for x in [[1.0, 2.0, 0.5], [0.0, 1.0, -1.0], [2.0, 0.0, 1.0], [1.0, 1.0, 1.0]] {
            hessian.add(&x);
        }
        let full = |i: usize, j: usize| hessian.blocks[0][i.min(j) * 3 + i.max(j)];
        let damping = DAMPING * (full(0, 0) + full(1, 1) + full(2, 2)) / 3.0;
        let factor = &hessian.compensation().unwrap().factors[0];
        for i in 0..3 {
            for j in 0..3 {
                // (H Uᵀ U)(i, j) is the identity.
                let product: f64 = (0..3)
                    .map(|k| {
                        let h = full(i, k) + if i == k { damping } else { 0.0 };
                        let inverse: f64 = (0..3)
                            .map(|m| f64::from(factor[m * 3 + k]) * f64::from(factor[m * 3 + j]))
                            .sum();
                        h * inverse
                    })
                    .sum();
                assert!((product - f64::from(i == j)).abs() < 1e-5, "{i} {j}: {product}");
            }
        }
    }

    #[test]
    fn outputs_are_closer_than_with_plain_rounding() {
        // Inputs that go together: each is the one before it plus a little of its own.
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let columns = 96;
        let inputs: Vec<Vec<f32>> = (0..400)
            .map(|_| {
                let mut last = 0.0;
                (0..columns)
                    .map(|_| {
                        last = 0.9 * last + random();
                        last
                    })
                    .collect()
            })
            .collect();
        let mut hessian = Hessian::new(columns);
        inputs.iter().for_each(|x| hessian.add(x));
        let row: Vec<f32> = (0..columns).map(|_| random()).collect();
        let plain: Vec<_> = row
            .as_chunks::<GROUP>()
            .0
            .iter()
            .map(|group| super::super::quantize(omex_core::quant::Format::Int4, group))
            .collect();
        let error = |groups: &[Group]| -> f32 {
            let rounded: Vec<f32> = groups.iter().flat_map(Group::values).collect();
            let output = |x: &[f32]| -> f32 {
                x.iter().zip(row.iter().zip(&rounded)).map(|(x, (w, r))| x * (w - r)).sum()
            };
            inputs.iter().map(|x| output(x).powi(2)).sum()
        };
        let made_up = hessian.compensation().unwrap().quantize_row(&row);
        assert!(error(&made_up) < 0.5 * error(&plain), "{} {}", error(&made_up), error(&plain));
    }
}
