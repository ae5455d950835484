//! Rounding that makes up for its own errors (GPTQ, arXiv:2210.17323).
//!
//! Plain rounding minimises the error of each weight. What matters is the error of the outputs,
//! which depends on how inputs go together: after a weight is rounded, the weights behind it are
//! moved so that the output changes least. This needs the inputs' second moments.

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
        let factors = self.blocks.iter().map(|block| inverse_factor(block)).collect::<Option<_>>()?;
        Some(Compensation { columns: self.columns, factors })
    }
}

/// How the error of a rounded weight is spread over the weights behind it.
#[derive(Clone, Debug)]
pub struct Compensation {
    columns: usize,
    /// For each block, the upper Cholesky factor of the inverse of its Hessian.
    factors: Vec<Vec<f32>>,
}

impl Compensation {
    /// Quantizes a row to int4.
    #[must_use]
    pub fn quantize_row(&self, row: &[f32]) -> Vec<Group> {
        let mut groups = vec![];
        for (factor, block) in self.factors.iter().zip(row[..self.columns].chunks(BLOCK)) {
            let mut weights = block.to_vec();
            let width = weights.len();
            for first in (0..width).step_by(GROUP) {
                let end = width.min(first + GROUP);
                let mut group = [0.0; GROUP];
                group[..end - first].copy_from_slice(&weights[first..end]);
                let scale = int4_scale(&group);
                let mut integers = [0; GROUP];
                for i in first..end {
                    integers[i - first] = round(weights[i], scale);
                    let rounded = f32::from(integers[i - first]) * scale.to_f32();
                    let spread = &factor[i * width..(i + 1) * width];
                    let error = (weights[i] - rounded) / spread[i];
                    for (weight, share) in weights[i + 1..].iter_mut().zip(&spread[i + 1..]) {
                        *weight -= error * share;
                    }
                }
                groups.push(Group::Integers(scale, integers));
            }
        }
        groups
    }
}

fn round(weight: f32, scale: f16) -> i8 {
    let scale = scale.to_f32();
    if scale == 0.0 { 0 } else { (weight / scale).round_ties_even().clamp(-8.0, 7.0) as i8 }
}

/// The upper factor U of a damped block's inverse: `H⁻¹ = Uᵀ U`.
fn inverse_factor(block: &[f64]) -> Option<Vec<f32>> {
    let n = block.len().isqrt();
    let mut h = block.to_vec();
    let damping = DAMPING * (0..n).map(|i| h[i * n + i]).sum::<f64>() / n as f64;
    for i in 0..n {
        h[i * n + i] += damping;
        for j in 0..i {
            h[i * n + j] = h[j * n + i];
        }
    }
    let inverse = invert(&cholesky(&h, n)?, n);
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
                        let inverse: f64 =
                            (0..3).map(|m| f64::from(factor[m * 3 + k]) * f64::from(factor[m * 3 + j])).sum();
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
                (0..columns).map(|_| { last = 0.9 * last + random(); last }).collect()
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
            let rounded: Vec<f32> = groups
                .iter()
                .flat_map(|group| match group {
                    Group::Integers(scale, q) => q.map(|q| f32::from(q) * scale.to_f32()),
                    Group::Floats(x) => *x,
                })
                .collect();
            let output = |x: &[f32]| -> f32 {
                x.iter().zip(row.iter().zip(&rounded)).map(|(x, (w, r))| x * (w - r)).sum()
            };
            inputs.iter().map(|x| output(x).powi(2)).sum()
        };
        let made_up = hessian.compensation().unwrap().quantize_row(&row);
        assert!(error(&made_up) < 0.5 * error(&plain), "{} {}", error(&made_up), error(&plain));
    }
}
