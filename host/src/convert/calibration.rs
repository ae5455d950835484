//! What the errors of rounding to int4 are made up for with, learned while the package is written: the
//! model runs at int8, and what its matrices are multiplied with is observed.

use super::job::{Compensations, Job, tables};
use super::options::{Calibration, SELF_CALIBRATED};
use super::partial::{Partial, Stage};
use super::room::{self, Room};
use super::told::Note;
use super::weights::{WeightLayout, Written};
use crate::package::Package;
use crate::pager::PageSource;
use crate::quantize::{Hessian, Precision};
use crate::session::{Session, SessionOptions, Tables};
use crate::{Error, Result, calibrate, input};
use omex_core::quant::Format;
use std::collections::BTreeSet;

/// As much of a text as calibrating can use.
const CALIBRATION_BYTES: u64 = 1 << 20;

/// Learns what it is asked for, as much at a time as there is memory for.
pub(super) struct Calibrator<'c> {
    job: &'c Job<'c>,
    room: Room,
    stage: Stage,
    wanted: bool,
    model: Option<Model>,
    /// For the tensors of some files, and the numbers of these.
    learned: (Compensations, BTreeSet<String>),
}

/// The model at int8.
struct Model {
    session: Session,
    /// The names of its tensors.
    names: Vec<String>,
    /// The text that it is shown, if it does not write its own.
    ids: Option<Vec<u32>>,
}

/// True if the model is shown texts.
fn is_wanted(job: &Job<'_>, layout: &WeightLayout) -> Result<bool> {
    let wanted = match job.options.calibration {
        Calibration::Off => false,
        Calibration::Auto => {
            job.blueprint.parameters() <= SELF_CALIBRATED && job.blueprint.writes_texts()
        }
        Calibration::Text(_) if !job.blueprint.writes_texts() => {
            let message = "this model does not go on with texts, which calibrating needs; use \
                           --no-calibration";
            return Err(Error::Usage(message.into()));
        }
        Calibration::Text(_) => true,
    };
    Ok(wanted && layout.rounds_to_int4(job.source))
}

/// The least that calibrating takes, on top of what is there all the time.
pub(super) fn least(job: &Job<'_>, layout: &WeightLayout) -> Result<u64> {
    if !is_wanted(job, layout)? {
        return Ok(0);
    }
    let int8 = WeightLayout::new(job.source, job.blueprint, Some(Precision::Int8), false);
    let index = int8.index();
    let tables = tables(job.source.path(), &int8, &job.blueprint.eos, &index)?;
    let model = least_session(&tables, job)?;
    let moments = layout.written().iter().map(moments).max().unwrap_or(0);
    Ok(room::index(&index) + model + moments)
}

/// The least memory that the model runs in.
fn least_session(tables: &Tables, job: &Job<'_>) -> Result<u64> {
    match tables.plan(&SessionOptions { memory: Some(1), ..options(job) }) {
        Err(Error::Budget { needed, .. }) => Ok(needed),
        other => other.map(|_| 0),
    }
}

fn options(job: &Job<'_>) -> SessionOptions {
    SessionOptions {
        context: Some(job.blueprint.graph.context_length.min(512)),
        // Mapped weights would count as this process's memory.
        pages: job.options.memory.map(|_| PageSource::Read),
        cancel: job.options.cancel.clone(),
        ..Default::default()
    }
}

/// What is kept of the inputs of the matrices in a file.
fn moments(file: &Written<'_>) -> u64 {
    let int4 = file.tensors.iter().filter(|tensor| tensor.format == Format::Int4);
    int4.map(|tensor| Hessian::bytes(tensor.plan.columns)).sum()
}

impl<'c> Calibrator<'c> {
    pub(super) fn new(
        job: &'c Job<'c>,
        layout: &WeightLayout,
        room: Room,
        partial: &Partial,
    ) -> Result<Self> {
        let (wanted, stage) = (is_wanted(job, layout)?, partial.calibration());
        Ok(Self { job, room, stage, wanted, model: None, learned: Default::default() })
    }

    /// For the tensors of the first of these files; none where plain rounding is asked for.
    pub(super) fn compensations(&mut self, files: &[Written<'_>]) -> Result<&Compensations> {
        let unknown = |file: &Written<'_>| !self.learned.1.contains(&file.name);
        if self.wanted && files.first().is_some_and(unknown) {
            // Before others take their place.
            self.learned = Default::default();
            self.learned = self.learn(files)?;
        }
        Ok(&self.learned.0)
    }

    fn learn(&mut self, files: &[Written<'_>]) -> Result<(Compensations, BTreeSet<String>)> {
        self.job.options.told.of(&Note::Calibrates);
        let mut model = match self.model.take() {
            Some(model) => model,
            None => self.model()?,
        };
        let mut left = self.room.calibrating().saturating_sub(model.session.plan().total);
        let fits = |(number, file): &(usize, &Written<'_>)| {
            let bytes = moments(file);
            let fits = *number == 0 || bytes <= left;
            left = left.saturating_sub(bytes);
            fits
        };
        let now: Vec<_> = files.iter().enumerate().take_while(fits).map(|(_, file)| file).collect();
        let tensors = now.iter().flat_map(|file| &file.tensors);
        let wanted: BTreeSet<_> = tensors.map(|tensor| tensor.plan.name.as_str()).collect();
        let names = &model.names;
        let name = |tensor: u32| names.get(tensor as usize).map(String::as_str);
        let is_wanted = |tensor| name(tensor).is_some_and(|name| wanted.contains(name));
        let (first, ids) = (self.job.blueprint.bos.unwrap_or(0), model.ids.as_deref());
        let hessians = calibrate::calibrate(&mut model.session, ids, first, &is_wanted)?;
        let compensations = hessians.into_iter().filter_map(|(tensor, hessian)| {
            Some((name(tensor)?.to_owned(), hessian.compensation()?))
        });
        let learned = (compensations.collect(), now.iter().map(|file| file.name.clone()).collect());
        self.model = Some(model);
        Ok(learned)
    }

    fn model(&self) -> Result<Model> {
        let job = self.job;
        let int8 = Some(Precision::Int8);
        let layout = WeightLayout::new(job.source, job.blueprint, int8, false);
        job.write(&layout, self.room, None, &self.stage, &mut |_, _| {})?;
        let path = &self.stage.package;
        let tables = Tables::open(path)?;
        let mut options = options(job);
        if job.options.memory.is_some() {
            // What speeds the model up more than half of the room does is seldom worth more passes.
            let half = self.room.calibrating() / 2;
            options.memory = Some(least_session(&tables, job)?.max(half));
        }
        let session = Session::new(tables, &options)?;
        let ids = match job.options.calibration {
            Calibration::Text(file) => {
                Some(session.encode(&input::read_start(file, CALIBRATION_BYTES)?)?)
            }
            _ => None,
        };
        let names = Package::open(path)?.compiled.names;
        let names = names.into_iter().map(|(name, _)| name).collect();
        Ok(Model { session, names, ids })
    }
}
