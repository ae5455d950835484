//! A model opened and planned: everything that an engine borrows.

use crate::compile::Compiled;
use crate::convert::outline;
use crate::import::hugging_face;
use crate::package::{CONVERT_AGAIN, Package, WeightIndex, steadily};
use crate::pager::{
    MappedPager, PageSource, Progress, Reader, Space, StreamPager, Tiles, open_reader,
};
use crate::plan::{
    Kv, KvSpill, MemoryPlan, ModelSize, Request, Residency, RunPrecision, plan, tiles,
};
use crate::pool::Pool;
use crate::pressure::PressureWatch;
use crate::profile::cache_folder;
use crate::quantize::Precision;
use crate::spill::{Spill, SpillFile};
use crate::synth::RandomModel;
use crate::trace::{Recorder, TracingReader};
use crate::{Error, Result, dispatch, tokenizer};
use omex_core::arena::Plan;
use omex_core::engine::{Engine, Model};
use omex_core::error::{LoadError, RunError};
use omex_core::program::Program;
use omex_core::simd::Kernels;
use omex_core::token::{self, Decoder, Tokenizer};
use omex_hal::Pager;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

/// How a model is to be run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Bytes that may be used; if `None`, all, or what is available where the plan needs more.
    pub memory: Option<u64>,
    /// Positions of the KV cache; the planner chooses if `None`. An image was packed for some.
    pub context: Option<u32>,
    /// How keys and values are stored; the planner chooses if `None`. An image was packed for one.
    pub kv: Option<Kv>,
    /// Threads; as many as the machine has cores if `None`.
    pub threads: Option<usize>,
    /// Logits of this many tokens are wanted in one pass; 0 counts as 1.
    pub logit_columns: u32,
    /// Texts that are under way at once; 0 counts as 1. An image is for one.
    pub sequences: u32,
    /// Where weights come from; the planner chooses if `None`.
    pub pages: Option<PageSource>,
    /// The planes to read of weights that have two.
    pub precision: RunPrecision,
}

/// A model without its weights: all that planning needs.
pub struct Tables {
    path: PathBuf,
    program: Vec<u8>,
    tensors: Vec<u8>,
    checksums: Vec<[u8; 4]>,
    tokenizer: Option<Arc<[u8]>>,
    space: Space,
    /// Where weights begin and end in the paged space.
    weights: std::ops::Range<u64>,
    /// The plan that an image was packed with.
    fixed: Option<Plan>,
}

/// Where pages come from.
enum Source {
    Mapped(MappedPager),
    Stream(Box<StreamPager>),
}

/// A model opened and planned.
pub struct Session {
    tables: Tables,
    plan: MemoryPlan,
    /// The precision was left to the machine.
    automatic: bool,
    memory: Vec<u128>,
    /// KV caches, if some lie on storage.
    spill: Option<Spill>,
    pager: Source,
    source: PageSource,
    pool: Pool,
    kernels: &'static Kernels,
}

impl Session {
    /// Opens a package or a flash image.
    ///
    /// # Errors
    /// Files that are malformed, or a budget that is too small.
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        Self::new(Tables::open(path)?, options)
    }

    /// As [`Self::open`], of a package or an image whose tables are open.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn new(tables: Tables, options: &Options) -> Result<Self> {
        let plan = tables.plan(options)?;
        let (pager, source) = tables.source(&plan, options)?;
        let cores = crate::profile::cores();
        let pool = Pool::new(options.threads.unwrap_or(cores).max(1));
        let spill = tables.spill(&plan)?;
        let kv = if spill.is_some() { 0 } else { plan.bytes.kv_cache };
        let memory = zeros((kv + plan.bytes.activations).div_ceil(16), &tables.path)?;
        let kernels = dispatch::kernels()?;
        let automatic = options.precision == RunPrecision::Auto;
        Ok(Self { tables, plan, automatic, memory, spill, pager, source, pool, kernels })
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &MemoryPlan {
        &self.plan
    }

    /// The program.
    ///
    /// # Errors
    /// None once the session is open.
    pub fn program(&self) -> Result<Program<'_>> {
        self.tables.program()
    }

    /// CRC-32C of the program with the tensor table, and of the pages' checksums: the same for the
    /// same model in the same form.
    pub(crate) fn checksums(&self, crc32c: fn(u32, &[u8]) -> u32) -> [u32; 2] {
        let Tables { program, tensors, checksums, .. } = &self.tables;
        [crc32c(crc32c(0, program), tensors), crc32c(0, checksums.as_flattened())]
    }

    /// Chooses the planes of each pass by the pressure on memory; `None` if the precision is not
    /// automatic or there is nothing to choose.
    ///
    /// # Errors
    /// None once the session is open.
    pub fn pressure_watch(&self) -> Result<Option<PressureWatch>> {
        let program = self.program()?;
        // Streamed weights take no more memory than planned, whatever their planes.
        let mapped = matches!(self.pager, Source::Mapped(_));
        let choice =
            self.plan.precision == RunPrecision::Full && program.has_corrections() && mapped;
        Ok((self.automatic && choice).then(|| PressureWatch::new(&program)))
    }

    /// Tokens whose logits one pass can compute.
    #[must_use]
    pub fn logit_columns(&self) -> usize {
        self.plan.plan.logit_columns as usize
    }

    /// Texts that can be under way at once.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.plan.plan.sequences as usize
    }

    /// CRC-32C over the model's tables: its program, its weights' checksums, its tokenizer.
    #[must_use]
    pub fn crc32c(&self) -> u32 {
        let Tables { program, tensors, checksums, tokenizer, .. } = &self.tables;
        let parts =
            [program, tensors, checksums.as_flattened(), tokenizer.as_deref().unwrap_or(&[])];
        parts.into_iter().fold(0, crc32c::crc32c_append)
    }

    /// The tokenizer's tables, if the model has a tokenizer.
    #[must_use]
    pub fn tokenizer_tables(&self) -> Option<Arc<[u8]>> {
        self.tables.tokenizer.clone()
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// The model has none, or its tables are damaged.
    pub fn tokenizer(&self) -> Result<Tokenizer<&[u8]>> {
        let Some(tables) = self.tables.tokenizer.as_deref() else {
            let message = "the model has no tokenizer: give token ids with --ids, or convert it \
                           again with --tokenizer FILE";
            return Err(Error::Usage(format!("{}: {message}", self.tables.path.display())));
        };
        Tokenizer::open(tables).map_err(|error| self.bad_tokenizer(&error))
    }

    /// Says that the tokenizer's tables are damaged.
    pub fn bad_tokenizer(&self, error: &dyn std::fmt::Display) -> Error {
        let (found, expected) = (error.to_string(), "a compiled tokenizer");
        Error::malformed(&self.tables.path, "tokenizer", found, expected, CONVERT_AGAIN)
    }

    /// A text's tokens, with those that the tokenizer puts around a text.
    ///
    /// # Errors
    /// A model without a tokenizer, or damaged tables.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, token::Options::default())
    }

    /// As [`Self::encode`], for what follows in the middle of a text.
    ///
    /// # Errors
    /// Those of [`Self::encode`].
    pub fn encode_more(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, token::Options { add_special: false, ..token::Options::default() })
    }

    fn encode_with(&self, text: &str, options: token::Options) -> Result<Vec<u32>> {
        let mut tokenizer = self.tokenizer()?;
        tokenizer::encode(&mut tokenizer, text, options).map_err(|error| self.bad_tokenizer(&error))
    }

    /// The text of some tokens; one outside of the vocabulary has none.
    ///
    /// # Errors
    /// A model without a tokenizer, or damaged tables.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut tokenizer = self.tokenizer()?;
        let (mut decoder, mut text) = (Decoder::new(false), String::new());
        for id in ids {
            let decoded = tokenizer.decode(&mut decoder, *id, &mut |piece| text.push_str(piece));
            decoded.map_err(|error| Error::Usage(format!("token {id}: {error}")))?;
        }
        decoder.finish(&mut |piece| text.push_str(piece));
        Ok(text)
    }

    /// What was read of the weights so far, unless they are mapped.
    #[must_use]
    pub fn progress(&self) -> Option<Arc<Progress>> {
        match &self.pager {
            Source::Mapped(_) => None,
            Source::Stream(pager) => Some(pager.progress()),
        }
    }

    /// A counter of the bytes of KV caches read from storage so far, if some lie there.
    #[must_use]
    pub fn kv_bytes_read(&self) -> Option<Arc<AtomicU64>> {
        self.spill.as_ref().map(Spill::bytes_read)
    }

    /// Where pages come from.
    #[must_use]
    pub fn source(&self) -> PageSource {
        self.source
    }

    /// Puts something between the pager and its reader, as a source of faults; does nothing to
    /// mapped files.
    pub fn wrap_reader(&mut self, wrap: impl FnOnce(Box<dyn Reader>) -> Box<dyn Reader>) {
        if let Source::Stream(pager) = &mut self.pager {
            pager.wrap_reader(wrap);
        }
    }

    /// Records reads, and what the pager holds, from now on; mapped weights have neither.
    pub(crate) fn trace(&mut self, recorder: &Rc<RefCell<Recorder>>) {
        if let Source::Stream(pager) = &mut self.pager {
            let (progress, under_way) = (pager.progress(), pager.under_way());
            pager.wrap_reader(|inner| {
                Box::new(TracingReader::new(inner, progress, &under_way, Rc::clone(recorder)))
            });
        }
    }

    /// Puts something between the KV caches and the file that some of them lie in, as a source of
    /// faults; does nothing if all are in memory.
    pub fn wrap_spill(&mut self, wrap: impl FnOnce(Box<dyn SpillFile>) -> Box<dyn SpillFile>) {
        if let Some(spill) = &mut self.spill {
            spill.wrap_file(wrap);
        }
    }

    /// Says what an error of a pass over this model means, with the file and the place in it.
    pub fn failure(&self) -> impl Fn(RunError) -> Error + use<> {
        let (path, space) = (self.tables.path.clone(), self.tables.space.clone());
        let folder = self.spill.as_ref().map(|spill| spill.folder().to_owned());
        let format = self.plan.kv_format;
        move |error| match (error, &folder) {
            (RunError::NotFinite, _) => Error::NotFinite { path: path.clone(), format },
            (RunError::Kv(error), Some(folder)) => Error::Kv { folder: folder.clone(), error },
            (error, _) => failure_of(&path, &space, error),
        }
    }

    /// Uses these kernels instead of the fastest.
    pub fn set_kernels(&mut self, kernels: &'static Kernels) {
        self.kernels = kernels;
    }

    /// An engine at the beginning of a text, and the tokenizer's tables.
    ///
    /// # Errors
    /// None once the session is open.
    pub fn engine(&mut self) -> Result<Engine<'_>> {
        let Tables { program, tensors, checksums, space, weights, .. } = &self.tables;
        let failed = |error| Error::load(&self.tables.path, error);
        let page_size = u64::from(space.page_size);
        let model = Model {
            program: Program::parse(program, tensors, weights.clone()).map_err(failed)?,
            plan: self.plan.plan,
            end: weights.end,
            checksums,
            first_checked: (weights.start / page_size) as u32,
        };
        let pager: &mut dyn Pager = match &mut self.pager {
            Source::Mapped(pager) => pager,
            Source::Stream(pager) => &mut **pager,
        };
        let memory = self.memory.as_mut_bytes();
        let (kernels, pool) = (self.kernels, &self.pool);
        let engine = match &mut self.spill {
            None => Engine::new(model, memory, pager, kernels, pool),
            Some(spill) => Engine::with_store(model, memory, spill, pager, kernels, pool),
        };
        let mut engine = engine.map_err(failed)?;
        engine.set_planes(self.plan.precision.planes());
        Ok(engine)
    }
}

/// How long weights are read to see how fast they stream.
const STREAMING_TIME: Duration = Duration::from_secs(2);

/// Says what an error of a pass means, with the file and the place in it.
fn failure_of(path: &Path, space: &Space, error: RunError) -> Error {
    match error {
        RunError::Page(error) => {
            let (file, offset) = space.place(error.page);
            Error::Page { file: file.to_owned(), offset, error }
        }
        error => Error::Run { path: path.to_owned(), error },
    }
}

/// Memory, which a damaged model may ask too much of: asking first tells, where `vec!` would abort.
fn zeros(count: u64, model: &Path) -> Result<Vec<u128>> {
    let refused = || {
        Error::io(
            model,
            "get enough memory (see --memory and --context)",
            std::io::ErrorKind::OutOfMemory.into(),
        )
    };
    let count = usize::try_from(count).map_err(|_| refused())?;
    Vec::<u128>::new().try_reserve_exact(count).map_err(|_| refused())?;
    Ok(vec![0; count])
}

/// Plans a model without opening its weights.
///
/// # Errors
/// Those of [`Session::open`].
pub fn plan_model(path: &Path, options: &Options) -> Result<MemoryPlan> {
    Tables::open(path)?.plan(options)
}

impl Tables {
    /// Opens a package or a flash image.
    ///
    /// # Errors
    /// Files that are malformed.
    pub fn open(path: &Path) -> Result<Self> {
        let read = || if path.is_dir() { Self::of_package(path) } else { Self::of_image(path) };
        // What was a package may be an image by now.
        steadily(path, read)
    }

    /// What the package would be that is converted from the model with this `config.json`, but for
    /// its tokenizer.
    ///
    /// # Errors
    /// A file that is malformed, or another architecture's.
    pub fn of_config(path: &Path, precision: Precision, residual: bool) -> Result<Self> {
        let model = RandomModel::with_config(path, hugging_face::read_config(path)?)?;
        let (compiled, index) = outline(&model, Some(precision), residual)?;
        Ok(Self::new(path, compiled, &index, None))
    }

    fn of_package(path: &Path) -> Result<Self> {
        let package = Package::open(path)?;
        let tokenizer = package.tokenizer_tables().map(Arc::from);
        let mut tables = Self::new(path, package.compiled, &package.index, tokenizer);
        tables.space.open = package.files;
        Ok(tables)
    }

    fn new(
        path: &Path,
        compiled: Compiled,
        index: &WeightIndex,
        tokenizer: Option<Arc<[u8]>>,
    ) -> Self {
        let weights = path.join("weights");
        let files = index.files.iter().map(|f| (weights.join(&f.name), f.length)).collect();
        Self {
            path: path.to_owned(),
            checksums: index.page_checksums(),
            tokenizer,
            space: Space { files, page_size: index.page_size, open: vec![] },
            weights: 0..index.space(),
            program: compiled.program,
            tensors: compiled.tensors,
            fixed: None,
        }
    }

    fn of_image(path: &Path) -> Result<Self> {
        let image = crate::pack::Image::open(path)?;
        let page_size = image.header.page_size;
        let pages = image.header.pages;
        Ok(Self {
            path: path.to_owned(),
            space: Space {
                files: vec![(path.to_owned(), image.length)],
                page_size,
                open: vec![image.file],
            },
            weights: pages.offset..pages.offset + pages.length,
            fixed: Some(image.header.plan),
            program: image.program,
            tensors: image.tensors,
            checksums: image.checksums,
            tokenizer: image.tokenizer.map(Arc::from),
        })
    }

    /// Bytes a second with which weights stream as planned, measured by reading for two seconds.
    ///
    /// # Errors
    /// Weights that do not stream or can't be read; Ctrl-C.
    pub fn streaming_bandwidth(&self, plan: &MemoryPlan, options: &Options) -> Result<f64> {
        let (source, _) = self.source(&MemoryPlan { room_to_pin: 0, ..*plan }, options)?;
        let Source::Stream(mut pager) = source else {
            let mapped = std::io::Error::other("weights that are mapped do not stream");
            return Err(Error::io(&self.path, "measure", mapped));
        };
        let (page_size, program) = (u64::from(self.space.page_size), self.program()?);
        let (start, progress) = (Instant::now(), pager.progress());
        let ranges: Vec<_> = program.ranges_in_order(plan.precision.planes()).collect();
        for range in ranges.iter().cycle() {
            let mut address = range.start;
            while address < range.end {
                let page = (address / page_size) as u32;
                let failed = |error| failure_of(&self.path, &self.space, RunError::Page(error));
                let piece = pager.page(page).map_err(failed)?.len() as u64;
                address = u64::from(page) * page_size + piece;
            }
            crate::interrupt::check()?;
            if start.elapsed() >= STREAMING_TIME {
                break;
            }
        }
        Ok(progress.bytes() as f64 / start.elapsed().as_secs_f64())
    }

    /// Whether there are weights, and not only a description of them.
    #[must_use]
    pub fn has_weights(&self) -> bool {
        self.space.files.iter().all(|(path, _)| path.exists())
    }

    /// The tiles that weights are read in as planned, and which are pinned; `None` if they are
    /// mapped.
    ///
    /// # Errors
    /// Those of [`Self::program`].
    pub fn tiles(&self, plan: &MemoryPlan) -> Result<Option<Tiles>> {
        let Residency::Streamed { tile_pages, .. } = plan.residency else { return Ok(None) };
        let program = self.program()?;
        Ok(Some(tiles(&program, &self.space, plan.precision, tile_pages, plan.room_to_pin)))
    }

    /// Opens what the plan says that weights come from.
    fn source(&self, plan: &MemoryPlan, options: &Options) -> Result<(Source, PageSource)> {
        let (space, precision) = (&self.space, plan.precision);
        let (Residency::Streamed { ring_tiles, .. }, Some(tiles)) =
            (plan.residency, self.tiles(plan)?)
        else {
            let pager = MappedPager::new(space, precision)?;
            return Ok((Source::Mapped(pager), PageSource::Mmap));
        };
        let depth = ring_tiles as usize;
        // Besides the ring, a pinned tile that is read anew, and a page out of order.
        let (reader, source) = open_reader(space, options.pages, depth + 2)?;
        let pager = StreamPager::new(space, tiles, depth, reader)?;
        Ok((Source::Stream(Box::new(pager)), source))
    }

    /// The KV caches of a plan that puts some on storage.
    fn spill(&self, plan: &MemoryPlan) -> Result<Option<Spill>> {
        let Some(KvSpill { caches: spilled, .. }) = plan.kv_spill else { return Ok(None) };
        let program = self.program()?;
        let failed = || Error::load(&self.path, LoadError::Plan);
        let state = program.uniform_cache().ok_or_else(failed)?;
        let shape = plan.plan.cache_shape(&state).ok_or_else(failed)?;
        let folder = cache_folder().ok_or_else(|| {
            Error::Usage("no folder to spill keys and values to: set XDG_CACHE_HOME".to_owned())
        })?;
        Spill::new(shape, program.header().states.into(), spilled, &folder).map(Some)
    }

    /// The program.
    ///
    /// # Errors
    /// A program that does not fit the tensors.
    pub fn program(&self) -> Result<Program<'_>> {
        Program::parse(&self.program, &self.tensors, self.weights.clone())
            .map_err(|error| Error::load(&self.path, error))
    }

    /// The most that a plan may need where no budget is given: nearly all of what is available.
    fn most(options: &Options) -> Option<u64> {
        let most = crate::memory::available()? / 10 * 9;
        (options.pages != Some(PageSource::Mmap)).then_some(most)
    }

    /// A plan for the model.
    ///
    /// # Errors
    /// A budget that is too small, or what an image was not packed with.
    pub fn plan(&self, options: &Options) -> Result<MemoryPlan> {
        let planned = self.plan_within(options.memory, options)?;
        match (options.memory, Self::most(options)) {
            (None, Some(most)) if planned.total > most => self.plan_within(Some(most), options),
            _ => Ok(planned),
        }
    }

    /// As [`Self::plan`], within these bytes.
    fn plan_within(&self, memory: Option<u64>, options: &Options) -> Result<MemoryPlan> {
        let program = self.program()?;
        let tokenizer =
            self.tokenizer.as_ref().map_or(0, |tables| tables.len() + tokenizer::ENCODING_BYTES);
        let tables = self.program.len() + self.tensors.len() + 4 * self.checksums.len() + tokenizer;
        if let Some(fixed) = self.fixed {
            agrees(&self.path, &fixed, options)?;
        }
        let size = ModelSize { program: &program, space: &self.space, tables: tables as u64 };
        let request = Request {
            memory,
            context: options.context,
            kv: options.kv,
            logit_columns: options.logit_columns,
            sequences: options.sequences,
            pages: options.pages,
            precision: options.precision,
            fixed: self.fixed,
        };
        plan(&size, &request, &self.path)
    }
}

/// Refuses options that an image was not packed with.
fn agrees(path: &Path, fixed: &Plan, options: &Options) -> Result<()> {
    let (image, packed) = (path.display(), Kv::from(fixed.kv_format));
    if let Some(kv) = options.kv.filter(|kv| *kv != packed) {
        return Err(Error::Usage(format!(
            "{image}: the image was packed for a KV cache in {packed}: leave --kv out, or pack it \
             again with --kv {kv}"
        )));
    }
    let packed = fixed.kv_capacity;
    if let Some(context) = options.context.filter(|context| *context != packed) {
        return Err(Error::Usage(format!(
            "{image}: the image was packed for a KV cache of {packed} positions: leave --context \
             out, or pack it again with --context {context}"
        )));
    }
    Ok(())
}
