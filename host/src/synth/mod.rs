//! Models with random weights in the shapes of known ones: for measuring, where nobody reads the text.

use crate::arch::{self, EMBEDDING, Role};
use crate::cancel::Cancel;
use crate::import::hugging_face;
use crate::import::{Container, Encoding, Fields, SourceFormat, TensorInfo, TokenizerSource};
use crate::quantize::Precision;
use crate::session::Tables;
use crate::{Error, Result};
use half::f16;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The shape of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelShape {
    /// The model that it is the shape of.
    pub name: &'static str,
    /// What its `config.json` says of shapes.
    config: &'static str,
}

macro_rules! shapes {
    ($($name:literal),+) => {
        [$(ModelShape {
            name: $name,
            config: include_str!(concat!("shapes/", $name, ".json")),
        }),+]
    };
}

/// The shapes that there are. Where a model stretches its RoPE frequencies, they are the plain ones.
pub const SHAPES: [ModelShape; 11] = shapes![
    "stories",
    "tinyllama-1.1b",
    "llama2-7b",
    "llama3-8b",
    "llama3-70b",
    "llama3.2-1b",
    "llama3.2-3b",
    "qwen3-0.6b",
    "qwen3-30b-a3b",
    "qwen3.5-0.8b",
    "gemma3-1b"
];

/// A model whose weights come from a hash of their place, stored as no file has to hold them.
#[derive(Clone, Debug)]
pub struct RandomModel {
    /// Where the hyperparameters come from.
    path: PathBuf,
    config: Fields,
    tensors: BTreeMap<String, TensorInfo>,
    /// What an embedding that is not the output, too, is called: its numbers are of variance 1, so that
    /// tokens stay apart, and are sent to experts of their own.
    embedding: Option<String>,
    seed: u64,
}

impl RandomModel {
    /// A model of this shape, with all matrices in one precision and another text for each seed.
    /// It has no tokenizer, and no token that ends a text.
    ///
    /// # Errors
    /// A shape that no model has.
    pub fn new(shape: &ModelShape, precision: Precision, seed: u64) -> Result<Self> {
        let encoding = match precision {
            Precision::Int4 => Encoding::Q4_0,
            Precision::Int8 => Encoding::Q8_0,
            Precision::F16 => Encoding::F16,
            Precision::F32 | Precision::Vector | Precision::Channels => Encoding::F32,
        };
        let config = serde_json::from_str(shape.config);
        let config = config.map_err(|e| Error::Usage(format!("the shape {}: {e}", shape.name)))?;
        Self::with(Path::new(shape.name), config, encoding, seed)
    }

    /// A model with the hyperparameters of a `config.json`, and floats for weights.
    ///
    /// # Errors
    /// As [`arch::of_config`].
    pub fn with_config(path: &Path, config: Fields) -> Result<Self> {
        Self::with(path, config, Encoding::F16, 0)
    }

    fn with(path: &Path, config: Fields, matrices: Encoding, seed: u64) -> Result<Self> {
        let (mut tensors, mut embedding) = (BTreeMap::new(), None);
        let blueprint = arch::of_config(path, &config)?;
        // Logits of an embedding that comes again would name the token that was read.
        let is_tied = blueprint.tensors().all(|plan| plan.name != "output");
        for plan in blueprint.tensors() {
            for source in plan.sources() {
                let [rows, columns] = source.stored_shape();
                let in_blocks = columns.is_multiple_of(matrices.block_values());
                let encoding = match plan.role {
                    Role::Vector => Encoding::F32,
                    _ if in_blocks => matrices,
                    _ => Encoding::F32,
                };
                if plan.name == EMBEDDING && !is_tied {
                    embedding = Some(source.tensor.clone());
                }
                let info = TensorInfo { rows, columns, encoding };
                tensors.insert(source.tensor.clone(), info);
            }
        }
        Ok(Self { path: path.to_owned(), config, tensors, embedding, seed })
    }

    fn info(&self, name: &str) -> Result<TensorInfo> {
        let missing = || Error::Usage(format!("a random model has no tensor {name}"));
        self.tensor(name).ok_or_else(missing)
    }

    /// The standard deviation of a tensor's numbers.
    fn deviation(&self, name: &str, columns: u32) -> f32 {
        if self.embedding.as_deref() == Some(name) { 1.0 } else { 1.0 / (columns as f32).sqrt() }
    }

    /// Random numbers for one row of a tensor.
    fn numbers(&self, name: &str, row: u32) -> Numbers {
        let seed = mixed(self.seed.wrapping_add(u64::from(row) << 32));
        Numbers(name.bytes().fold(seed, |hash, byte| mixed(hash ^ u64::from(byte))))
    }
}

impl Container for RandomModel {
    fn format(&self) -> SourceFormat {
        SourceFormat::HuggingFace
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn config(&self) -> &Fields {
        &self.config
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn tensor_path(&self, _name: &str) -> &Path {
        &self.path
    }

    fn tensor(&self, name: &str) -> Option<TensorInfo> {
        self.tensors.get(name).copied()
    }

    fn read_row(&self, name: &str, row: u32, out: &mut [f32]) -> Result<()> {
        let info = self.info(name)?;
        if info.rows == 1 {
            out.fill(1.0);
            return Ok(());
        }
        match info.encoding {
            Encoding::Q4_0 | Encoding::Q8_0 => {
                let mut bytes = vec![];
                self.read_row_bytes(name, row, &mut bytes)?;
                info.encoding.decode(&bytes, out);
            }
            _ => {
                let mut numbers = self.numbers(name, row);
                let size = 3f32.sqrt() * self.deviation(name, info.columns);
                out.iter_mut().for_each(|x| *x = size * numbers.signed_unit());
            }
        }
        Ok(())
    }

    fn read_row_bytes(&self, name: &str, row: u32, out: &mut Vec<u8>) -> Result<()> {
        let info = self.info(name)?;
        out.clear();
        let (integers, spread, to_mean_zero): (_, _, fn(u64) -> u64) = match info.encoding {
            Encoding::Q4_0 => (16, INT4_SPREAD, without_lowest_int4),
            Encoding::Q8_0 => (32, INT8_SPREAD, without_lowest_int8),
            other => {
                let mut floats = vec![0.0; info.columns as usize];
                self.read_row(name, row, &mut floats)?;
                match other {
                    Encoding::F32 => out.extend(floats.iter().flat_map(|x| x.to_le_bytes())),
                    _ => out.extend(floats.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes())),
                }
                return Ok(());
            }
        };
        let mut numbers = self.numbers(name, row);
        let step = self.deviation(name, info.columns) / spread;
        for _ in 0..info.columns / info.encoding.block_values() {
            out.extend(f16::from_f32(step * (1.0 + 0.2 * numbers.signed_unit())).to_le_bytes());
            for _ in 0..integers / 8 {
                out.extend(to_mean_zero(numbers.next()).to_le_bytes());
            }
        }
        Ok(())
    }

    fn tokenizer(&self) -> Option<&TokenizerSource> {
        None
    }
}

/// The standard deviation of the integers below.
const INT4_SPREAD: f32 = 4.2;
const INT8_SPREAD: f32 = 74.0;

/// Sixteen nibbles `q + 8`, of which the lowest, -8, become 0, for a mean of 0: a bias in all
/// weights would end every text in one token for ever.
fn without_lowest_int4(nibbles: u64) -> u64 {
    const ONES: u64 = 0x1111_1111_1111_1111;
    let pairs = nibbles | nibbles >> 1;
    let lowest = !(pairs | pairs >> 2) & ONES;
    nibbles | lowest << 3
}

/// Eight bytes `q`, of which the lowest, -128, become 0.
fn without_lowest_int8(bytes: u64) -> u64 {
    const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let others = ((bytes & LOW_BITS) + LOW_BITS) | !bytes;
    bytes & (others | LOW_BITS)
}

/// SplitMix64.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// A number from -1 to 1.
    fn signed_unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

fn mixed(z: u64) -> u64 {
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// What the package would be that is converted from the model with this `config.json`, but for its
/// tokenizer.
///
/// # Errors
/// A file that is malformed, or another architecture's.
pub fn tables_of_config(path: &Path, precision: Precision, residual: bool) -> Result<Tables> {
    let model = RandomModel::with_config(path, hugging_face::read_config(path)?)?;
    let (compiled, index) = crate::convert::outline(&model, Some(precision), residual)?;
    Ok(Tables::new(path, compiled, &index, None))
}

/// Writes a package with random weights, which appears whole or not at all.
///
/// # Errors
/// As [`crate::convert::convert`].
pub fn write(
    shape: &ModelShape,
    precision: Precision,
    seed: u64,
    output: &Path,
    force: bool,
    cancel: &Cancel,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<crate::package::Package> {
    use crate::convert::{Calibration, ConvertOptions, convert};
    let model = RandomModel::new(shape, precision, seed)?;
    let options = ConvertOptions {
        precision: Some(precision),
        calibration: Calibration::Off,
        force,
        cancel: cancel.clone(),
        ..Default::default()
    };
    convert(&model, "random", shape.name, output, &options, progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_integers_become_zero_and_no_others() {
        assert_eq!(without_lowest_int4(0x0123_4567_89ab_cde0), 0x8123_4567_89ab_cde8);
        let bytes = [0x80u8, 0x00, 0x7f, 0xff, 0x81, 0x01, 0x80, 0x40];
        let kept = [0x00u8, 0x00, 0x7f, 0xff, 0x81, 0x01, 0x00, 0x40];
        assert_eq!(without_lowest_int8(u64::from_le_bytes(bytes)), u64::from_le_bytes(kept));
    }

    #[test]
    fn weights_have_mean_0_and_variance_1_over_columns_in_every_precision() {
        let shape = SHAPES.iter().find(|s| s.name == "llama3-70b").unwrap();
        for precision in [Precision::Int4, Precision::Int8, Precision::F16, Precision::F32] {
            let model = RandomModel::new(shape, precision, 1).unwrap();
            let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
            for row in 0..20 {
                let mut weights = vec![0.0; 28672];
                model.read_row("model.layers.79.mlp.down_proj.weight", row, &mut weights).unwrap();
                sum += weights.iter().map(|x| f64::from(*x)).sum::<f64>();
                squares += weights.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
                count += weights.len() as f64;
            }
            let variance = squares / count * 28672.0;
            assert!((0.97..1.03).contains(&variance), "{precision:?}: {variance}");
            // Five standard errors.
            let mean = sum / count * 28672f64.sqrt();
            assert!(mean.abs() < 5.0 / count.sqrt(), "{precision:?}: {mean}");
        }
    }

    #[test]
    fn shapes_have_as_many_parameters_as_their_names_say() {
        let billions = |shape: &ModelShape| {
            let model = RandomModel::new(shape, Precision::F16, 0).unwrap();
            let count = |t: &TensorInfo| f64::from(t.rows) * f64::from(t.columns);
            model.tensors.values().map(count).sum::<f64>() / 1e9
        };
        for shape in &SHAPES[1..] {
            let named = shape.name.split('-').find_map(|part| part.strip_suffix('b')?.parse().ok());
            let (named, found): (f64, _) = (named.unwrap(), billions(shape));
            assert!((0.9..1.25).contains(&(found / named)), "{}: {found} billions", shape.name);
        }
    }

    #[test]
    fn rows_differ_by_place_and_by_seed_and_are_the_same_again() {
        let row = |seed, name: &str, row| {
            let mut out = vec![];
            let model = RandomModel::new(&SHAPES[0], Precision::Int4, seed).unwrap();
            model.read_row_bytes(name, row, &mut out).unwrap();
            out
        };
        let (query, key) =
            ("model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight");
        assert_eq!(row(1, query, 3), row(1, query, 3));
        let all = [row(1, query, 3), row(2, query, 3), row(1, query, 4), row(1, key, 3)];
        assert!((0..4).all(|i| (0..i).all(|j| all[i] != all[j])));
    }
}
