//! Inverse frequencies of rotary position embeddings (RoPE).

use super::config::Config;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::f64::consts::TAU;

/// The field that says which part of each head is turned.
const PART: &str = "partial_rotary_factor";

/// What files divide frequencies by that are to be 0.
pub(super) const STAYS: f32 = 1e30;

/// How a model's RoPE frequencies are computed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rope {
    /// Base of the frequencies.
    theta: f64,
    /// The part of each head that is turned, if the file says so.
    part: Option<f64>,
    /// How they are stretched for long contexts.
    scaling: Scaling,
}

/// Factors that a file stores as a tensor, as a `config.json` says that each frequency is divided by its
/// own.
pub(super) fn divided_by_factors(config: &Config<'_>) -> Option<Value> {
    let factors = config.rope_factors.as_ref()?;
    let linear = config.fields().get("rope_scaling").and_then(|scaling| scaling["factor"].as_f64());
    let factors: Vec<_> = factors.iter().map(|factor| factor * linear.unwrap_or(1.0)).collect();
    let context = config.fields().get("max_position_embeddings");
    Some(json!({
        "rope_type": "longrope", "short_factor": factors, "long_factor": factors, "factor": 1.0,
        "attention_factor": 1.0, "original_max_position_embeddings": context,
    }))
}

/// How RoPE frequencies are stretched for long contexts.
#[derive(Clone, Debug, PartialEq)]
enum Scaling {
    /// They are not.
    Default,
    /// Each is divided by the factor.
    Linear { factor: f64 },
    /// Llama 3.1's interpolation between slow frequencies, divided, and fast ones, unchanged.
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original: f64 },
    /// The same between pairs: those that turn `beta_fast` times and more in the original context
    /// stay, those that turn `beta_slow` times and less are divided.
    Yarn {
        factor: f64,
        beta_fast: f64,
        beta_slow: f64,
        original: f64,
        /// The bounds between pairs are whole numbers.
        truncate: bool,
        /// What queries and keys are multiplied with.
        attention_factor: f64,
        /// `mscale_all_dim`; 0 if the file doesn't say it.
        score_mscale: f64,
    },
    /// Each is divided by the factor, and only this part of all is not 0 (Gemma 4).
    Proportional { part: f64, factor: f64 },
    /// Each is divided by its own factor.
    Factors(Vec<f64>),
    /// So are those of LongRoPE (arXiv:2402.13753) in texts up to the original context; in longer ones, other
    /// factors apply to all of the text.
    Long {
        factors: Vec<f64>,
        /// The other factors.
        beyond: Vec<f64>,
        original: u32,
        attention_factor: f64,
    },
}

impl Rope {
    /// RoPE's parameters, as transformers 5 writes them (`rope_parameters`) or as earlier versions
    /// did (`rope_theta`, `rope_scaling`); without a base, it is `theta`.
    pub(super) fn read(config: &Config<'_>, theta: f64) -> Result<Self> {
        let new = config.object("rope_parameters", "rope_parameters.")?;
        let old = config.object("rope_scaling", "rope_scaling.")?;
        let rope = match (&new, &old) {
            (Some(rope), None) | (None, Some(rope)) => rope,
            (None, None) => config,
            (Some(_), Some(_)) => {
                let found = config.get("rope_scaling").unwrap_or(&Value::Null);
                let expected = "no such field beside rope_parameters";
                return Err(config.bad("rope_scaling", found, expected));
            }
        };
        Self::of(rope, config, theta)
    }

    /// Frequencies of this base, as they are.
    pub(super) fn plain(theta: f64) -> Self {
        Self { theta, part: None, scaling: Scaling::Default }
    }

    /// Frequencies of this base, of which only this part of all is not 0.
    pub(super) fn proportional(theta: f64, part: f64) -> Self {
        Self { theta, part: None, scaling: Scaling::Proportional { part, factor: 1.0 } }
    }

    /// The parameters in an object, and those that the hyperparameters have in common.
    pub(super) fn of(rope: &Config<'_>, config: &Config<'_>, theta: f64) -> Result<Self> {
        let given = |name| Ok::<_, Error>(rope.number(name)?.or(config.number(name)?));
        let (given, mut part) = (given("rope_theta")?, given(PART)?);
        let mut scaling = Scaling::read(rope, config)?;
        if let Scaling::Proportional { part: of_all, .. } = &mut scaling {
            *of_all = part.take().unwrap_or(1.0);
        }
        if let Some(factors) = &config.rope_factors {
            let scale = match scaling {
                Scaling::Linear { factor } => factor,
                _ => 1.0,
            };
            scaling = Scaling::Factors(factors.iter().map(|factor| factor * scale).collect());
        }
        Ok(Self { theta: given.unwrap_or(theta), part, scaling })
    }

    /// The part of each head that is turned: `default` if the file doesn't say so. Without a default,
    /// the architecture turns whole heads only.
    pub(super) fn part(&self, default: Option<f64>, config: &Config<'_>) -> Result<f64> {
        let part = self.part.or(default).unwrap_or(1.0);
        if default.is_none() && part != 1.0 {
            return Err(config.unsupported(PART, &part.into(), "1.0"));
        }
        match part > 0.0 && part <= 1.0 {
            true => Ok(part),
            false => Err(config.bad(PART, &part.into(), "a number above 0, and at most 1")),
        }
    }

    /// The `width / 2` inverse frequencies of heads, with the formulas of transformers'
    /// `modeling_rope_utils.py`, computed in double precision.
    ///
    /// # Errors
    ///
    /// When a parameter that the file gives makes a frequency that is not a positive number.
    pub(super) fn frequencies(&self, width: u32, config: &Config<'_>) -> Result<Vec<f32>> {
        let frequency = |pair: u32| {
            let plain = libm::pow(self.theta, -f64::from(2 * pair) / f64::from(width));
            let frequency = self.stretch(plain, pair, width) as f32;
            if self.stays(pair, width) {
                return Ok(0.0);
            }
            if frequency.is_finite() && frequency > 0.0 {
                return Ok(frequency);
            }
            Err(Error::malformed(
                config.file(),
                format!("RoPE frequency {pair}"),
                format!("{frequency}, from {self:?}"),
                "a positive number",
                "correct the RoPE parameters, or get the file again",
            ))
        };
        (0..width / 2).map(frequency).collect()
    }

    /// What frequencies of heads of this width are made of, for files that say it in another way.
    pub(super) fn described(&self, width: u32) -> Value {
        let mut said = match &self.scaling {
            Scaling::Default => json!({}),
            Scaling::Linear { factor } => json!({ "kind": "linear", "factor": factor }),
            Scaling::Llama3 { .. } | Scaling::Factors(_) => {
                let divisors = (0..width / 2).map(|pair| self.divisor(pair, width));
                json!({ "divisors": divisors.collect::<Vec<_>>() })
            }
            Scaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original,
                attention_factor,
                score_mscale,
                ..
            } => json!({
                "kind": "yarn", "factor": factor, "original": *original as u32,
                "beta_fast": beta_fast, "beta_slow": beta_slow, "score_mscale": score_mscale,
                "attention_part": attention_factor / yarn_mscale(*factor, 1.0),
            }),
            Scaling::Long { factors, beyond, original, attention_factor } => json!({
                "short": factors, "long": beyond, "original": original,
                "attention_part": attention_factor,
            }),
            Scaling::Proportional { factor, .. } => {
                let divisor = |pair| if self.stays(pair, width) { STAYS } else { *factor as f32 };
                let divisors = (0..width / 2).map(divisor);
                json!({ "kind": "proportional", "divisors": divisors.collect::<Vec<_>>() })
            }
        };
        said["theta"] = self.theta.into();
        said["width"] = width.into();
        said
    }

    /// What the plain frequency of a pair is divided by, as a float that gives the very frequency.
    fn divisor(&self, pair: u32, width: u32) -> f32 {
        let plain = libm::pow(self.theta, -f64::from(2 * pair) / f64::from(width));
        let stretched = self.stretch(plain, pair, width);
        let factor = (plain / stretched) as f32;
        // Rounding twice may miss it by one step.
        let near = [factor, factor.next_up(), factor.next_down()];
        let exact = |near: &f32| (plain / f64::from(*near)) as f32 == stretched as f32;
        near.into_iter().find(exact).unwrap_or(factor)
    }

    /// True for a pair that is not turned.
    fn stays(&self, pair: u32, width: u32) -> bool {
        match self.scaling {
            Scaling::Proportional { part, .. } => pair >= (part * f64::from(width) / 2.0) as u32,
            _ => false,
        }
    }

    /// What queries and keys are multiplied with.
    pub(super) fn attention_factor(&self) -> f64 {
        match self.scaling {
            Scaling::Yarn { attention_factor, .. } | Scaling::Long { attention_factor, .. } => {
                attention_factor
            }
            _ => 1.0,
        }
    }

    /// What scores are multiplied with besides, as DeepSeek does.
    pub(super) fn score_factor(&self) -> f64 {
        match self.scaling {
            Scaling::Yarn { factor, score_mscale, .. } if score_mscale != 0.0 => {
                yarn_mscale(factor, score_mscale).powi(2)
            }
            _ => 1.0,
        }
    }

    /// How many positions a text may have at most, and the RoPE of longer ones, if there is another.
    pub(super) fn beyond(&self) -> Option<(u32, Self)> {
        let Scaling::Long { beyond, original, .. } = &self.scaling else { return None };
        let scaling = Scaling::Factors(beyond.clone());
        Some((*original, Self { scaling, ..self.clone() }))
    }

    fn stretch(&self, frequency: f64, pair: u32, width: u32) -> f64 {
        match &self.scaling {
            Scaling::Default => frequency,
            Scaling::Linear { factor } | Scaling::Proportional { factor, .. } => frequency / factor,
            Scaling::Factors(factors) | Scaling::Long { factors, .. } => {
                frequency / factors.get(pair as usize).unwrap_or(&f64::NAN)
            }
            Scaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original } => {
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
            Scaling::Yarn { factor, beta_fast, beta_slow, original, truncate, .. } => {
                // The pair that turns so many times in the original context.
                let bound = |turns: f64| {
                    let pairs = libm::log(original / (turns * TAU)) / (2.0 * libm::log(self.theta));
                    f64::from(width) * pairs
                };
                let (mut first, mut last) = (bound(*beta_fast), bound(*beta_slow));
                if *truncate {
                    (first, last) = (first.floor(), last.ceil());
                }
                let (first, mut last) = (first.max(0.0), last.min(f64::from(width - 1)));
                if first == last {
                    last += 0.001;
                }
                let slow = ((f64::from(pair) - first) / (last - first)).clamp(0.0, 1.0);
                frequency / factor * slow + frequency * (1.0 - slow)
            }
        }
    }
}

impl Scaling {
    fn read(rope: &Config<'_>, config: &Config<'_>) -> Result<Self> {
        let kind = rope.get("rope_type").or(rope.get("type"));
        // transformers falls back in this order, too.
        let original = || {
            let name = "original_max_position_embeddings";
            Ok::<_, Error>(match (rope.number(name)?, config.number(name)?) {
                (Some(original), _) | (None, Some(original)) => original,
                (None, None) => config.number("max_position_embeddings")?.unwrap_or(2048.0),
            })
        };
        Ok(match kind.map_or(Some("default"), Value::as_str) {
            Some("default") => Scaling::Default,
            // Its frequencies change only where a text is longer than the model was trained for.
            Some("dynamic") => rope.required_number("factor").map(|_| Scaling::Default)?,
            Some("longrope" | "su") => Self::long(rope, config)?,
            Some("linear") => Scaling::Linear { factor: rope.required_number("factor")? },
            Some("proportional") => {
                let factor = rope.positive("factor")?.unwrap_or(1.0);
                Scaling::Proportional { part: 1.0, factor }
            }
            Some("llama3") => Scaling::Llama3 {
                factor: rope.required_number("factor")?,
                low_freq_factor: rope.required_number("low_freq_factor")?,
                high_freq_factor: rope.required_number("high_freq_factor")?,
                original: original()?,
            },
            Some("yarn") => {
                let factor = rope.required_number("factor")?;
                Scaling::Yarn {
                    factor,
                    beta_fast: rope.number("beta_fast")?.unwrap_or(32.0),
                    beta_slow: rope.number("beta_slow")?.unwrap_or(1.0),
                    original: original()?,
                    truncate: rope.boolean("truncate", true)?,
                    attention_factor: yarn_attention_factor(rope, factor)?,
                    score_mscale: rope.number("mscale_all_dim")?.unwrap_or(0.0),
                }
            }
            _ => {
                let found = kind.unwrap_or(&Value::Null);
                return Err(rope.unsupported(
                    "rope_type",
                    found,
                    "default, linear, dynamic, llama3, yarn, longrope or proportional",
                ));
            }
        })
    }
}

impl Scaling {
    /// LongRoPE's factors for short texts, and for long ones.
    fn long(rope: &Config<'_>, config: &Config<'_>) -> Result<Self> {
        let (name, most) = ("original_max_position_embeddings", "max_position_embeddings");
        let context = config.integer(most)?.unwrap_or(4096);
        let original = rope.integer(name)?.or(config.integer(name)?).unwrap_or(context);
        if original < 2 {
            return Err(rope.bad(name, &original.into(), "a number of positions, 2 or more"));
        }
        let factor = rope.positive("factor")?.unwrap_or(f64::from(context) / f64::from(original));
        let attention_factor = match rope.positive("attention_factor")? {
            Some(attention_factor) => attention_factor,
            None if factor <= 1.0 => 1.0,
            None => (1.0 + libm::log(factor) / libm::log(f64::from(original))).sqrt(),
        };
        let [factors, beyond] = ["short_factor", "long_factor"].map(|name| rope.numbers(name));
        let (factors, beyond) = (factors?, beyond?);
        Ok(Scaling::Long { factors, beyond, original, attention_factor })
    }
}

pub(super) fn yarn_mscale(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * libm::log(factor) + 1.0 }
}

/// What YaRN multiplies queries and keys with.
fn yarn_attention_factor(rope: &Config<'_>, factor: f64) -> Result<f64> {
    let of = |mscale| yarn_mscale(factor, mscale);
    let given = (rope.number("mscale")?, rope.number("mscale_all_dim")?);
    Ok(match (rope.number("attention_factor")?, given) {
        (Some(attention_factor), _) => attention_factor,
        (None, (Some(mscale), Some(all))) if mscale != 0.0 && all != 0.0 => of(mscale) / of(all),
        _ => of(1.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{borrow::Cow, path::Path};

    fn frequencies(theta: f64, scaling: Scaling, width: u32) -> Result<Vec<f32>> {
        let config = Config::new(Path::new("config.json"), Cow::default());
        Rope { theta, part: None, scaling }.frequencies(width, &config)
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
            original: 8192.0,
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

    fn read(fields: serde_json::Value) -> Result<Rope> {
        let fields = Cow::Owned(fields.as_object().unwrap().clone());
        Rope::read(&Config::new(Path::new("config.json"), fields), 10000.0)
    }

    #[test]
    fn longrope_has_factors_for_short_texts_and_others_for_long_ones() {
        for old in [true, false] {
            let mut scaling = serde_json::json!({
                "rope_type": "longrope", "short_factor": [1.0, 4.0], "long_factor": [2.0, 8.0],
            });
            let rope = match old {
                true => read(serde_json::json!({
                    "max_position_embeddings": 256, "original_max_position_embeddings": 16,
                    "rope_scaling": scaling,
                })),
                false => {
                    scaling["original_max_position_embeddings"] = 16.into();
                    read(serde_json::json!({
                        "max_position_embeddings": 256, "rope_parameters": scaling,
                    }))
                }
            };
            let rope = rope.unwrap();
            let config = Config::new(Path::new("config.json"), Cow::default());
            assert_eq!(rope.frequencies(4, &config).unwrap(), [1.0, 0.0025]);
            // sqrt(1 + ln 16 / ln 16).
            assert_eq!(rope.attention_factor(), 2f64.sqrt());
            let (original, beyond) = rope.beyond().unwrap();
            assert_eq!(
                (original, beyond.frequencies(4, &config).unwrap()),
                (16, vec![0.5, 0.00125])
            );
        }
    }

    #[test]
    fn dynamic_scaling_changes_nothing_within_the_context() {
        let scaling = serde_json::json!({ "type": "dynamic", "factor": 4.0 });
        let rope = read(serde_json::json!({ "rope_scaling": scaling })).unwrap();
        assert_eq!(rope, Rope::plain(10000.0));
        assert_eq!(rope.beyond(), None);
        assert!(read(serde_json::json!({ "rope_scaling": { "type": "dynamic" } })).is_err());
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
