//! GGUF files, for llama.cpp to run the very weights of a package.
//!
//! Blocks of int4 and int8 are those of Q4_0 and Q8_0, eight rows side by side; here each row gets
//! its own again. Of a package without a tokenizer, or with one that llama.cpp does not have, tokens are dummies.

use super::inverse::{Inverse, Stored};
use super::pairs::{Pairs, put_string};
use super::scatter::{self, Output, Place};
use super::{Dtype, Exported, hyperparameters, rows};
use crate::arch::{self, Blueprint, Data, InGguf};
use crate::cancel::Cancel;
use crate::durable::{create_beside, persist};
use crate::graph::CLASSES;
use crate::import::{self, Encoding, SourceFormat};
use crate::package::{DEFAULT_TEMPLATE, EmbeddingSettings, Package, Pooling};
use crate::quantize::Precision;
use crate::tokenizer::{GgufVocabulary, Spec};
use crate::{Error, Result, input};
use serde_json::Value;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Tensors begin at multiples of this.
const ALIGNMENT: u64 = 32;

/// Writes a package's model as a GGUF file, which appears whole or not at all. `progress` is
/// called with the bytes of weights that are written and those in all.
///
/// # Errors
/// A package that is damaged, or that GGUF files have no words for, a file that can't be written,
/// [`Error::Interrupted`].
pub fn write(
    package: &Package,
    path: &Path,
    dtype: Dtype,
    cancel: &Cancel,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Exported> {
    let model = Model::new(package, dtype)?;
    let temporary = create_beside(path)?;
    let (file, io) = (temporary.as_file(), |e| Error::io(path, "write", e));
    file.set_len(model.end).and_then(|()| file.write_all_at(&model.header, 0)).map_err(io)?;
    for (offset, factors) in &model.factors {
        let bytes: Vec<u8> = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
        file.write_all_at(&bytes, *offset).map_err(io)?;
    }
    let mut output = Output { file, path, places: &model.places, cancel, progress };
    scatter::write(package, &model.inverse, &mut output)?;
    check(&model.blueprint, temporary.path(), package)?;
    persist(temporary, path)?;
    let (architecture, notes) = (model.architecture.to_owned(), model.notes);
    let exported = Exported::new("gguf", architecture, &model.inverse, &model.places);
    Ok(Exported { notes, ..exported })
}

/// Whether the file at `path` is what [`write()`] would make of the package, with floats of 32 bits, by
/// its header and length.
///
/// # Errors
/// A package that GGUF files have no words for.
pub fn is_of(package: &Package, path: &Path) -> Result<bool> {
    let Model { header, end, .. } = Model::new(package, Dtype::default())?;
    let mut found = vec![0; header.len()];
    let Ok(file) = input::open(path) else { return Ok(false) };
    let read = file.read_exact_at(&mut found, 0).and_then(|()| file.metadata());
    Ok(read.is_ok_and(|metadata| metadata.len() == end && found == header))
}

/// Refuses a file that says something else than the package: GGUF has no words for what is missing there.
fn check(expected: &Blueprint, file: &Path, package: &Package) -> Result<()> {
    let read =
        import::open(file, Some(SourceFormat::Gguf)).and_then(|file| arch::blueprint(&*file));
    let stranger = |found: String| {
        let (path, expected) = (package.path.join("graph.json"), "what llama.cpp computes");
        Error::malformed(&path, "nodes", found, expected, "use --format safetensors")
    };
    let read = read.map_err(|error| stranger(error.to_string()))?;
    let json = |blueprint: &Blueprint| serde_json::to_value(&blueprint.graph).unwrap_or_default();
    let (found, expected_graph) = (json(&read), json(expected));
    if let Some(place) = difference(&found, &expected_graph, "graph") {
        return Err(stranger(format!(
            "{place}, which a GGUF file of {} can't say",
            expected.family
        )));
    }
    let computed = |blueprint: &Blueprint| -> Vec<f32> {
        let numbers = blueprint.tensors().filter_map(|plan| match &plan.data {
            Data::Computed(numbers) => Some(numbers.clone()),
            Data::Stored(_) | Data::Raw(_) => None,
        });
        numbers.flatten().collect()
    };
    let (found, expected) = (computed(&read), computed(expected));
    let same = found.len() == expected.len()
        && found.iter().zip(&expected).all(|(a, b)| near(f64::from(*a), f64::from(*b)));
    if same { Ok(()) } else { Err(stranger("RoPE frequencies that a GGUF file can't say".into())) }
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * a.abs().max(b.abs())
}

/// Where two values are not the same but for what 32 bits round.
fn difference(a: &Value, b: &Value, place: &str) -> Option<String> {
    match (a, b) {
        (Value::Object(a_fields), Value::Object(b_fields)) if a_fields.len() == b_fields.len() => {
            a_fields.iter().find_map(|(name, value)| {
                let place = format!("{place}.{name}");
                match b_fields.get(name) {
                    Some(other) => difference(value, other, &place),
                    None => Some(place),
                }
            })
        }
        (Value::Array(a_items), Value::Array(b_items)) if a_items.len() == b_items.len() => {
            let mut items = a_items.iter().zip(b_items).enumerate();
            items.find_map(|(number, (a, b))| difference(a, b, &format!("{place}[{number}]")))
        }
        (Value::Number(a_number), Value::Number(b_number)) => {
            let numbers = a_number.as_f64().zip(b_number.as_f64());
            let same = numbers.is_some_and(|(a, b)| near(a, b));
            (!same).then(|| format!("{place} = {b}"))
        }
        _ => (a != b).then(|| place.to_owned()),
    }
}

/// A model on its way into a file.
struct Model {
    architecture: &'static str,
    blueprint: Blueprint,
    inverse: Inverse,
    header: Vec<u8>,
    places: Vec<Place>,
    /// Vectors of RoPE's, and where they lie.
    factors: Vec<(u64, Vec<f32>)>,
    end: u64,
    notes: Vec<String>,
}

impl Model {
    fn new(package: &Package, dtype: Dtype) -> Result<Self> {
        let fields = hyperparameters(package)?;
        let file = package.path.join("hyperparameters.json");
        let words = arch::in_gguf(&file, &fields)?;
        let InGguf { architecture, blueprint, keys, factors, notes: computed } = words;
        let inverse = Inverse::new(package, &blueprint)?;
        let mut pairs = Pairs::default();
        pairs.add("general.architecture", architecture);
        pairs.add("general.name", package.metadata.name.as_str());
        keys.iter().for_each(|(key, value)| pairs.add(key, value.clone()));
        // Tells a file of these weights from one of others with the same shape.
        let crcs: Vec<_> = package.index.tensors.iter().flat_map(|t| t.crc32c.bytes()).collect();
        pairs.add("omex.weights_crc32c", crc32c::crc32c(&crcs));
        let sorts = blueprint.graph.outputs.iter().any(|output| output.name == CLASSES);
        let mut notes = add_texts(package, &mut pairs)?;
        if let Some(settings) = package.embedding.as_ref().filter(|_| !sorts) {
            notes.extend(add_pooling(settings, architecture, &mut pairs));
        }
        notes.extend(computed.into_iter().map(str::to_owned));
        let encodings = inverse.tensors.iter().map(|stored| encoding(stored, dtype));
        let mut tensors = Tensors::default();
        for (stored, encoding) in inverse.tensors.iter().zip(encodings.clone()) {
            tensors.add(&stored.name, &stored.dimensions, encoding);
        }
        for (name, factors) in &factors {
            tensors.add(name, &[factors.len() as u32], Encoding::F32);
        }
        let header = tensors.header(pairs);
        let start = header.len() as u64;
        let mut offsets = tensors.offsets.iter().map(|offset| start + offset);
        let places = encodings.zip(&mut offsets);
        let places = places.map(|(encoding, offset)| Place { offset, encoding }).collect();
        let factors =
            offsets.zip(factors).map(|(offset, (_, factors))| (offset, factors)).collect();
        let end = start + tensors.end;
        Ok(Self { architecture, blueprint, inverse, header, places, factors, end, notes })
    }
}

/// How a tensor is written: as the blocks that it has, or as floats.
fn encoding(stored: &Stored, dtype: Dtype) -> Encoding {
    let own = stored.format.map(rows::encoding);
    match (stored.format, own) {
        // llama.cpp wants vectors, and what is added number by number, in 32 bits.
        (Some(Precision::Vector), _) => Encoding::F32,
        _ if stored.dimensions.len() == 1 => Encoding::F32,
        (Some(Precision::Int8 | Precision::Int4 | Precision::F16), Some(own))
            if own.row_bytes(stored.columns).is_some() =>
        {
            own
        }
        _ => dtype.encoding(),
    }
}

/// Adds the tokenizer and the chat template; what of them is not as it was.
fn add_texts(package: &Package, pairs: &mut Pairs) -> Result<Vec<String>> {
    let (mut notes, size) = (vec![], package.graph.vocab_size);
    let spec = package.tokenizer_tables().map(|_| Spec::from_package(&package.path)).transpose()?;
    let written = spec.as_ref().and_then(|spec| spec.to_gguf(size as usize));
    if spec.is_some() && written.is_none() {
        notes.push("llama.cpp has no tokenizer of this kind: tokens are dummies".to_owned());
    }
    if written.as_ref().is_some_and(|(_, same)| !same) {
        notes.push(
            "the tokenizer has details that GGUF does not say: compare its tokens".to_owned(),
        );
    }
    let mut vocabulary = written.map_or_else(|| GgufVocabulary::of_dummies(size), |(of, _)| of);
    let tokens = &package.metadata.tokens;
    vocabulary.bos = vocabulary.bos.or(tokens.bos);
    let mut ends = tokens.eos.iter().copied();
    vocabulary.eos = ends.next().or(vocabulary.eos);
    pairs.vocabulary(&vocabulary);
    for (key, id) in ["eot", "eom"].into_iter().zip(ends) {
        pairs.add(&format!("tokenizer.ggml.{key}_token_id"), id);
    }
    if let Some(spec) = &spec {
        add_special(spec, &vocabulary.model, pairs);
    }
    for (name, template) in package.chat()?.into_iter().flat_map(|chat| chat.templates) {
        let key = "tokenizer.chat_template";
        let key = if name == DEFAULT_TEMPLATE { key.to_owned() } else { format!("{key}.{name}") };
        pairs.add(&key, template);
    }
    Ok(notes)
}

/// Adds the tokens of an encoder that are for something else than texts.
fn add_special(spec: &Spec, model: &str, pairs: &mut Pairs) {
    let [padding, mask] = match model {
        "bert" => ["[PAD]", "[MASK]"],
        "t5" => ["<pad>", "<mask>"],
        _ => return,
    };
    let [cls, sep] = [&spec.before, &spec.after].map(|ids| ids.first().copied());
    let [padding, mask] = [padding, mask].map(|text| spec.id_of(text));
    for (key, id) in [("cls", cls), ("seperator", sep), ("padding", padding), ("mask", mask)] {
        pairs.add(&format!("tokenizer.ggml.{key}_token_id"), id);
    }
}

/// Adds how vectors are pooled, or says that they are not.
fn add_pooling(
    settings: &EmbeddingSettings,
    architecture: &str,
    pairs: &mut Pairs,
) -> Option<String> {
    let pooling = match settings.pooling {
        Pooling::Mean => 1,
        Pooling::FirstToken => 2,
        Pooling::LastToken => 3,
        Pooling::MeanSqrtLength | Pooling::Max => {
            return Some("llama.cpp has no such pooling: vectors are not those".to_owned());
        }
    };
    pairs.add(&format!("{architecture}.pooling_type"), pooling);
    None
}

/// What the header says of tensors.
#[derive(Default)]
struct Tensors {
    infos: Vec<u8>,
    /// Where each begins behind the header.
    offsets: Vec<u64>,
    end: u64,
}

impl Tensors {
    fn add(&mut self, name: &str, dimensions: &[u32], encoding: Encoding) {
        put_string(&mut self.infos, name.as_bytes());
        self.infos.extend((dimensions.len() as u32).to_le_bytes());
        let innermost_first = dimensions.iter().rev();
        self.infos.extend(innermost_first.flat_map(|d| u64::from(*d).to_le_bytes()));
        self.infos.extend(kind(encoding).to_le_bytes());
        self.infos.extend(self.end.to_le_bytes());
        self.offsets.push(self.end);
        let (columns, rows) = dimensions.split_last().map_or((0, 1), |(columns, rest)| {
            (*columns, rest.iter().map(|size| u64::from(*size)).product())
        });
        let bytes: u64 = encoding.row_bytes(columns).unwrap_or(0) * rows;
        self.end += bytes.next_multiple_of(ALIGNMENT);
    }

    fn header(&self, pairs: Pairs) -> Vec<u8> {
        let mut header = b"GGUF".to_vec();
        header.extend(3u32.to_le_bytes());
        header.extend((self.offsets.len() as u64).to_le_bytes());
        header.extend(pairs.count.to_le_bytes());
        header.extend(pairs.bytes);
        header.extend(&self.infos);
        header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
        header
    }
}

/// ggml's number of the type.
fn kind(encoding: Encoding) -> u32 {
    match encoding {
        Encoding::F16 => 1,
        Encoding::Bf16 => 30,
        Encoding::Q4_0 => 2,
        Encoding::Q8_0 => 8,
        _ => 0,
    }
}
