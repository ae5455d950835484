//! A model opened and planned: everything that an engine borrows.

use crate::package::{CONVERT_AGAIN, Package};
use crate::pager::{MappedPager, ReadPager, Space};
use crate::plan::{Kv, MemoryPlan, ModelSize, PageSource, Request, Residency, plan};
use crate::pool::Pool;
use crate::{Error, Result, dispatch, tokenizer};
use omex_core::engine::{Engine, Model};
use omex_core::error::RunError;
use omex_core::program::Program;
use omex_core::simd::Kernels;
use omex_core::token::{self, Decoder, Tokenizer};
use omex_hal::Pager;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use zerocopy::IntoBytes;

/// How a model is to be run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Bytes that may be used.
    pub memory: Option<u64>,
    /// Positions of the KV cache.
    pub context: Option<u32>,
    /// How keys and values are stored; the planner chooses if `None`. An image was packed for one.
    pub kv: Option<Kv>,
    /// Threads; as many as the machine has cores if `None`.
    pub threads: Option<usize>,
    /// Logits of this many tokens are wanted in one pass; 0 counts as 1.
    pub logit_columns: u32,
    /// Texts that are under way at once; 0 counts as 1. An image is for one.
    pub sequences: u32,
    /// Forces reads instead of mapping.
    pub pages: Option<PageSource>,
}

/// A model's tables, owned.
struct Tables {
    program: Vec<u8>,
    tensors: Vec<u8>,
    checksums: Vec<[u8; 4]>,
    tokenizer: Option<Arc<[u8]>>,
    space: Space,
    /// Where weights begin and end in the paged space.
    weights: std::ops::Range<u64>,
    /// The plan that an image was packed with.
    fixed: Option<omex_core::arena::Plan>,
}

/// A model opened and planned.
pub struct Session {
    path: PathBuf,
    tables: Tables,
    plan: MemoryPlan,
    memory: Vec<u128>,
    pager: Box<dyn Pager>,
    bytes_read: Option<Arc<AtomicU64>>,
    pool: Pool,
    kernels: &'static Kernels,
}

impl Session {
    /// Opens a package or a flash image.
    ///
    /// # Errors
    /// Files that are malformed, or a budget that is too small.
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        let tables = Tables::open(path)?;
        let plan = tables.plan(path, options)?;
        let (pager, bytes_read): (Box<dyn Pager>, _) = match plan.residency {
            Residency::Mapped => (Box::new(MappedPager::new(&tables.space)?), None),
            Residency::Streamed { tile_pages } => {
                let pager = ReadPager::new(&tables.space, tile_pages)?;
                let bytes_read = pager.bytes_read();
                (Box::new(pager), Some(bytes_read))
            }
        };
        let cores = crate::profile::cores();
        let pool = Pool::new(options.threads.unwrap_or(cores).max(1))
            .map_err(|e| Error::io(Path::new("threads"), "start", e))?;
        let arena = plan.bytes.kv_cache + plan.bytes.activations;
        let memory = zeros(arena.div_ceil(16), path)?;
        let (path, kernels) = (path.to_owned(), dispatch::kernels()?);
        Ok(Self { path, tables, plan, memory, pager, bytes_read, pool, kernels })
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
        self.tables.program(&self.path)
    }

    /// Tokens whose logits one pass can compute.
    #[must_use]
    pub fn logit_columns(&self) -> usize {
        self.plan.plan.logit_columns as usize
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
            return Err(Error::Usage(format!("{}: {message}", self.path.display())));
        };
        Tokenizer::open(tables).map_err(|error| self.bad_tokenizer(&error))
    }

    /// Says that the tokenizer's tables are damaged.
    pub fn bad_tokenizer(&self, error: &dyn std::fmt::Display) -> Error {
        let (found, expected) = (error.to_string(), "a compiled tokenizer");
        Error::malformed(&self.path, "tokenizer", found, expected, CONVERT_AGAIN)
    }

    /// A text's tokens, with those that the tokenizer puts around a text.
    ///
    /// # Errors
    /// A model without a tokenizer, or damaged tables.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokenizer = self.tokenizer()?;
        tokenizer::encode(&mut tokenizer, text, token::Options::default())
            .map_err(|error| self.bad_tokenizer(&error))
    }

    /// The text of some tokens.
    ///
    /// # Errors
    /// A token outside of the vocabulary, a model without a tokenizer, or damaged tables.
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

    /// Bytes of weights read so far; 0 if they are mapped.
    #[must_use]
    pub fn bytes_read(&self) -> Option<Arc<AtomicU64>> {
        self.bytes_read.clone()
    }

    /// Says what an error of a pass over this model means, with the file and the place in it.
    pub fn failure(&self) -> impl Fn(RunError) -> Error + use<> {
        let (path, space) = (self.path.clone(), self.tables.space.clone());
        move |error| match error {
            RunError::Page(error) => {
                let (file, offset) = space.place(error.page);
                Error::Page { file: file.to_owned(), offset, error }
            }
            error => Error::Run { path: path.clone(), error },
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
        let failed = |error| Error::load(&self.path, error);
        let page_size = u64::from(space.page_size);
        let model = Model {
            program: Program::parse(program, tensors, weights.clone()).map_err(failed)?,
            plan: self.plan.plan,
            end: weights.end,
            checksums,
            first_checked: (weights.start / page_size) as u32,
        };
        if let Some(bytes_read) = &self.bytes_read {
            bytes_read.store(0, Ordering::Relaxed);
        }
        let memory = self.memory.as_mut_bytes();
        Engine::new(model, memory, &mut *self.pager, self.kernels, &self.pool).map_err(failed)
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
    Tables::open(path)?.plan(path, options)
}

impl Tables {
    fn open(path: &Path) -> Result<Self> {
        if path.is_dir() { Self::of_package(path) } else { Self::of_image(path) }
    }

    fn of_package(path: &Path) -> Result<Self> {
        let package = Package::open(path)?;
        let checksums = package.index.page_checksums();
        let tokenizer = package.tokenizer_tables()?.map(Arc::from);
        let weights = path.join("weights");
        let files = package.index.files.iter().map(|f| (weights.join(&f.name), f.length)).collect();
        Ok(Self {
            checksums,
            tokenizer,
            space: Space { files, page_size: package.index.page_size },
            weights: 0..package.index.space(),
            program: package.compiled.program,
            tensors: package.compiled.tensors,
            fixed: None,
        })
    }

    fn of_image(path: &Path) -> Result<Self> {
        let image = crate::pack::Image::open(path)?;
        let page_size = image.header.page_size;
        let pages = image.header.pages;
        Ok(Self {
            space: Space { files: vec![(path.to_owned(), image.length)], page_size },
            weights: pages.offset..pages.offset + pages.length,
            fixed: Some(image.header.plan),
            program: image.program,
            tensors: image.tensors,
            checksums: image.checksums,
            tokenizer: image.tokenizer.map(Arc::from),
        })
    }

    fn program(&self, path: &Path) -> Result<Program<'_>> {
        Program::parse(&self.program, &self.tensors, self.weights.clone())
            .map_err(|error| Error::load(path, error))
    }

    fn plan(&self, path: &Path, options: &Options) -> Result<MemoryPlan> {
        let program = self.program(path)?;
        let tokenizer = self.tokenizer.as_ref().map_or(0, |tables| tables.len());
        let tables = self.program.len() + self.tensors.len() + 4 * self.checksums.len() + tokenizer;
        if let (Some(fixed), Some(kv)) = (self.fixed, options.kv)
            && fixed.kv_format != kv.format()
        {
            let (path, packed) = (path.display(), Kv::from(fixed.kv_format));
            let message = format!(
                "{path}: the image was packed for a KV cache in {packed}: leave --kv out, or pack \
                 it again with --kv {kv}"
            );
            return Err(Error::Usage(message));
        }
        let size = ModelSize {
            program: &program,
            weights: self.space.length(),
            page_size: self.space.page_size,
            tables: tables as u64,
        };
        let request = Request {
            memory: options.memory,
            context: options.context,
            kv: options.kv,
            logit_columns: options.logit_columns,
            sequences: options.sequences,
            pages: options.pages,
            fixed: self.fixed,
        };
        plan(&size, &request, path)
    }
}
