//! The engine: plays a program over a fixed arena, pulling pages of weights as it goes.
//!
//! It knows operations, slots and streams; it does not know what architecture they make up.

use crate::arena::{Arena, Layout, Plan};
use crate::error::{LoadError, RunError};
use crate::kv::{Cache, Window};
use crate::ops::{Columns, ColumnsMut, activation, attention, embed, matmul, norm, rope};
use crate::page::{Pages, Stream};
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

/// The last position of a text: up to here, positions are exact as 32-bit floats.
const LAST_POSITION: u32 = 1 << 24;

/// Plays a program.
pub struct Engine<'a> {
    program: Program<'a>,
    plan: Plan,
    memory: Memory<'a>,
    staging: &'a mut [u8],
    carry: &'a mut [u8],
    kv: &'a mut [u8],
    pages: Pages<'a>,
    kernels: &'a Kernels,
    parallel: &'a dyn Parallel,
    observer: Option<Observer<'a>>,
    planes: Planes,
    position: u32,
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
        let arena = Arena::new(memory, &layout)?;
        let Model { program, plan, end, checksums, first_checked } = model;
        let pages =
            Pages::new(pager, kernels, parallel, end, checksums, first_checked, arena.verified);
        Ok(Self {
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
            kv: arena.kv,
            pages,
            kernels,
            parallel,
            observer: None,
            planes: Planes::FULL,
            position: 0,
        })
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

    /// The position of the next token.
    #[must_use]
    pub fn position(&self) -> u32 {
        self.position
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

    /// Begins a new text.
    pub fn reset(&mut self) {
        self.position = 0;
    }

    /// Runs one pass over `tokens`, which follow those of earlier passes.
    ///
    /// After an error the pass did not happen: the position is what it was. (The cache's oldest
    /// positions may be gone once a text is longer than the cache.)
    ///
    /// # Errors
    /// Too many tokens, one outside of the vocabulary, a page that can't be had, or weights that
    /// lead to infinite values.
    pub fn forward(&mut self, tokens: &[u32], wanted: Wanted) -> Result<(), RunError> {
        let limit = match wanted {
            Wanted::Last => self.plan.columns,
            Wanted::All => self.plan.logit_columns,
        };
        let given = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        let room = LAST_POSITION.saturating_sub(self.position);
        if given == 0 || given > limit.min(room) {
            return Err(RunError::TokenCount { given, limit: limit.min(room) });
        }
        let vocabulary = self.program.header().vocab_size;
        if let Some(token) = tokens.iter().find(|t| **t >= vocabulary) {
            return Err(RunError::Token(*token));
        }
        let selected = match wanted {
            Wanted::Last => tokens.len() - 1..tokens.len(),
            Wanted::All => 0..tokens.len(),
        };
        self.play(tokens, &selected)?;
        for column in 0..selected.len() {
            if !self.logits(column).iter().all(|x| x.is_finite()) {
                return Err(RunError::NotFinite);
            }
        }
        self.position += given;
        Ok(())
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

    fn play(&mut self, tokens: &[u32], selected: &Range<usize>) -> Result<(), RunError> {
        let mut steps = self.program.steps(self.planes);
        while let Some((op, layer)) = steps.next() {
            self.expect(&op, layer, &steps);
            self.step(&op, layer, tokens, selected)?;
        }
        Ok(())
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
    fn step(
        &mut self,
        op: &Op,
        layer: u32,
        tokens: &[u32],
        selected: &Range<usize>,
    ) -> Result<(), RunError> {
        let Self { program, memory, pages, carry, kernels, parallel, position, .. } = self;
        let position = *position;
        let window = Window { capacity: self.plan.kv_capacity, sinks: self.plan.kv_sinks };
        let tensor = |weight: PerLayer| program.tensor(weight.at(layer)).ok_or(RunError::Program);
        let columns =
            |output: &ColumnsMut<'_>| if output.selected { selected.len() } else { tokens.len() };
        match *op {
            Op::Repeat { .. } | Op::Residual { .. } => return Err(RunError::Program),
            Op::Embed { weight, output } => {
                let ([], output) = memory.split(program, [], output)?;
                embed::embed(&tensor(weight)?, pages, carry, tokens, output)?;
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
                let columns = columns(&output);
                let frequencies = stream(pages, carry, &tensor(frequencies)?);
                rope::rotary_angles(frequencies, window, position, output, columns)?;
            }
            Op::Rotary { angles, value, head_width } => {
                let ([angles], heads) = memory.split(program, [angles], value)?;
                let columns = columns(&heads);
                rope::rotary(angles, head_width as usize, heads, columns);
            }
            Op::Attention { cache, heads, scale, query, key, value, angles, output } => {
                let inputs = [query, key, value, angles];
                let ([query, key, value, angles], output) =
                    memory.split(program, inputs, output)?;
                let (format, shape) = (self.plan.kv_format, (heads.kv, heads.width));
                let cache = Cache::new(self.kv, format, cache.at(layer), shape, window);
                let mut cache = cache.ok_or(RunError::Program)?;
                let columns = columns(&output);
                let inputs = attention::Inputs { heads, scale, query, key, value, angles, window };
                attention::attention(
                    kernels, *parallel, &inputs, &mut cache, output, position, columns,
                );
            }
            Op::Gated { activation, gate, up, output } => {
                let ([gate, up], output) = memory.split(program, [gate, up], output)?;
                let columns = columns(&output);
                activation::gated(activation, gate, up, output, columns, *parallel);
            }
            Op::Select { input, output } => memory.select(program, input, output, selected)?,
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
        selected: &Range<usize>,
    ) -> Result<(), RunError> {
        let slots = (program.slot(input.slot), program.slot(output.slot));
        let (Some(from), Some(to)) = slots else { return Err(RunError::Program) };
        let (source, target) = (self.range(from, input), self.range(to, output));
        let source = self.all.get(source).ok_or(RunError::Program)?;
        let target = self.selected.get_mut(target).ok_or(RunError::Program)?;
        let sources = source.chunks((from.width as usize).max(1)).skip(selected.start);
        for (source, target) in
            sources.take(selected.len()).zip(target.chunks_mut((to.width as usize).max(1)))
        {
            let width = input.width as usize;
            if let (Some(source), Some(target)) = (source.get(..width), target.get_mut(..width)) {
                target.copy_from_slice(source);
            }
        }
        Ok(())
    }
}
