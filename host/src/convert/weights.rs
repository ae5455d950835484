//! Which tensors a package has, in which precision and in which file; and writing them.

use super::{Compensations, rows::write_tensor};
use crate::import::{Checkpoint, Encoding};
use crate::package::{FileEntry, TensorEntry, WeightIndex};
use crate::page_writer::PageWriter;
use crate::quantize::Precision;
use crate::{Error, Result, dispatch, interrupt};
use omex_core::quant::Format;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// A tensor of the package: rows of one or several tensors of the source, one after another.
#[derive(Clone)]
pub(super) struct Planned {
    pub(super) name: String,
    pub(super) sources: Vec<String>,
    pub(super) rows: u32,
    pub(super) columns: u32,
    pub(super) format: Format,
    /// 0 for what is nearest to the source, 1 for what is nearest to what that got wrong.
    pub(super) plane: u32,
}

impl Planned {
    fn parameters(&self, source: &dyn Checkpoint) -> u64 {
        let sources = self.sources.iter().filter_map(|name| source.tensor(name));
        sources.map(|t| u64::from(t.rows) * u64::from(t.columns)).sum()
    }

    /// True if a row of the source is not exactly what int4 can hold.
    fn is_rounded_to_int4(&self, source: &dyn Checkpoint) -> bool {
        let exact = |s: &String| source.tensor(s).is_none_or(|s| s.encoding == Encoding::Q4_0);
        self.format == Format::Int4 && !self.sources.iter().all(exact)
    }
}

/// The tensors of each file, in the order of use.
pub(super) struct WeightLayout {
    pub(super) files: Vec<Vec<Planned>>,
    /// In each layer: query, key and value are one matrix; gate and up are one.
    pub(super) fused: Vec<(bool, bool)>,
}

pub(crate) const FREQUENCIES: &str = "rotary.frequencies";

/// Bytes written at once: the operating system keeps them in one piece, so that a map of the file
/// needs few entries of the page tables. Decoding straight from the page cache is half as fast again.
const WRITE_BYTES: usize = 4 << 20;

impl WeightLayout {
    pub(super) fn new(
        source: &dyn Checkpoint,
        precision: Option<Precision>,
        residual: bool,
    ) -> Result<Self> {
        let config = source.config();
        let mut layout = Self { files: vec![], fused: vec![] };
        let tensor = |name: &str, sources: &[String]| plan_tensor(source, precision, name, sources);
        // Fusing must not differ between layers, which share one subgraph.
        let alike = |names: &[&str]| {
            (0..config.layers).all(|l| {
                let formats =
                    names.iter().map(|n| format_of(source, precision, &source_name(l, n)));
                let formats: Vec<_> = formats.collect();
                formats.windows(2).all(|pair| pair[0] == pair[1])
            })
        };
        let fused = (alike(&QKV), alike(&GATE_UP));
        for l in 0..config.layers {
            let mut file = vec![];
            let mut add = |name: &str, sources: &[&str]| -> Result<()> {
                let sources: Vec<_> = sources.iter().map(|s| source_name(l, s)).collect();
                file.push(tensor(&format!("layers.{l}.{name}"), &sources)?);
                Ok(())
            };
            add("attention_norm", &["input_layernorm"])?;
            if fused.0 {
                add("attention.qkv", &QKV)?;
            } else {
                for (name, source) in
                    ["attention.query", "attention.key", "attention.value"].iter().zip(QKV)
                {
                    add(name, &[source])?;
                }
            }
            add("attention.output", &["self_attn.o_proj"])?;
            add("feed_forward_norm", &["post_attention_layernorm"])?;
            if fused.1 {
                add("feed_forward.gate_up", &GATE_UP)?;
            } else {
                add("feed_forward.gate", &GATE_UP[..1])?;
                add("feed_forward.up", &GATE_UP[1..])?;
            }
            add("feed_forward.down", &["mlp.down_proj"])?;
            layout.files.push(file);
            layout.fused.push(fused);
        }
        let mut last = vec![tensor("norm", &["model.norm.weight".to_owned()])?];
        last.push(tensor("embedding", &[EMBEDDING.to_owned()])?);
        if !config.tied_embeddings {
            last.push(tensor("output", &[OUTPUT.to_owned()])?);
        }
        layout.files.push(last);
        let frequencies = Planned {
            name: FREQUENCIES.into(),
            sources: vec![],
            rows: 1,
            columns: config.head_dim / 2,
            format: Format::Vector,
            plane: 0,
        };
        if let Some(first) = layout.files.first_mut() {
            first.insert(0, frequencies);
        }
        if residual {
            layout.add_residuals(source);
        }
        Ok(layout)
    }

    /// Puts a residual plane behind every int4 matrix of the layers that some layer has to round.
    /// The layers share one subgraph, so all get one or none.
    fn add_residuals(&mut self, source: &dyn Checkpoint) {
        // What follows on "layers.0." in the name.
        let part = |t: &Planned| t.name.splitn(3, '.').nth(2).map(str::to_owned);
        let rounded = self.files.iter().flatten().filter(|t| t.is_rounded_to_int4(source));
        let parts: BTreeSet<_> = rounded.filter_map(part).collect();
        for file in &mut self.files {
            let planes = file.drain(..).flat_map(|base| {
                let rounded = base.format == Format::Int4
                    && part(&base).is_some_and(|part| parts.contains(&part));
                let residual = rounded.then(|| Planned { plane: 1, ..base.clone() });
                [Some(base), residual].into_iter().flatten()
            });
            *file = planes.collect();
        }
    }

    pub(super) fn parameters(&self, source: &dyn Checkpoint) -> u64 {
        let bases = self.files.iter().flatten().filter(|t| t.plane == 0);
        bases.map(|t| t.parameters(source)).sum()
    }

    /// True if some matrix is not int4 yet, and will be.
    pub(super) fn rounds_to_int4(&self, source: &dyn Checkpoint) -> bool {
        self.files.iter().flatten().any(|t| t.is_rounded_to_int4(source))
    }

    /// Writes the weights and returns their index.
    pub(super) fn write(
        &self,
        source: &dyn Checkpoint,
        compensations: &Compensations,
        folder: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<WeightIndex> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
        let crc32c = dispatch::kernels()?.crc32c;
        let total = self.files.iter().flatten().map(|t| u64::from(t.rows)).sum();
        let mut rows = 0;
        let mut index = self.index();
        let mut entries = index.tensors.iter_mut();
        for (file, tensors) in index.files.iter_mut().zip(&self.files) {
            let path = folder.join(&file.name);
            let io = |e| Error::io(&path, "write", e);
            let out = File::create(&path).map_err(|e| Error::io(&path, "create", e))?;
            let out = BufWriter::with_capacity(WRITE_BYTES, out);
            let mut writer = PageWriter::new(out, index.page_size, crc32c);
            for (tensor, entry) in tensors.iter().zip(&mut entries) {
                writer.align(ALIGNMENT).map_err(io)?;
                let mut crc = 0;
                let compensation =
                    compensations.get(&tensor.name).filter(|_| tensor.format == Format::Int4);
                write_tensor(source, tensor, compensation, &mut |bytes, done| {
                    crc = crc32c(crc, bytes);
                    writer.write(bytes).map_err(io)?;
                    rows += done;
                    progress(rows, total);
                    interrupt::check()
                })?;
                entry.crc32c = format!("{crc:08x}");
            }
            writer.align(u64::from(index.page_size)).map_err(io)?;
            let (out, checksums) = writer.finish().map_err(io)?;
            out.into_inner().map_err(|e| io(e.into_error()))?.sync_all().map_err(io)?;
            file.page_crc32c = checksums.iter().map(|crc| format!("{crc:08x}")).collect();
        }
        Ok(index)
    }

    /// Where every tensor will lie; checksums are zeros.
    pub(super) fn index(&self) -> WeightIndex {
        let page_size = self.page_size();
        let mut index = WeightIndex { format: 1, page_size, ..Default::default() };
        for (number, tensors) in self.files.iter().enumerate() {
            let (name, mut end) = (format!("layer_{number}.bin"), 0u64);
            for tensor in tensors {
                let offset = end.next_multiple_of(ALIGNMENT);
                let length = tensor.format.tensor_bytes(tensor.rows, tensor.columns);
                end = offset + length;
                index.tensors.push(TensorEntry {
                    name: tensor.name.clone(),
                    plane: tensor.plane,
                    file: name.clone(),
                    offset,
                    length,
                    shape: [tensor.rows, tensor.columns],
                    format: precision_of(tensor.format),
                    crc32c: NO_CRC.into(),
                });
            }
            let length = end.next_multiple_of(u64::from(page_size));
            let page_crc32c = NO_CRC.repeat((length / u64::from(page_size)) as usize);
            index.files.push(FileEntry { name, length, page_crc32c });
        }
        index
    }

    /// Pages large enough for fast reads, and so small that filling up the last one of each file
    /// costs little.
    fn page_size(&self) -> u32 {
        let bytes = |t: &Planned| t.format.tensor_bytes(t.rows, t.columns);
        let smallest = self.files.iter().map(|file| file.iter().map(bytes).sum::<u64>()).min();
        let wanted = (smallest.unwrap_or(0) / 32).next_power_of_two();
        wanted.clamp(4096, 64 << 10) as u32
    }
}

/// A checksum that is still to be computed.
const NO_CRC: &str = "00000000";

/// Tensors begin on cache lines.
const ALIGNMENT: u64 = 64;
const QKV: [&str; 3] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
const GATE_UP: [&str; 2] = ["mlp.gate_proj", "mlp.up_proj"];

fn source_name(layer: u32, name: &str) -> String {
    format!("model.layers.{layer}.{name}.weight")
}

fn precision_of(format: Format) -> Precision {
    match format {
        Format::Vector => Precision::Vector,
        Format::F32 => Precision::F32,
        Format::F16 => Precision::F16,
        Format::Int8 => Precision::Int8,
        Format::Int4 => Precision::Int4,
    }
}

/// The format that a matrix of the source gets. The first and the last matrix cost the most when
/// they are rounded to int4: they become int8 then.
fn format_of(source: &dyn Checkpoint, precision: Option<Precision>, name: &str) -> Option<Format> {
    let encoding = source.tensor(name)?.encoding;
    let outermost = matches!(name, EMBEDDING | OUTPUT) && encoding != Encoding::Q4_0;
    Some(match precision {
        None => kept_format(encoding),
        Some(Precision::Int4) if outermost => Format::Int8,
        Some(precision) => precision.into(),
    })
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const OUTPUT: &str = "lm_head.weight";

/// The format that takes the numbers of an encoding over as they are, or else int8.
fn kept_format(encoding: Encoding) -> Format {
    match encoding {
        Encoding::Q4_0 => Format::Int4,
        _ => Format::Int8,
    }
}

fn plan_tensor(
    source: &dyn Checkpoint,
    precision: Option<Precision>,
    name: &str,
    sources: &[String],
) -> Result<Planned> {
    let missing = |name: &str| Error::Usage(format!("the model has no tensor {name}"));
    let infos = sources.iter().map(|s| source.tensor(s).ok_or_else(|| missing(s)));
    let infos = infos.collect::<Result<Vec<_>>>()?;
    let (rows, columns) =
        (infos.iter().map(|i| i.rows).sum(), infos.first().map_or(0, |i| i.columns));
    let is_vector = name.ends_with("norm");
    let first = sources.first().and_then(|s| format_of(source, precision, s));
    let format = if is_vector { Format::Vector } else { first.unwrap_or(Format::Int8) };
    Ok(Planned { name: name.into(), sources: sources.to_vec(), rows, columns, format, plane: 0 })
}
