//! The engine: plays a program over a fixed arena, pulling pages of weights as it goes.
//!
//! It knows operations, slots and streams; it does not know what architecture they make up.

use crate::arena::{Arena, Layout, Plan};
use crate::error::{LoadError, RunError};
use crate::kv::Cache;
use crate::kv_store::{Caches, KvStore};
use crate::ops::attention::Attention;
use crate::ops::{Columns, ColumnsMut, activation, embed, matmul, norm, rope};
use crate::page::{Pages, Stream};
use crate::pass::{Input, Inputs, LAST_POSITION, may_follow};
use crate::program::{Op, PerLayer, Program, Slot, Tensor, Value};
use crate::simd::Kernels;
use crate::steps::{Planes, Steps};
use core::ops::Range;
use omex_hal::{Pager, Parallel};

/// A model that is ready to run: its program, the plan for this device, and its pages' checksums.
#[derive(Clone, Debug)]
pub struct Model<'a> {
    /// What to do.
    pub program: Program<'a>,
    /// How much of everything there is.
    pub plan: Plan,
    /// Where the data of the paged space end.
    pub end: u64,
    /// CRC-32C of each page from `first_checked` on.
    pub checksums: &'a [[u8; 4]],
    /// The first page that holds weights.
    pub first_checked: u32,
}

impl Model<'_> {
    /// How the arena will be laid out.
    ///
    /// # Errors
    /// A plan that does not fit the program.
    pub fn layout(&self, pager: &dyn Pager) -> Result<Layout, LoadError> {
        let pages = (0..pager.geometry().pages).rev().find(|page| pager.is_stable(*page));
        let pages = pages.map_or(0, |last| last + 1);
        Layout::new(&self.program, &self.plan, pages)
    }
}

/// Which tokens' logits a pass computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those of the last token.
    Last,
    /// Those of every token, at most the plan's `logit_columns`.
    All,
}

/// Plays a program.
pub struct Engine<'a> {
    program: Program<'a>,
    plan: Plan,
    memory: Memory<'a>,
    staging: &'a mut [u8],
    carry: &'a mut [u8],
    kv: Caches<'a>,
    pages: Pages<'a>,
    kernels: &'a Kernels,
    parallel: &'a dyn Parallel,
    observer: Option<Observer<'a>>,
    planes: Planes,
    inputs: Inputs<'a>,
    /// Where each sequence goes on.
    ends: &'a mut [u32],
}

/// Is shown the number of each matrix and every column that it is multiplied with.
pub type Observer<'a> = &'a mut dyn FnMut(u32, &[f32]);

impl<'a> Engine<'a> {
    /// An engine in `memory`, of the size that [`Model::layout`] says, aligned to 16 bytes.
    ///
    /// # Errors
    /// Memory that is too small or misaligned, or a plan that does not fit.
    pub fn new(
        model: Model<'a>,
        memory: &'a mut [u8],
        pager: &'a mut dyn Pager,
        kernels: &'a Kernels,
        parallel: &'a dyn Parallel,
    ) -> Result<Self, LoadError> {
        let layout = model.layout(pager)?;
        let mut arena = Arena::new(memory, &layout)?;
        let kv = Caches::Arena(core::mem::take(&mut arena.kv));
        Ok(Self::build(model, arena, kv, pager, kernels, parallel))
    }

    /// As [`Self::new`], with KV caches in `store` instead of in `memory`. The plan has one sequence.
    ///
    /// # Errors
    /// Those of [`Self::new`].
    pub fn with_store(
        model: Model<'a>,
        memory: &'a mut [u8],
        store: &'a mut dyn KvStore,
        pager: &'a mut dyn Pager,
        kernels: &'a Kernels,
        parallel: &'a dyn Parallel,
    ) -> Result<Self, LoadError> {
        if model.plan.sequences > 1 {
            return Err(LoadError::Plan);
        }
        let layout = Layout { kv: 0, ..model.layout(pager)? };
        let arena = Arena::new(memory, &layout)?;
        Ok(Self::build(model, arena, Caches::Store(store), pager, kernels, parallel))
    }

    fn build(
        model: Model<'a>,
        arena: Arena<'a>,
        kv: Caches<'a>,
        pager: &'a mut dyn Pager,
        kernels: &'a Kernels,
        parallel: &'a dyn Parallel,
    ) -> Self {
        let Model { program, plan, end, checksums, first_checked } = model;
        let ends = arena.ends.get_mut(..plan.sequences as usize).unwrap_or_default();
        ends.fill(0);
        let pages =
            Pages::new(pager, kernels, parallel, end, checksums, first_checked, arena.verified);
        Self {
            program,
            plan,
            memory: Memory {
                all: arena.activations,
                selected: arena.selected,
                columns: plan.columns as usize,
                logit_columns: plan.logit_columns as usize,
            },
            staging: arena.staging,
            carry: arena.carry,
            kv,
            pages,
            kernels,
            parallel,
            observer: None,
            planes: Planes::FULL,
            inputs: Inputs::new(arena.inputs),
            ends,
        }
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Program<'a> {
        &self.program
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The position of the next token of sequence 0.
    #[must_use]
    pub fn position(&self) -> u32 {
        self.ends.first().copied().unwrap_or(0)
    }

    /// Shows the inputs of every multiplication to `observer` from now on.
    pub fn observe(&mut self, observer: Observer<'a>) {
        self.observer = Some(observer);
    }

    /// The planes that are played.
    #[must_use]
    pub fn planes(&self) -> Planes {
        self.planes
    }

    /// Plays these planes from the next pass on; all of them at first. What was computed before
    /// stays in the KV cache as it is.
    pub fn set_planes(&mut self, planes: Planes) {
        self.planes = planes;
        self.pages.expect_what_lies_behind();
    }

    /// Begins new texts.
    pub fn reset(&mut self) {
        self.ends.fill(0);
    }

    /// Runs one pass over `tokens` of sequence 0, which follow those of earlier passes.
    ///
    /// # Errors
    /// Those of [`Self::pass`].
    pub fn forward(&mut self, tokens: &[u32], wanted: Wanted) -> Result<(), RunError> {
        let (first, last) = (self.position(), tokens.len().saturating_sub(1));
        self.pass(tokens.iter().enumerate().map(|(column, token)| Input {
            token: *token,
            sequence: 0,
            position: first.saturating_add(column as u32),
            logits: wanted == Wanted::All || column == last,
        }))
    }

    /// Runs one pass over tokens of any sequences; [`crate::pass`] says how their order matters.
    ///
    /// An input follows the last one of its sequence, or goes back: at position 0 a new text
    /// begins, and anywhere else what was further on is forgotten, which is possible while the
    /// sequence is no longer than the cache.
    ///
    /// After an error the pass did not happen, but for what inputs that go back made forgotten.
    /// (The cache's oldest positions may be gone once a text is longer than the cache.)
    ///
    /// # Errors
    /// More inputs than the plan has columns, or none; a token outside of the vocabulary; an input
    /// that does not follow; branches without room for spare places; a page or a KV cache that can't
    /// be had; or weights that lead to infinite values.
    pub fn pass(&mut self, inputs: impl IntoIterator<Item = Input>) -> Result<(), RunError> {
        self.inputs.set(inputs.into_iter())?;
        self.run().inspect_err(|_| self.inputs.clear())
    }

    fn run(&mut self) -> Result<(), RunError> {
        self.inputs.check(&self.plan, self.program.header().vocab_size, self.ends)?;
        for input in self.inputs.iter() {
            if let Some(end) = self.ends.get_mut(input.sequence as usize) {
                *end = input.position.min(*end);
            }
        }
        let mut steps = self.program.steps(self.planes);
        while let Some((op, layer)) = steps.next() {
            self.expect(&op, layer, &steps);
            self.step(&op, layer)?;
        }
        self.pages.end_pass()?;
        for column in 0..self.inputs.selected().count() {
            if !self.logits(column).iter().all(|x| x.is_finite()) {
                return Err(RunError::NotFinite);
            }
        }
        for input in self.inputs.iter() {
            if let Some(end) = self.ends.get_mut(input.sequence as usize) {
                *end = input.position + 1;
            }
        }
        Ok(())
    }

    /// Ends a sequence behind a column of the last pass: it holds that token, its ancestors, and
    /// what was before the pass.
    ///
    /// # Errors
    /// A column that the last pass did not have; a text that is longer than the cache and so can't
    /// go back; or a cache that can't be had, and then the sequence holds what was before the pass.
    pub fn accept(&mut self, column: usize) -> Result<(), RunError> {
        let count = self.inputs.len() as u32;
        let missing = RunError::TokenCount { given: column as u32, limit: count };
        let last = self.inputs.iter().nth(column).ok_or(missing)?;
        let end = last.position + 1;
        let furthest = self.inputs.end_before(self.inputs.len(), last.sequence).unwrap_or(end);
        // Inputs that branch fit into the cache, however deep the last branch is.
        if self.inputs.spare().is_none() && !may_follow(end, furthest, self.plan.kv_capacity) {
            return Err(RunError::Position(end));
        }
        let of_sequence = self.inputs.iter().filter(|input| input.sequence == last.sequence);
        let first = of_sequence.map(|input| input.position).min().unwrap_or(end);
        let taken = match self.inputs.spare() {
            Some(spare) => self.take_spare(column, last.sequence, first..spare),
            None => Ok(()),
        };
        if let Some(kept) = self.ends.get_mut(last.sequence as usize) {
            *kept = if taken.is_ok() { end } else { first };
        }
        taken
    }

    /// Puts the keys and values of a column and its ancestors in their places, which lie among
    /// those of the pass; spare ones lie behind these.
    fn take_spare(
        &mut self,
        column: usize,
        sequence: u32,
        of_pass: Range<u32>,
    ) -> Result<(), RunError> {
        let Self { plan, program, kv, inputs, planes, .. } = self;
        let spare = of_pass.end;
        let places = of_pass.start..spare.saturating_add(inputs.len() as u32);
        for (op, layer) in program.steps(*planes) {
            let Op::Attention { cache, heads, .. } = op else { continue };
            let index = sequence * program.header().kv_caches + cache.at(layer);
            let shape = plan.cache_shape(heads);
            let bytes = kv.get(&shape, index, places.clone())?;
            let mut cache = Cache::new(bytes, &shape, plan.window()).ok_or(RunError::Program)?;
            for (column, input) in inputs.path(column) {
                cache.copy(spare + column as u32, input.position);
            }
            inputs.path(column).for_each(|(_, input)| kv.changed(input.position));
        }
        Ok(())
    }

    /// Shows `visit` the bytes of the KV caches that hold sequence 0's first `length` positions, to
    /// store them: layer after layer, head after head the keys in panels of 8 places, the values,
    /// and for int8 the scales of both, each as they lie in memory. Once a text is longer than the
    /// caches, all places are shown. The inner result is the visitor's.
    ///
    /// # Errors
    /// A cache that can't be had.
    pub fn visit_kv<E>(
        &mut self,
        length: u32,
        mut visit: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, RunError> {
        self.walk_kv(length, false, |bytes| visit(bytes))
    }

    /// Has `fill` put what [`Self::visit_kv`] showed back where it was.
    ///
    /// # Errors
    /// Those of [`Self::visit_kv`].
    pub fn fill_kv<E>(
        &mut self,
        length: u32,
        fill: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, RunError> {
        self.walk_kv(length, true, fill)
    }

    fn walk_kv<E>(
        &mut self,
        length: u32,
        fills: bool,
        mut visit: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, RunError> {
        let Self { plan, program, kv, .. } = self;
        let places = length.min(plan.kv_capacity);
        for (op, layer) in program.steps(Planes::FULL) {
            let Op::Attention { cache, heads, .. } = op else { continue };
            let shape = plan.cache_shape(heads);
            let bytes = kv.get(&shape, cache.at(layer), 0..places)?;
            for range in shape.ranges(0..places) {
                if let Err(error) = visit(bytes.get_mut(range).unwrap_or_default()) {
                    return Ok(Err(error));
                }
            }
            if fills {
                (0..places).for_each(|place| kv.changed(place));
            }
        }
        Ok(Ok(()))
    }

    /// Goes on behind sequence 0's first `length` positions, whose keys and values came with
    /// [`Self::fill_kv`].
    ///
    /// # Errors
    /// A length that is too large.
    pub fn resume(&mut self, length: u32) -> Result<(), RunError> {
        let end = self.ends.first_mut().filter(|_| length <= LAST_POSITION);
        *end.ok_or(RunError::Position(length))? = length;
        Ok(())
    }

    /// The inputs of the last pass.
    pub(crate) fn inputs(&self) -> &Inputs<'a> {
        &self.inputs
    }

    /// The logits of a selected token of the last pass: one float for each token of the
    /// vocabulary. Empty past the last.
    #[must_use]
    pub fn logits(&self, column: usize) -> &[f32] {
        self.memory.selected.get(self.logits_range(column)).unwrap_or_default()
    }

    /// As [`Self::logits`], to change them before sampling.
    pub fn logits_mut(&mut self, column: usize) -> &mut [f32] {
        let range = self.logits_range(column);
        self.memory.selected.get_mut(range).unwrap_or_default()
    }

    fn logits_range(&self, column: usize) -> Range<usize> {
        let header = self.program.header();
        let Some(slot) = self.program.slot(header.logits) else { return 0..0 };
        let columns = self.plan.logit_columns as usize;
        if column >= columns {
            return 0..0;
        }
        let start = slot.offset as usize * columns + column * slot.width as usize;
        start..start + header.vocab_size as usize
    }

    /// Says which weights come after an operation's where some between are left out.
    fn expect(&mut self, op: &Op, layer: u32, later: &Steps<'a>) {
        let Self { program, pages, planes, .. } = self;
        if *planes == Planes::FULL {
            return;
        }
        if let Some(now) = program.range(op, layer) {
            let later = later.clone().filter_map(|(op, layer)| program.range(&op, layer));
            pages.expect(&now, later.chain(program.ranges_in_order(*planes)));
        }
    }

    /// Runs one operation.
    fn step(&mut self, op: &Op, layer: u32) -> Result<(), RunError> {
        let Self { program, memory, pages, carry, kernels, parallel, inputs, plan, .. } = self;
        let window = plan.window();
        let tensor = |weight: PerLayer| program.tensor(weight.at(layer)).ok_or(RunError::Program);
        let (all, selected) = (inputs.len(), inputs.selected().count());
        let columns = |output: &ColumnsMut<'_>| if output.selected { selected } else { all };
        match *op {
            Op::Repeat { .. } | Op::Residual { .. } => return Err(RunError::Program),
            Op::Embed { weight, output } => {
                let ([], output) = memory.split(program, [], output)?;
                embed::embed(&tensor(weight)?, pages, carry, inputs, output)?;
            }
            Op::RmsNorm { weight, epsilon, input, output } => {
                let ([input], output) = memory.split(program, [input], output)?;
                let columns = columns(&output);
                let weight = stream(pages, carry, &tensor(weight)?);
                norm::rms_norm(weight, epsilon, input, output, columns)?;
            }
            Op::MatMul { weight, input, output, accumulate } => {
                let ([input], output) = memory.split(program, [input], output)?;
                let columns = columns(&output);
                if let Some(observer) = &mut self.observer {
                    (0..columns).for_each(|c| observer(weight.at(layer), input.column(c)));
                }
                let (kernels, parallel, staging) = (*kernels, *parallel, &mut *self.staging);
                let machine = matmul::Machine { kernels, parallel, pages, carry, staging };
                matmul::matmul(machine, &tensor(weight)?, input, output, columns, accumulate)?;
            }
            Op::RotaryAngles { frequencies, output } => {
                let ([], output) = memory.split(program, [], output)?;
                let frequencies = stream(pages, carry, &tensor(frequencies)?);
                rope::rotary_angles(frequencies, window, inputs, output)?;
            }
            Op::Rotary { angles, value, head_width } => {
                let ([angles], heads) = memory.split(program, [angles], value)?;
                let columns = columns(&heads);
                rope::rotary(angles, head_width as usize, heads, columns);
            }
            Op::Attention { cache, heads, scale, query, key, value, angles, output } => {
                let attended = [query, key, value, angles];
                let ([query, key, value, angles], mut output) =
                    memory.split(program, attended, output)?;
                let attention = Attention { heads, scale, query, key, value, angles, window };
                let mut next = 0;
                while let Some(run) = inputs.run(next) {
                    next = run.columns.end;
                    let index = run.sequence * program.header().kv_caches + cache.at(layer);
                    let (shape, spare) = (plan.cache_shape(heads), inputs.spare());
                    let held = 0..run.position.min(window.capacity);
                    let bytes = self.kv.get(&shape, index, held)?;
                    let mut cache = Cache::new(bytes, &shape, window).ok_or(RunError::Program)?;
                    attention.attend(kernels, *parallel, &mut cache, &mut output, &run, spare);
                    for column in run.columns.clone() {
                        self.kv.changed(window.place(run.position_of(column)));
                        if let Some(spare) = spare {
                            self.kv.changed(spare + column as u32);
                        }
                    }
                }
            }
            Op::Gated { activation, gate, up, output } => {
                let ([gate, up], output) = memory.split(program, [gate, up], output)?;
                let columns = columns(&output);
                activation::gated(activation, gate, up, output, columns, *parallel);
            }
            Op::Select { input, output } => memory.select(program, input, output, inputs)?,
        }
        Ok(())
    }
}

fn stream<'s, 'a>(
    pages: &'s mut Pages<'a>,
    carry: &'s mut [u8],
    tensor: &Tensor,
) -> Stream<'s, 'a> {
    Stream::new(pages, carry, tensor.address, tensor.bytes(), tensor.format.unit_bytes())
}

/// The slots.
struct Memory<'a> {
    /// Slots with a column for every token.
    all: &'a mut [f32],
    /// Slots with a column for every token whose logits are wanted.
    selected: &'a mut [f32],
    columns: usize,
    logit_columns: usize,
}

impl Memory<'_> {
    /// Floats between a value's first one and the end of its slot's last column.
    fn range(&self, slot: Slot, value: Value) -> Range<usize> {
        let columns = if slot.selected { self.logit_columns } else { self.columns };
        let start = slot.offset as usize * columns;
        start + value.first as usize..start + slot.width as usize * columns
    }

    /// The inputs' columns, and the output's to write; they lie in slots that do not overlap.
    fn split<const N: usize>(
        &mut self,
        program: &Program<'_>,
        inputs: [Value; N],
        output: Value,
    ) -> Result<([Columns<'_>; N], ColumnsMut<'_>), RunError> {
        let slot = program.slot(output.slot).ok_or(RunError::Program)?;
        let range = self.range(slot, output);
        let mut ranges = [const { (0..0, 0, 0) }; N];
        for (found, input) in ranges.iter_mut().zip(inputs) {
            let slot = program.slot(input.slot).ok_or(RunError::Program)?;
            *found = (self.range(slot, input), slot.width as usize, input.width as usize);
        }
        let memory = if slot.selected { &mut *self.selected } else { &mut *self.all };
        let (before, rest) = memory.split_at_mut_checked(range.start).ok_or(RunError::Program)?;
        let (values, behind) = rest.split_at_mut_checked(range.len()).ok_or(RunError::Program)?;
        let (before, behind) = (&*before, &*behind);
        let inputs = ranges.map(|(input, stride, width)| {
            let values = match input.start.checked_sub(range.end) {
                Some(start) => behind.get(start..start + input.len()),
                None => before.get(input),
            };
            Columns { values: values.unwrap_or_default(), stride, width }
        });
        let (stride, width) = (slot.width as usize, output.width as usize);
        Ok((inputs, ColumnsMut { values, stride, width, selected: slot.selected }))
    }

    /// Copies the columns whose logits are wanted.
    fn select(
        &mut self,
        program: &Program<'_>,
        input: Value,
        output: Value,
        inputs: &Inputs<'_>,
    ) -> Result<(), RunError> {
        let slots = (program.slot(input.slot), program.slot(output.slot));
        let (Some(from), Some(to)) = slots else { return Err(RunError::Program) };
        let (source, target) = (self.range(from, input), self.range(to, output));
        let source = self.all.get(source).ok_or(RunError::Program)?;
        let target = self.selected.get_mut(target).ok_or(RunError::Program)?;
        let (stride, targets) =
            (from.width as usize, target.chunks_mut((to.width as usize).max(1)));
        for (column, target) in inputs.selected().zip(targets) {
            let source = source.get(column * stride..).unwrap_or_default();
            let width = input.width as usize;
            if let (Some(source), Some(target)) = (source.get(..width), target.get_mut(..width)) {
                target.copy_from_slice(source);
            }
        }
        Ok(())
    }
}
