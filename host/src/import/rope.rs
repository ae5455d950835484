//! Inverse frequencies of rotary position embeddings (RoPE).

use crate::{Error, Result};
use std::{f64::consts::TAU, path::Path};

/// How a model's RoPE frequencies are computed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rope {
    /// Base of the frequencies.
    pub(super) theta: f64,
    /// How they are stretched for long contexts.
    pub(super) scaling: Scaling,
}

/// How RoPE frequencies are stretched for long contexts.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scaling {
    /// They are not.
    Default,
    /// Each is divided by the factor.
    Linear { factor: f64 },
    /// Llama 3.1's interpolation between slow frequencies, divided, and fast ones, unchanged.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_position_embeddings: f64,
    },
    /// Each is divided by its own factor.
    Factors(Vec<f64>),
}

impl Rope {
    /// The `head_dim / 2` inverse frequencies, with the formulas of transformers'
    /// `modeling_rope_utils.py`, computed in double precision.
    ///
    /// # Errors
    ///
    /// When a parameter that `file` gives makes a frequency that is not a positive number.
    pub(super) fn frequencies(&self, head_dim: u32, file: &Path) -> Result<Vec<f32>> {
        let frequency = |pair: u32| {
            let plain = self.theta.powf(-f64::from(2 * pair) / f64::from(head_dim));
            let frequency = self.scaling.apply(plain, pair as usize) as f32;
            if frequency.is_finite() && frequency > 0.0 {
                return Ok(frequency);
            }
            Err(Error::malformed(
                file,
                format!("RoPE frequency {pair}"),
                format!("{frequency}, from {self:?}"),
                "a positive number",
                "correct the RoPE parameters, or get the file again",
            ))
        };
        (0..head_dim / 2).map(frequency).collect()
    }
}

impl Scaling {
    fn apply(&self, frequency: f64, pair: usize) -> f64 {
        match self {
            Scaling::Default => frequency,
            Scaling::Linear { factor } => frequency / factor,
            Scaling::Factors(factors) => frequency / factors.get(pair).unwrap_or(&f64::NAN),
            Scaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                let wavelength = TAU / frequency;
                if wavelength < original / high {
                    frequency
                } else if wavelength > original / low {
                    frequency / factor
                } else {
                    let smooth = (original / wavelength - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(theta: f64, scaling: Scaling, head_dim: u32) -> Result<Vec<f32>> {
        Rope { theta, scaling }.frequencies(head_dim, Path::new("config.json"))
    }

    #[test]
    fn plain_and_linear() {
        assert_eq!(frequencies(10000.0, Scaling::Default, 4).unwrap(), [1.0, 0.01]);
        let linear = Scaling::Linear { factor: 4.0 };
        assert_eq!(frequencies(10000.0, linear, 4).unwrap(), [0.25, 0.0025]);
    }

    #[test]
    fn llama3_leaves_fast_divides_slow_and_blends_between() {
        let scaling = Scaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192.0,
        };
        let plain = frequencies(500000.0, Scaling::Default, 128).unwrap();
        let scaled = frequencies(500000.0, scaling, 128).unwrap();
        assert_eq!(scaled[..29], plain[..29]);
        assert!((29..35).all(|i| scaled[i] < plain[i] && scaled[i] > plain[i] / 8.0));
        assert!((36..64).all(|i| (scaled[i] * 8.0 / plain[i] - 1.0).abs() < 1e-6));
        // transformers' formula in single precision, pairs 28 to 36.
        let reference = [
            0.003211446,
            0.0021665706,
            0.0013718937,
            0.00085675146,
            0.000524846,
            0.00031269365,
            0.00017850782,
            9.556212e-5,
            7.7846555e-5,
        ];
        for (scaled, reference) in scaled[28..].iter().zip(reference) {
            assert!((scaled / reference - 1.0f32).abs() < 1e-6, "{scaled} {reference}");
        }
    }

    #[test]
    fn meaningless_parameters_are_errors() {
        for theta in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(frequencies(theta, Scaling::Default, 8).is_err(), "{theta}");
        }
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(frequencies(10000.0, Scaling::Linear { factor }, 8).is_err(), "{factor}");
        }
        assert!(frequencies(10000.0, Scaling::Factors(vec![1.0]), 8).is_err());
    }
}
