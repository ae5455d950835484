//! A model without its weights: what is needed to plan it, and to open what the plan says.

use super::caches::Caches;
use super::failure::failure_of;
use super::options::SessionOptions;
use super::pages::Source;
use crate::compile::Compiled;
use crate::package::{
    CONVERT_AGAIN, EmbeddingSettings, Package, RerankSettings, WeightIndex, steadily,
};
use crate::pager::{MappedPager, PageSource, Reader, Space, StreamPager, Tiles, open_reader};
use crate::plan::{Constraints, Kv, KvSpill, MemoryPlan, ModelSize, Residency, plan, tiles};
use crate::spill::Spill;
use crate::states::{Lent, StateMemory};
use crate::system::cache_folder;
use crate::tokenizer::{self, NotEncoded};
use crate::{Error, Result};
use omex_core::arena::Plan;
use omex_core::error::{LoadError, RunError};
use omex_core::program::Program;
use omex_core::token::{Decoder, EncodeOptions, Tokenizer};
use omex_hal::Pager;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A model without its weights: all that planning needs.
pub struct Tables {
    pub(super) path: PathBuf,
    pub(super) program: Vec<u8>,
    pub(super) tensors: Vec<u8>,
    /// Names and planes of the tensors, in the table's order; none of an image.
    pub(super) names: Vec<(String, u32)>,
    pub(super) checksums: Vec<[u8; 4]>,
    pub(super) tokenizer: Option<Arc<[u8]>>,
    /// How texts become vectors, if the model says so.
    pub(super) embedding: Option<EmbeddingSettings>,
    /// How pairs of texts become scores, if the model says so.
    pub(super) rerank: Option<RerankSettings>,
    pub(super) space: Space,
    /// Where weights begin and end in the paged space.
    pub(super) weights: std::ops::Range<u64>,
    /// The plan that an image was packed with.
    pub(super) fixed: Option<Plan>,
    /// What makes the pages, if they are not read from the space's files.
    pub(super) pages: Option<MakePages>,
}

/// Makes a reader of pages that are in no file, for each session anew.
pub(crate) type MakePages = Arc<dyn Fn() -> Box<dyn Reader> + Send + Sync>;

/// How long weights are read to see how fast they stream.
const STREAMING_TIME: Duration = Duration::from_secs(2);

/// Plans a model without opening its weights.
///
/// # Errors
/// Those of [`Session::open`](super::Session::open).
pub fn plan_model(path: &Path, options: &SessionOptions) -> Result<MemoryPlan> {
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

    fn of_package(path: &Path) -> Result<Self> {
        let package = Package::open(path)?;
        let tokenizer = package.tokenizer_tables().map(Arc::from);
        let mut tables = Self::new(path, package.compiled, &package.index, tokenizer);
        tables.space.open = package.files;
        (tables.embedding, tables.rerank) = (package.embedding, package.rerank);
        Ok(tables)
    }

    /// Those of a package at `path`, which need not be there.
    pub(crate) fn new(
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
            embedding: None,
            rerank: None,
            space: Space { files, page_size: index.page_size, open: vec![] },
            weights: 0..index.space(),
            program: compiled.program,
            tensors: compiled.tensors,
            names: compiled.names,
            fixed: None,
            pages: None,
        }
    }

    /// The name of a tensor and its plane, if they are known.
    #[must_use]
    pub fn tensor_name(&self, number: u32) -> Option<(&str, u32)> {
        self.names.get(number as usize).map(|(name, plane)| (name.as_str(), *plane))
    }

    /// The same with pages that are made, and have no checksums.
    pub(crate) fn with_pages(self, make: MakePages) -> Self {
        Self { pages: Some(make), ..self }
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
            names: vec![],
            checksums: image.checksums,
            tokenizer: image.tokenizer.map(Arc::from),
            embedding: None,
            rerank: None,
            pages: None,
        })
    }

    /// How texts become vectors, if the model says so.
    #[must_use]
    pub fn embedding_settings(&self) -> Option<&EmbeddingSettings> {
        self.embedding.as_ref()
    }

    /// How pairs of texts become scores, if the model says so.
    #[must_use]
    pub fn rerank_settings(&self) -> Option<&RerankSettings> {
        self.rerank.as_ref()
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// The model has none, or its tables are damaged.
    pub fn tokenizer(&self) -> Result<Tokenizer<&[u8]>> {
        let Some(tables) = self.tokenizer.as_deref() else {
            let message = "the model has no tokenizer: give token ids with --ids, or convert it \
                           again with --tokenizer FILE";
            return Err(Error::Usage(format!("{}: {message}", self.path.display())));
        };
        Tokenizer::open(tables).map_err(|error| self.bad_tokenizer(&error))
    }

    pub(crate) fn bad_tokenizer(&self, error: &dyn std::fmt::Display) -> Error {
        let (found, expected) = (error.to_string(), "a compiled tokenizer");
        Error::malformed(&self.path, "tokenizer", found, expected, CONVERT_AGAIN)
    }

    /// A text's tokens. Besides what the tables take, text and tokens stay within `most` bytes.
    ///
    /// # Errors
    /// A model without a tokenizer, damaged tables, or a text that takes more memory.
    pub fn encode(&self, text: &str, options: EncodeOptions, most: u64) -> Result<Vec<u32>> {
        let encoded = tokenizer::encode_within(&mut self.tokenizer()?, text, options, most);
        encoded.map_err(|error| match error {
            NotEncoded::Tables(error) => self.bad_tokenizer(&error),
            error @ NotEncoded::Memory { .. } => Error::Text(error),
        })
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

    /// Bytes of the tables, and of what encoding works with.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let encoding = |tables: &Arc<[u8]>| tables.len() + tokenizer::ENCODING_BYTES;
        let tokenizer = self.tokenizer.as_ref().map_or(0, encoding);
        let Self { program, tensors, checksums, .. } = self;
        (program.len() + tensors.len() + 4 * checksums.len() + tokenizer) as u64
    }

    /// Bytes a second with which weights stream as planned, measured by reading for two seconds.
    ///
    /// # Errors
    /// Weights that do not stream or can't be read; being cancelled.
    pub fn streaming_bandwidth(&self, plan: &MemoryPlan, options: &SessionOptions) -> Result<f64> {
        let (source, _) =
            self.source(&MemoryPlan { room_to_pin: 0, ..*plan }, options, Lent::default())?;
        let Source::Stream(mut pager) = source else {
            let mapped = std::io::Error::other("weights that are mapped do not stream");
            return Err(Error::io(&self.path, "measure", mapped));
        };
        let (page_size, program) = (u64::from(self.space.page_size), self.program()?);
        let (start, progress) = (Instant::now(), pager.progress());
        let ranges: Vec<_> = program.ranges_in_order(plan.precision.parts()).collect();
        for range in ranges.iter().cycle() {
            let mut address = range.start;
            while address < range.end {
                let page = (address / page_size) as u32;
                let failed = |error| failure_of(&self.path, &self.space, RunError::Page(error));
                let piece = pager.page(page).map_err(failed)?.len() as u64;
                address = u64::from(page) * page_size + piece;
            }
            options.cancel.check()?;
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
        let mut tiles = tiles(&program, &self.space, plan.precision, tile_pages, plan.room_to_pin);
        tiles.keep_aside(plan.pieces.pages, plan.pieces.count);
        Ok(Some(tiles))
    }

    /// Opens what the plan says that weights come from.
    pub(super) fn source(
        &self,
        plan: &MemoryPlan,
        options: &SessionOptions,
        lent: Lent,
    ) -> Result<(Source, PageSource)> {
        let (space, precision) = (&self.space, plan.precision);
        let (Residency::Streamed { ring_tiles, .. }, Some(mut tiles)) =
            (plan.residency, self.tiles(plan)?)
        else {
            let pager = MappedPager::new(space, precision)?;
            return Ok((Source::Mapped(pager), PageSource::Mmap));
        };
        let depth = ring_tiles as usize;
        tiles.pin(plan.room_to_pin.saturating_add(lent.bytes()));
        // Besides the ring, a pinned tile that is read anew, and what is read out of order.
        let reads = depth + 1 + tiles.reads_aside();
        let (reader, source) = match &self.pages {
            Some(make) => (make(), PageSource::Read),
            None => open_reader(space, options.pages, reads)?,
        };
        let pager = StreamPager::new(space, tiles, depth, (plan.room_to_pin, lent), reader)?;
        Ok((Source::Stream(Box::new(pager)), source))
    }

    /// Where the states of a plan lie.
    pub(super) fn caches(&self, plan: &MemoryPlan) -> Result<Caches> {
        let program = self.program()?;
        let Some(KvSpill { caches: spilled, .. }) = plan.kv_spill else {
            let shares = plan.lent_bytes > 0 || plan.plan.sequences > 1;
            return StateMemory::new(&program, &plan.plan, shares).map(Caches::Memory);
        };
        let failed = || Error::load(&self.path, LoadError::Plan);
        let state = program.uniform_cache().ok_or_else(failed)?;
        let shape = plan.plan.cache_shape(&state).ok_or_else(failed)?;
        let folder = cache_folder().ok_or_else(|| {
            Error::Usage("no folder to spill keys and values to: set XDG_CACHE_HOME".to_owned())
        })?;
        Spill::new(shape, program.header().states.into(), spilled, &folder)
            .map(Box::new)
            .map(Caches::Spilled)
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
    fn most(options: &SessionOptions) -> Option<u64> {
        let most = crate::memory::usable()?;
        (options.pages != Some(PageSource::Mmap)).then_some(most)
    }

    /// A plan for the model.
    ///
    /// # Errors
    /// A budget that is too small, or what an image was not packed with.
    pub fn plan(&self, options: &SessionOptions) -> Result<MemoryPlan> {
        let planned = self.plan_within(options.memory, options)?;
        match (options.memory, Self::most(options)) {
            (None, Some(most)) if planned.total > most => self.plan_within(Some(most), options),
            _ => Ok(planned),
        }
    }

    /// Bytes that running the model takes if no weights stream.
    ///
    /// # Errors
    /// Those of [`Self::plan`].
    pub fn needed(&self, options: &SessionOptions) -> Result<u64> {
        self.plan_within(None, options).map(|plan| plan.total)
    }

    /// As [`Self::plan`], within these bytes.
    pub(super) fn plan_within(
        &self,
        memory: Option<u64>,
        options: &SessionOptions,
    ) -> Result<MemoryPlan> {
        let program = self.program()?;
        self.check_positions(options)?;
        if let Some(fixed) = self.fixed {
            agrees(&self.path, &fixed, options)?;
        }
        let tables = self.bytes().saturating_add(options.texts);
        let size = ModelSize { program: &program, space: &self.space, tables };
        let constraints = Constraints {
            memory,
            context: options.context,
            kv: options.kv,
            logit_columns: options.logit_columns,
            sequences: options.sequences,
            text_positions: options.text_positions,
            pages: options.pages,
            precision: options.precision,
            fixed: self.fixed,
        };
        plan(&size, &constraints, &self.path)
    }
}

/// Refuses options that an image was not packed with.
fn agrees(path: &Path, fixed: &Plan, options: &SessionOptions) -> Result<()> {
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
