//! Other programs' models into packages.

use crate::graph::{Activation, Graph, KvShape, Node, ValueRef, ValueShape};
use crate::import::{Checkpoint, Encoding, LlamaConfig, TokenizerSource};
use crate::package::{
    Architecture, FileEntry, Metadata, OMEX_VERSION, Package, TensorEntry, TokenIds, WeightIndex,
};
use crate::quantize::{Compensation, Group, Precision, quantize, write_panel};
use crate::session::{self, Session};
use crate::tokenizer::Spec;
use crate::{Error, Result, calibrate, dispatch, interrupt};
use omex_core::quant::{Format, GROUP, PANEL};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// How a model is converted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'o> {
    /// Precision of the matrices. Without one, those that are quantized already stay as they are,
    /// and the others become int8.
    pub precision: Option<Precision>,
    /// A tokenizer to use instead of the model's own.
    pub tokenizer: Option<&'o Path>,
    /// How rounding to int4 is calibrated.
    pub calibration: Calibration<'o>,
    /// Replaces an existing package.
    pub force: bool,
}

/// What a model is shown to learn how its weights are best rounded to int4 (GPTQ).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Calibration<'o> {
    /// Texts that it writes itself, up to [`SELF_CALIBRATED`] parameters; larger models are
    /// rounded plainly.
    #[default]
    Auto,
    /// Nothing: weights are rounded plainly.
    Off,
    /// A text file.
    Text(&'o Path),
}

/// The most parameters of a model that is calibrated without being asked: it takes seconds.
pub const SELF_CALIBRATED: u64 = 20_000_000;

/// Converts a checkpoint into a package at `output`, which appears whole or not at all.
/// `progress` is called with the rows done and the rows in all.
///
/// # Errors
/// A source that can't be read, an output that exists or can't be written, Ctrl-C.
pub fn convert(
    source: &dyn Checkpoint,
    source_format: &str,
    name: &str,
    output: &Path,
    options: &Options<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Package> {
    if output.exists() && !options.force {
        let message = format!("{}: exists already; use --force to replace it", output.display());
        return Err(Error::Usage(message));
    }
    let folder = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
    let temporary = tempfile::Builder::new()
        .prefix(".omex-convert-")
        .tempdir_in(folder)
        .map_err(|e| Error::io(folder, "write into", e))?;
    let job = Job { source, source_format, name, options };
    let layout = WeightLayout::new(source, options.precision)?;
    let compensations = job.calibrate(&layout, temporary.path())?;
    let path = temporary.path().join("package");
    job.write(&layout, &compensations, &path, progress)?;
    Package::open(&path)?;
    if output.exists() {
        replace(output)?;
    }
    std::fs::rename(&path, output).map_err(|e| Error::io(output, "create", e))?;
    Package::open(output)
}

/// A conversion under way.
struct Job<'j> {
    source: &'j dyn Checkpoint,
    source_format: &'j str,
    name: &'j str,
    options: &'j Options<'j>,
}

impl Job<'_> {
    /// Writes a package.
    fn write(
        &self,
        layout: &WeightLayout,
        compensations: &Compensations,
        path: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        if let Some(spec) = tokenizer(self.source, self.options.tokenizer)? {
            spec.write_package(&path.join("tokenizer"))?;
        }
        let index = layout.write(self.source, compensations, &path.join("weights"), progress)?;
        let metadata = metadata(self.source, self.source_format, self.name, layout);
        write_json(&path.join("graph.json"), &graph(self.source.config(), layout))?;
        write_json(&path.join("metadata.json"), &metadata)?;
        write_json(&path.join("weights/quantization.json"), &index)
    }

    /// Runs the model at int8 to see what its int4 matrices will be multiplied with.
    fn calibrate(&self, layout: &WeightLayout, folder: &Path) -> Result<Compensations> {
        let parameters = layout.parameters(self.source);
        let small = parameters <= SELF_CALIBRATED;
        let wanted = match self.options.calibration {
            Calibration::Off => false,
            Calibration::Auto => small,
            Calibration::Text(_) => true,
        };
        if !wanted || !layout.rounds_to_int4(self.source) {
            return Ok(Compensations::new());
        }
        let path = folder.join("calibration");
        let layout = WeightLayout::new(self.source, Some(Precision::Int8))?;
        self.write(&layout, &Compensations::new(), &path, &mut |_, _| {})?;
        let context = self.source.config().context_length.min(512);
        let options = session::Options { context: Some(context), ..Default::default() };
        let mut session = Session::open(&path, &options)?;
        let ids = match self.options.calibration {
            Calibration::Text(file) => {
                let text = std::fs::read_to_string(file).map_err(|e| Error::io(file, "read", e))?;
                Some(session.encode(&text)?)
            }
            _ => None,
        };
        let first = self.source.config().bos.unwrap_or(0);
        let hessians = calibrate::calibrate(&mut session, ids.as_deref(), first)?;
        let names = Package::open(&path)?.compiled.names;
        std::fs::remove_dir_all(&path).map_err(|e| Error::io(&path, "remove", e))?;
        let compensations = hessians.into_iter().filter_map(|(tensor, hessian)| {
            Some((names.get(tensor as usize)?.clone(), hessian.compensation()?))
        });
        Ok(compensations.collect())
    }
}

/// How errors are made up for, by the tensor's name.
type Compensations = BTreeMap<String, Compensation>;

/// Removes the package that a new one replaces; anything else is left alone.
fn replace(output: &Path) -> Result<()> {
    if !output.join("metadata.json").is_file() {
        let message = format!("{}: is not a package: it is not replaced", output.display());
        return Err(Error::Usage(message));
    }
    std::fs::remove_dir_all(output).map_err(|e| Error::io(output, "remove", e))
}

fn tokenizer(source: &dyn Checkpoint, given: Option<&Path>) -> Result<Option<Spec>> {
    let vocabulary = source.config().vocab_size as usize;
    let from_file = |path: &Path| match path.extension().and_then(|e| e.to_str()) {
        Some("bin") => Spec::from_llama2c(path, vocabulary),
        _ => Spec::from_hf_json(path),
    };
    let spec = match (given, source.tokenizer()) {
        (Some(path), _) => from_file(path)?,
        (None, Some(TokenizerSource::HuggingFace(path) | TokenizerSource::Llama2c(path))) => from_file(path)?,
        (None, Some(TokenizerSource::Gguf(vocabulary))) => {
            Spec::from_gguf(Path::new("tokenizer.ggml"), vocabulary.clone())?
        }
        (None, None) => return Ok(None),
    };
    if spec.pieces.len() > vocabulary {
        let found = format!("{} tokens", spec.pieces.len());
        let expected = format!("at most the model's {vocabulary}");
        return Err(Error::malformed(&spec.origin, "vocabulary", found, expected, "give the model's own tokenizer"));
    }
    Ok(Some(spec))
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::io(path, "write", e.into()))?;
    text.push('\n');
    std::fs::write(path, text).map_err(|e| Error::io(path, "write", e))
}

fn metadata(source: &dyn Checkpoint, source_format: &str, name: &str, layout: &WeightLayout) -> Metadata {
    let config = source.config();
    let parameters = layout.parameters(source);
    let mut bytes: BTreeMap<Format, u64> = BTreeMap::new();
    for tensor in layout.files.iter().flatten().filter(|t| t.format != Format::Vector) {
        *bytes.entry(tensor.format).or_default() += u64::from(tensor.rows) * u64::from(tensor.columns);
    }
    let mut formats: Vec<_> = bytes.into_iter().collect();
    formats.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let formats: Vec<_> = formats.iter().map(|(f, _)| format!("{f:?}").to_lowercase()).collect();
    Metadata {
        omex_version: OMEX_VERSION.into(),
        name: name.into(),
        model_architecture: Architecture {
            family: "llama".into(),
            parameters,
            quantization: formats.join("+"),
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            layers: config.layers,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_width: config.head_dim,
        },
        source_format: source_format.into(),
        tokens: TokenIds { bos: config.bos, eos: config.eos.clone() },
    }
}

/// A tensor of the package: rows of one or several tensors of the source, one after another.
struct Planned {
    name: String,
    sources: Vec<String>,
    rows: u32,
    columns: u32,
    format: Format,
}

impl Planned {
    fn parameters(&self, source: &dyn Checkpoint) -> u64 {
        let sources = self.sources.iter().filter_map(|name| source.tensor(name));
        sources.map(|t| u64::from(t.rows) * u64::from(t.columns)).sum()
    }
}

/// The tensors of each file, in the order of use.
struct WeightLayout {
    files: Vec<Vec<Planned>>,
    /// In each layer: query, key and value are one matrix; gate and up are one.
    fused: Vec<(bool, bool)>,
}

const FREQUENCIES: &str = "rotary.frequencies";

impl WeightLayout {
    fn new(source: &dyn Checkpoint, precision: Option<Precision>) -> Result<Self> {
        let config = source.config();
        let mut layout = Self { files: vec![], fused: vec![] };
        let tensor = |name: &str, sources: &[String]| plan_tensor(source, precision, name, sources);
        // Fusing must not differ between layers, which share one subgraph.
        let alike = |names: &[&str]| {
            (0..config.layers).all(|l| {
                let formats = names.iter().map(|n| format_of(source, precision, &source_name(l, n)));
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
                for (name, source) in ["attention.query", "attention.key", "attention.value"].iter().zip(QKV) {
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
        };
        if let Some(first) = layout.files.first_mut() {
            first.insert(0, frequencies);
        }
        Ok(layout)
    }

    fn parameters(&self, source: &dyn Checkpoint) -> u64 {
        self.files.iter().flatten().map(|t| t.parameters(source)).sum()
    }

    /// True if some matrix is not int4 yet, and will be.
    fn rounds_to_int4(&self, source: &dyn Checkpoint) -> bool {
        let mut int4 = self.files.iter().flatten().filter(|t| t.format == Format::Int4);
        int4.any(|t| {
            t.sources.iter().any(|s| source.tensor(s).is_some_and(|s| s.encoding != Encoding::Q4_0))
        })
    }

    /// Writes the weights and returns their index.
    fn write(
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
        let mut index = WeightIndex { format: 1, page_size: self.page_size(), ..Default::default() };
        for (number, tensors) in self.files.iter().enumerate() {
            let name = format!("layer_{number}.bin");
            let path = folder.join(&name);
            let file = File::create(&path).map_err(|e| Error::io(&path, "create", e))?;
            let page_size = index.page_size as usize;
            let mut writer = PageWriter {
                path: &path,
                file: BufWriter::new(file),
                crc32c,
                page: Vec::with_capacity(page_size),
                page_size,
                checksums: String::new(),
                length: 0,
            };
            for tensor in tensors {
                writer.align(ALIGNMENT)?;
                let offset = writer.length;
                let mut crc = 0;
                let compensation = compensations.get(&tensor.name).filter(|_| tensor.format == Format::Int4);
                write_tensor(source, tensor, compensation, &mut |bytes, done| {
                    crc = crc32c(crc, bytes);
                    writer.put(bytes)?;
                    rows += done;
                    progress(rows, total);
                    interrupt::check()
                })?;
                index.tensors.push(TensorEntry {
                    name: tensor.name.clone(),
                    file: name.clone(),
                    offset,
                    length: writer.length - offset,
                    shape: [tensor.rows, tensor.columns],
                    format: precision_of(tensor.format),
                    crc32c: format!("{crc:08x}"),
                });
            }
            writer.align(page_size as u64)?;
            let (length, page_crc32c) = writer.finish()?;
            index.files.push(FileEntry { name, length, page_crc32c });
        }
        Ok(index)
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
    let (rows, columns) = (infos.iter().map(|i| i.rows).sum(), infos.first().map_or(0, |i| i.columns));
    let is_vector = name.ends_with("norm");
    let first = sources.first().and_then(|s| format_of(source, precision, s));
    let format = if is_vector { Format::Vector } else { first.unwrap_or(Format::Int8) };
    Ok(Planned { name: name.into(), sources: sources.to_vec(), rows, columns, format })
}

/// Rows that are read before they are quantized together.
const BATCH: usize = 32 * PANEL;

/// Hands the bytes of a tensor to `put`, some panels at a time, with the number of rows in them.
fn write_tensor(
    source: &dyn Checkpoint,
    tensor: &Planned,
    compensation: Option<&Compensation>,
    put: &mut dyn FnMut(&[u8], u64) -> Result<()>,
) -> Result<()> {
    if tensor.sources.is_empty() {
        let frequencies = source.config().rope_frequencies.iter();
        return put(&frequencies.flat_map(|f| f.to_le_bytes()).collect::<Vec<_>>(), 1);
    }
    if tensor.format == Format::Vector {
        let mut row = vec![0.0; tensor.columns as usize];
        source.read_row(&tensor.sources[0], 0, &mut row)?;
        return put(&row.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>(), 1);
    }
    let rows = tensor.sources.iter().flat_map(|name| {
        (0..source.tensor(name).map_or(0, |t| t.rows)).map(move |row| (name.as_str(), row))
    });
    let rows: Vec<_> = rows.collect();
    for batch in rows.chunks(BATCH) {
        let read = batch.iter().map(|(name, row)| Row::read(source, name, *row, tensor));
        let read = read.collect::<Result<Vec<_>>>()?;
        put(&encode(&read, tensor, compensation), batch.len() as u64)?;
    }
    Ok(())
}

/// A row as it was read.
enum Row {
    /// Floats, to be quantized.
    Floats(Vec<f32>),
    /// Blocks that the format can take over.
    Groups(Vec<Group>),
}

impl Row {
    fn read(source: &dyn Checkpoint, name: &str, row: u32, tensor: &Planned) -> Result<Self> {
        let encoding = source.tensor(name).map(|t| t.encoding);
        let same = matches!(
            (encoding, tensor.format),
            (Some(Encoding::Q8_0), Format::Int8) | (Some(Encoding::Q4_0), Format::Int4)
        );
        if same {
            let mut bytes = vec![];
            source.read_row_bytes(name, row, &mut bytes)?;
            return Ok(Self::Groups(ggml_groups(&bytes, tensor.format)));
        }
        let mut floats = vec![0.0; tensor.columns as usize];
        source.read_row(name, row, &mut floats)?;
        Ok(Self::Floats(floats))
    }

    fn groups(&self, format: Format, compensation: Option<&Compensation>) -> Vec<Group> {
        match (self, compensation) {
            (Self::Groups(groups), _) => groups.clone(),
            (Self::Floats(floats), Some(compensation)) => compensation.quantize_row(floats),
            (Self::Floats(floats), None) => {
                let padded = floats.chunks(GROUP).map(|chunk| {
                    let mut group = [0.0; GROUP];
                    group[..chunk.len()].copy_from_slice(chunk);
                    group
                });
                padded.map(|group| quantize(format, &group)).collect()
            }
        }
    }
}

/// Blocks of Q8_0 or Q4_0: an f16 scale, then the integers.
fn ggml_groups(bytes: &[u8], format: Format) -> Vec<Group> {
    let scale = |block: &[u8]| half::f16::from_le_bytes([block[0], block[1]]);
    let mut q = [0i8; GROUP];
    match format {
        Format::Int8 => bytes
            .chunks_exact(2 + GROUP)
            .map(|block| {
                q.iter_mut().zip(&block[2..]).for_each(|(q, b)| *q = b.cast_signed());
                Group::Integers(scale(block), q)
            })
            .collect(),
        _ => bytes
            .chunks_exact(2 + GROUP / 2)
            .map(|block| {
                let (low, high) = q.split_at_mut(GROUP / 2);
                for ((low, high), b) in low.iter_mut().zip(high).zip(&block[2..]) {
                    (*low, *high) = ((b & 15) as i8 - 8, (b >> 4) as i8 - 8);
                }
                Group::Integers(scale(block), q)
            })
            .collect(),
    }
}

/// Quantizes rows and lays them into panels, on all cores.
fn encode(rows: &[Row], tensor: &Planned, compensation: Option<&Compensation>) -> Vec<u8> {
    let panels: Vec<_> = rows.chunks(PANEL).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let encode = |panels: &[&[Row]]| {
        let mut bytes = vec![];
        for panel in panels {
            let groups: Vec<_> = panel.iter().map(|row| row.groups(tensor.format, compensation)).collect();
            write_panel(tensor.format, &groups, &mut bytes);
        }
        bytes
    };
    let share = panels.len().div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = panels.chunks(share).map(|panels| scope.spawn(move || encode(panels))).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
    })
}

/// A file of weights under way.
struct PageWriter<'p> {
    path: &'p Path,
    file: BufWriter<File>,
    crc32c: fn(u32, &[u8]) -> u32,
    page: Vec<u8>,
    page_size: usize,
    checksums: String,
    length: u64,
}

impl PageWriter<'_> {
    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.page_size - self.page.len()));
            self.page.extend_from_slice(now);
            bytes = later;
            if self.page.len() == self.page_size {
                let crc = (self.crc32c)(0, &self.page);
                self.checksums.push_str(&format!("{crc:08x}"));
                self.file.write_all(&self.page).map_err(|e| Error::io(self.path, "write", e))?;
                self.page.clear();
            }
        }
        Ok(())
    }

    fn align(&mut self, to: u64) -> Result<()> {
        let padding = self.length.next_multiple_of(to) - self.length;
        self.put(&vec![0; padding as usize])
    }

    fn finish(self) -> Result<(u64, String)> {
        let file = self.file.into_inner().map_err(|e| Error::io(self.path, "write", e.into_error()))?;
        file.sync_all().map_err(|e| Error::io(self.path, "write", e))?;
        Ok((self.length, self.checksums))
    }
}

/// The graph of a Llama-family model.
fn graph(config: &LlamaConfig, layout: &WeightLayout) -> Graph {
    let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let epsilon = config.rms_norm_epsilon;
    let (fused_qkv, fused_gate_up) = layout.fused.first().copied().unwrap_or((true, true));
    let all = ValueRef::all;
    let (query, key, value) = (
        ValueRef::rows("qkv", 0, q),
        ValueRef::rows("qkv", q, q + kv),
        ValueRef::rows("qkv", q + kv, q + 2 * kv),
    );
    let (gate, up) = (ValueRef::rows("gate_up", 0, wide), ValueRef::rows("gate_up", wide, 2 * wide));
    let norm = |weight: &str, input: &str, output: &str| Node::RmsNorm {
        weight: weight.into(),
        epsilon,
        input: all(input),
        output: all(output),
    };
    let matmul = |weight: &str, input: &str, output: &ValueRef, accumulate| Node::MatMul {
        weight: weight.into(),
        input: all(input),
        output: output.clone(),
        accumulate,
    };
    let rotary = |value: &ValueRef| Node::Rotary {
        angles: all("angles"),
        value: value.clone(),
        head_width: config.head_dim,
    };
    let mut block = vec![norm("layers.{layer}.attention_norm", "residual", "normed")];
    if fused_qkv {
        block.push(matmul("layers.{layer}.attention.qkv", "normed", &all("qkv"), false));
    } else {
        block.push(matmul("layers.{layer}.attention.query", "normed", &query, false));
        block.push(matmul("layers.{layer}.attention.key", "normed", &key, false));
        block.push(matmul("layers.{layer}.attention.value", "normed", &value, false));
    }
    block.extend([rotary(&query), rotary(&key)]);
    block.push(Node::Attention {
        cache: 0,
        query_heads: config.heads,
        kv_heads: config.kv_heads,
        head_width: config.head_dim,
        scale: 1.0 / (config.head_dim as f32).sqrt(),
        query,
        key,
        value,
        angles: all("angles"),
        output: all("attended"),
    });
    block.push(matmul("layers.{layer}.attention.output", "attended", &all("residual"), true));
    block.push(norm("layers.{layer}.feed_forward_norm", "residual", "normed"));
    if fused_gate_up {
        block.push(matmul("layers.{layer}.feed_forward.gate_up", "normed", &all("gate_up"), false));
    } else {
        block.push(matmul("layers.{layer}.feed_forward.gate", "normed", &gate, false));
        block.push(matmul("layers.{layer}.feed_forward.up", "normed", &up, false));
    }
    block.push(Node::Gated { activation: Activation::Silu, gate, up, output: all("gated") });
    block.push(matmul("layers.{layer}.feed_forward.down", "gated", &all("residual"), true));
    let output = if config.tied_embeddings { "embedding" } else { "output" };
    let nodes = vec![
        Node::RotaryAngles { frequencies: FREQUENCIES.into(), output: all("angles") },
        Node::Embed { weight: "embedding".into(), output: all("residual") },
        Node::Repeat { subgraph: "block".into(), layers: config.layers },
        Node::Select { input: all("residual"), output: all("selected") },
        norm("norm", "selected", "final"),
        matmul(output, "final", &all("logits"), false),
    ];
    let shape = |width, selected| ValueShape { width, selected };
    let values = [
        ("angles", shape(2 * config.head_dim, false)),
        ("residual", shape(hidden, false)),
        ("normed", shape(hidden, false)),
        ("qkv", shape(q + 2 * kv, false)),
        ("attended", shape(q, false)),
        ("gate_up", shape(2 * wide, false)),
        ("gated", shape(wide, false)),
        ("selected", shape(hidden, true)),
        ("final", shape(hidden, true)),
        ("logits", shape(config.vocab_size, true)),
    ];
    Graph {
        format: 1,
        vocab_size: config.vocab_size,
        context_length: config.context_length,
        kv: KvShape { caches: config.layers, width: kv },
        logits: "logits".into(),
        values: values.map(|(name, shape)| (name.to_owned(), shape)).into(),
        subgraphs: [("block".to_owned(), block)].into(),
        nodes,
    }
}
