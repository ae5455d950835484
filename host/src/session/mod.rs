//! Models that are open, and the sessions that run them.

mod caches;
mod decisions;
mod failure;
mod model;
mod options;
mod owned;
mod pages;
mod tables;

use caches::Caches;
pub use model::Model;
pub(crate) use model::{holds_only_keys, shares_caches};
pub use options::SessionOptions;
pub use owned::OwnedEngine;
use pages::{Pages, Source};
pub use tables::{Tables, plan_model};

use crate::aligned::{Unit, zeros};
use crate::cancel::Cancel;
use crate::pager::{Reader, StreamPager};
use crate::plan::{MemoryPlan, RunPrecision};
use crate::pool::Pool;
use crate::pressure::PressureWatch;
use crate::spill::SpillFile;
use crate::states::Lent;
use crate::{Error, Result, dispatch};
use omex_core::engine::{self, Engine};
use omex_core::program::Program;
use omex_core::simd::Kernels;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use zerocopy::IntoBytes;

/// A model, and the memory, threads and pager that run it: everything that an engine borrows.
pub struct Session {
    model: Arc<Model>,
    memory: Vec<Unit>,
    caches: Caches,
    pages: Pages,
    pool: Pool,
    kernels: &'static Kernels,
}

/// All that a model tells, its session tells too.
impl Deref for Session {
    type Target = Model;

    fn deref(&self) -> &Model {
        &self.model
    }
}

impl Session {
    /// Opens a package or a flash image.
    ///
    /// # Errors
    /// Files that are malformed, or a budget that is too small.
    pub fn open(path: &Path, options: &SessionOptions) -> Result<Self> {
        Self::new(Tables::open(path)?, options)
    }

    /// As [`Self::open`], of a package or an image whose tables are open.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn new(tables: Tables, options: &SessionOptions) -> Result<Self> {
        let plan = tables.plan(options)?;
        Self::with_plan(tables, plan, options)
    }

    /// As [`Self::new`], as [`Tables::plan`] planned it for the same options.
    ///
    /// # Errors
    /// Those of [`Self::open`], but for those of planning.
    pub fn with_plan(tables: Tables, plan: MemoryPlan, options: &SessionOptions) -> Result<Self> {
        let caches = tables.caches(&plan)?;
        let lent = match &caches {
            Caches::Memory(states) => states.lent(),
            Caches::Spilled(_) => Lent::default(),
        };
        let (pager, source) = tables.source(&plan, options, lent)?;
        let cores = crate::system::cores();
        let pool = Pool::new(options.threads.unwrap_or(cores).max(1));
        // A damaged model may ask for too much.
        let memory = zeros(plan.bytes.activations).ok_or_else(|| {
            let none = std::io::ErrorKind::OutOfMemory.into();
            Error::io(&tables.path, "get enough memory (see --memory and --context)", none)
        })?;
        let kernels = dispatch::kernels()?;
        let stops = holds_only_keys(&tables.program()?);
        let cancel = if stops { options.cancel.clone() } else { Cancel::default() };
        let budget = options.memory.or_else(crate::memory::usable);
        let left = budget.map(|memory| memory.saturating_sub(plan.total));
        let model = Arc::new(Model {
            plan,
            for_texts: left.map_or(u64::MAX, |left| left + options.texts),
            watch: watch(&tables.program()?, &plan, options, &pager),
            source,
            progress: pager.progress(),
            spilled: match &caches {
                Caches::Spilled(spill) => Some((spill.folder().to_owned(), spill.bytes_read())),
                Caches::Memory(_) => None,
            },
            cancel: options.cancel.clone(),
            // No run needs names, which take memory.
            tables: Tables { names: vec![], ..tables },
        });
        Ok(Self { model, memory, caches, pages: Pages { source: pager, cancel }, pool, kernels })
    }

    /// The model, which goes on when the session has ended.
    #[must_use]
    pub fn model(&self) -> Arc<Model> {
        Arc::clone(&self.model)
    }

    /// Puts something between the pager and its reader, as a source of faults; does nothing to
    /// mapped files.
    pub fn wrap_reader(&mut self, wrap: impl FnOnce(Box<dyn Reader>) -> Box<dyn Reader>) {
        self.wrap_pager(|pager| pager.wrap_reader(wrap));
    }

    /// Changes a pager that reads; does nothing to mapped files.
    pub(crate) fn wrap_pager(&mut self, wrap: impl FnOnce(&mut StreamPager)) {
        if let Source::Stream(pager) = &mut self.pages.source {
            wrap(pager);
        }
    }

    /// Puts something between the KV caches and the file that some of them lie in, as a source of
    /// faults; does nothing if all are in memory.
    pub fn wrap_spill(&mut self, wrap: impl FnOnce(Box<dyn SpillFile>) -> Box<dyn SpillFile>) {
        if let Caches::Spilled(spill) = &mut self.caches {
            spill.wrap_file(wrap);
        }
    }

    /// Uses these kernels instead of the fastest.
    pub fn set_kernels(&mut self, kernels: &'static Kernels) {
        self.kernels = kernels;
    }

    /// An engine at the beginning of a text.
    ///
    /// # Errors
    /// None once the session is open.
    pub fn engine(&mut self) -> Result<Engine<'_>> {
        let Tables { path, checksums, space, weights, pages, .. } = &self.model.tables;
        let page_size = u64::from(space.page_size);
        let model = engine::Model {
            program: self.model.program()?,
            plan: self.model.plan.plan,
            end: weights.end,
            checksums,
            first_checked: match pages {
                None => (weights.start / page_size) as u32,
                Some(_) => u32::MAX,
            },
        };
        let memory = self.memory.as_mut_bytes();
        let (kernels, pool, pager) = (self.kernels, &self.pool, &mut self.pages);
        let states = self.caches.store();
        let engine = Engine::with_store(model, memory, states, pager, kernels, pool);
        let mut engine = engine.map_err(|error| Error::load(path, error))?;
        engine.set_parts(match &self.model.watch {
            Some(watch) => watch.restart(),
            None => self.model.plan.precision.parts(),
        });
        Ok(engine)
    }
}

/// What leaves corrections out under pressure, where that is left to the machine and saves memory.
fn watch(
    program: &Program<'_>,
    plan: &MemoryPlan,
    options: &SessionOptions,
    pager: &Source,
) -> Option<PressureWatch> {
    // Streamed weights take no more memory than planned, whatever their planes.
    let mapped = matches!(pager, Source::Mapped(_));
    let choice = plan.precision == RunPrecision::Full && program.has_corrections() && mapped;
    (options.precision == RunPrecision::Auto && choice).then(|| PressureWatch::new(program))
}
