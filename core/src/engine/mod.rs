//! The engine: plays a program over a fixed arena, pulling pages of weights as it goes.
//!
//! A player has what operations are played with; they know what to do ([`crate::ops`]). The engine
//! on top of it runs texts. Neither knows what architecture the operations make up.

pub(crate) mod memory;
pub(crate) mod player;
mod states;

use memory::{Element, Memory, Region};
pub use player::Observer;
use player::Player;
use states::States;

use crate::arena::{Arena, Layout};
use crate::error::{LoadError, RunError};
use crate::ops::Op;
use crate::page::Pages;
use crate::pass::{Input, Inputs, LAST_POSITION};
use crate::plan::Plan;
use crate::program::{ALL, Dtype, Parts, Per, Port, Program, Steps};
use crate::simd::Kernels;
use crate::state::kv::Cache;
use crate::state::{Reach, State, StateStore};
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
    /// CRC-32C of each page from `first_checked` on, `[pages of weights][4 bytes, little-endian]`.
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
        let layout = Layout::new(&self.program, &self.plan, pages);
        // Other units than rows of channels are short.
        if cfg!(feature = "int8") && pager.is_mapped() {
            return layout.map(|layout| Layout { carry: 0, ..layout });
        }
        layout
    }
}

/// Bytes of stack that an engine, a tokenizer and what a firmware calls them with get by with, on 32-bit
/// Arm, optimized for size; give them 1 KB more, for interrupts. The firmware in `boards/` is held to it.
pub const STACK_BYTES: usize = 9 << 10;

/// Which tokens' logits a pass computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those of the last token.
    Last,
    /// Those of every token, at most the plan's `logit_columns`.
    All,
}

/// Runs texts: sequences of tokens, each with states of its own.
pub struct Engine<'a> {
    player: Player<'a>,
    parts: &'a dyn Parts,
    /// The adapter of tokens that come without inputs.
    adapter: u16,
    reach: Reach,
    /// The output that tokens are chosen from.
    logits: Option<Port<'a>>,
    /// Some attention sees all of a text, which one pass has to run whole.
    whole: bool,
    /// Where each sequence goes on.
    ends: &'a mut [u32],
}

impl<'a> Engine<'a> {
    /// An engine in `memory`: `[Layout::total() bytes]` or more, where [`Model::layout`] says how many,
    /// aligned to [`ALIGNMENT`](crate::arena::ALIGNMENT) bytes.
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
        let states = States::Arena(core::mem::take(&mut arena.states));
        Ok(Self::build(model, arena, states, pager, kernels, parallel))
    }

    /// As [`Self::new`], with the states of all sequences in `store` instead of in `memory`.
    ///
    /// # Errors
    /// Those of [`Self::new`].
    pub fn with_store(
        model: Model<'a>,
        memory: &'a mut [u8],
        store: &'a mut dyn StateStore,
        pager: &'a mut dyn Pager,
        kernels: &'a Kernels,
        parallel: &'a dyn Parallel,
    ) -> Result<Self, LoadError> {
        let layout = Layout { states: 0, ..model.layout(pager)? };
        let arena = Arena::new(memory, &layout)?;
        Ok(Self::build(model, arena, States::Store(store), pager, kernels, parallel))
    }

    fn build(
        model: Model<'a>,
        arena: Arena<'a>,
        states: States<'a>,
        pager: &'a mut dyn Pager,
        kernels: &'a Kernels,
        parallel: &'a dyn Parallel,
    ) -> Self {
        let Model { program, plan, end, checksums, first_checked } = model;
        let ends = arena.ends.get_mut(..plan.sequences as usize).unwrap_or_default();
        ends.fill(0);
        let pages =
            Pages::new(pager, kernels, parallel, end, checksums, first_checked, arena.verified);
        let columns = [1, plan.columns as usize, plan.logit_columns as usize];
        let [pass, tokens, outputs] = columns;
        let memory = Memory([
            Region { bytes: arena.per_pass, columns: pass },
            Region { bytes: arena.per_token, columns: tokens },
            Region { bytes: arena.per_output, columns: outputs },
        ]);
        let per_output = |port: &Port<'_>| {
            let slot = program.slot(port.value.slot);
            slot.is_some_and(|slot| (slot.per, slot.dtype) == (Per::Output, Dtype::F32))
        };
        let logits = program.outputs().find(|port| port.name == LOGITS).filter(per_output);
        Self {
            parts: ALL,
            adapter: 0,
            reach: Reach::new(program.states(), &plan),
            logits,
            whole: program.runs_texts_whole(),
            ends,
            player: Player {
                program,
                plan,
                memory,
                staging: arena.staging,
                carry: arena.carry,
                states,
                pages,
                kernels,
                parallel,
                observer: None,
                inputs: Inputs::new(arena.inputs),
                pending: None,
                #[cfg(feature = "tensors")]
                begins: true,
            },
        }
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Program<'a> {
        &self.player.program
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.player.plan
    }

    /// The position of the next token of sequence 0.
    #[must_use]
    pub fn position(&self) -> u32 {
        self.ends.first().copied().unwrap_or(0)
    }

    /// Shows the inputs of every multiplication to `observer` from now on.
    pub fn observe(&mut self, observer: Observer<'a>) {
        self.player.observer = Some(observer);
    }

    /// Plays these parts from the next pass on; all of them at first. Of adapters, each token meets
    /// only the one that its input asks for. What was computed before stays in the states as it is.
    pub fn set_parts(&mut self, parts: &'a dyn Parts) {
        self.parts = parts;
    }

    /// The adapter of tokens that come without inputs, as in [`Self::forward`]; 0, as at first, for
    /// none.
    #[must_use]
    pub fn adapter(&self) -> u16 {
        self.adapter
    }

    /// Gives tokens that come without inputs this adapter from the next pass on.
    pub fn set_adapter(&mut self, adapter: u16) {
        self.adapter = adapter;
    }

    /// Begins new texts; a program that takes no tokens forgets what it kept.
    pub fn reset(&mut self) {
        self.ends.fill(0);
    }

    /// Runs one pass over `tokens` of sequence 0, which follow those of earlier passes: `[tokens]`, 1 to
    /// the plan's `columns`, each below the program's `vocab_size`.
    ///
    /// # Errors
    /// Those of [`Self::pass`].
    pub fn forward(&mut self, tokens: &[u32], wanted: Wanted) -> Result<(), RunError> {
        let (first, last) = (self.position(), tokens.len().saturating_sub(1));
        let adapter = self.adapter;
        self.pass(tokens.iter().enumerate().map(|(column, token)| Input {
            token: *token,
            sequence: 0,
            position: first.saturating_add(column as u32),
            logits: wanted == Wanted::All || column == last,
            adapter,
            segment: 0,
        }))
    }

    /// Runs one pass over tokens of any sequences; [`crate::pass`] says how their order matters.
    ///
    /// An input follows the last one of its sequence, or goes back: at position 0 a new text
    /// begins, and anywhere else what was further on is forgotten, which is possible while the
    /// sequence is no longer than the cache. Within the pass it goes back to its sequence's first
    /// input at most.
    ///
    /// After an error the pass did not happen, but for what inputs that go back made forgotten; of
    /// a program with a recurrence, texts that the pass had begun to play begin anew. (The cache's
    /// oldest positions may be gone once a text is longer than the cache.)
    ///
    /// # Errors
    /// More inputs than the plan has columns, or none; a token outside of the vocabulary; an input
    /// that does not follow, or asks for an adapter that is none; branches without room for spare
    /// places; a page or a KV cache that can't be had; or weights that lead to infinite values.
    pub fn pass(&mut self, inputs: impl IntoIterator<Item = Input>) -> Result<(), RunError> {
        self.player.inputs.set(inputs.into_iter())?;
        self.run().inspect_err(|_| self.player.inputs.clear())
    }

    /// Plays a program that takes no tokens over its inputs, set with [`Self::input_mut`]. What it keeps, it
    /// recalls in the next pass, until [`Self::reset`] or an error.
    ///
    /// # Errors
    /// A program that takes tokens; a page that can't be had; or outputs that are not finite.
    pub fn infer(&mut self) -> Result<(), RunError> {
        if self.player.program.header().vocab_size > 0 {
            return Err(RunError::TokenCount { given: 0, limit: self.player.plan.columns });
        }
        #[cfg(feature = "tensors")]
        return self.follow();
        #[cfg(not(feature = "tensors"))]
        self.play()
    }

    /// Plays a pass that recalls what the one before kept.
    #[cfg(feature = "tensors")]
    fn follow(&mut self) -> Result<(), RunError> {
        // What was kept in part has no way back.
        let passes = self.ends.first_mut().map(core::mem::take).unwrap_or_default();
        self.player.begins = passes == 0;
        self.play()?;
        if let Some(end) = self.ends.first_mut() {
            *end = passes.saturating_add(1);
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), RunError> {
        let Player { inputs, plan, program, .. } = &self.player;
        inputs.check(plan, program, self.ends, &self.reach)?;
        if self.whole {
            inputs.check_whole(plan)?;
        }
        for input in self.player.inputs.iter() {
            if let Some(end) = self.ends.get_mut(input.sequence as usize) {
                // A recurrence that was played in part has no way back.
                let lost = self.reach.rewinds == 0;
                *end = if lost { 0 } else { input.position.min(*end) };
            }
        }
        self.play()?;
        for input in self.player.inputs.iter() {
            if let Some(end) = self.ends.get_mut(input.sequence as usize) {
                *end = input.position + 1;
            }
        }
        Ok(())
    }

    fn play(&mut self) -> Result<(), RunError> {
        let (parallel, columns) = (self.player.parallel, self.player.inputs.len());
        let mut played = Err(RunError::Program);
        parallel.pass(columns, &mut || played = self.play_steps());
        played
    }

    fn play_steps(&mut self) -> Result<(), RunError> {
        self.player.pending = None;
        self.player.pages.expect_what_lies_behind();
        let mut steps = self.player.program.steps(self.parts);
        while let Some((op, layer)) = steps.next() {
            self.expect(&op, layer, &steps);
            op.play(&mut self.player, layer)?;
        }
        self.player.pages.end_pass()?;
        let Player { program, memory, inputs, .. } = &self.player;
        for port in program.outputs() {
            let slot = program.slot(port.value.slot).ok_or(RunError::Program)?;
            if slot.dtype != Dtype::F32 {
                continue;
            }
            let columns = memory.read::<f32>(program, port.value)?;
            let mut all = (0..inputs.counts().of(slot.per)).flat_map(|c| columns.column(c));
            if !all.all(|x| x.is_finite()) {
                return Err(RunError::NotFinite);
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
        let inputs = &self.player.inputs;
        let missing = RunError::TokenCount { given: column as u32, limit: inputs.len() as u32 };
        let last = inputs.iter().nth(column).ok_or(missing)?;
        let end = last.position + 1;
        let furthest = inputs.end_before(inputs.len(), last.sequence).unwrap_or(end);
        // Inputs that branch fit into the cache, however deep the last branch is.
        if inputs.spare().is_none() && !self.reach.may_accept(end, furthest) {
            return Err(RunError::Position(end));
        }
        let of_sequence = inputs.iter().filter(|input| input.sequence == last.sequence);
        let first = of_sequence.map(|input| input.position).min().unwrap_or(end);
        let taken = match inputs.spare() {
            Some(spare) => self.take_spare(column, last.sequence, first..spare),
            None => Ok(()),
        };
        if let Some(kept) = self.ends.get_mut(last.sequence as usize) {
            *kept = if taken.is_ok() { end } else { first };
        }
        taken
    }

    /// Has sequence `to` hold the first `length` positions of sequence `from`, and nothing else: what
    /// texts begin with in common is run once. Both may be the same, which goes back. What is held was
    /// computed with the adapter of `from`, so texts with different ones have nothing in common.
    ///
    /// # Errors
    /// A sequence that the plan does not have, or a length that `from` can't go back to; then nothing
    /// has changed.
    pub fn fork(&mut self, from: u32, to: u32, length: u32) -> Result<(), RunError> {
        let end = |sequence: u32| {
            self.ends.get(sequence as usize).copied().ok_or(RunError::Sequence(sequence))
        };
        let (held, _) = (end(from)?, end(to)?);
        if !self.reach.may_follow(length, held) {
            return Err(RunError::Position(length));
        }
        let Player { plan, program, states, .. } = &mut self.player;
        states.fork(program, plan, (from, to), length)?;
        // Its columns can't be accepted any more.
        if self.player.inputs.iter().any(|input| input.sequence == to) {
            self.player.inputs.clear();
        }
        if let Some(end) = self.ends.get_mut(to as usize) {
            *end = length;
        }
        Ok(())
    }

    /// Puts the keys and values of a column and its ancestors in their places, which lie among
    /// those of the pass; spare ones lie behind these.
    fn take_spare(
        &mut self,
        column: usize,
        sequence: u32,
        of_pass: Range<u32>,
    ) -> Result<(), RunError> {
        let Player { plan, program, states, inputs, .. } = &mut self.player;
        let spare = of_pass.end;
        let places = of_pass.start..spare.saturating_add(inputs.len() as u32);
        for (index, _) in (0..).zip(program.states()) {
            let (state, bytes) = states.get(program, plan, index, sequence, places.clone())?;
            let (State::Kv { window, .. }, Some(shape)) = (state, plan.cache_shape(&state)) else {
                continue;
            };
            let cache = Cache::new(bytes, &shape, plan.window(window));
            let mut cache = cache.ok_or(RunError::Program)?;
            for (column, input) in inputs.path(column) {
                cache.copy(spare + column as u32, input.position);
            }
            inputs.path(column).for_each(|(_, input)| states.changed(input.position));
        }
        Ok(())
    }

    /// Shows `visit` the bytes of the states that hold sequence 0's first `length` positions, to
    /// store them: state after state; of a KV cache, head after head the keys in panels of 8 places
    /// (`[panels][width][8]`), the values (`[places][width]`), and for int8 the scales of both
    /// (`[places]`), each as they lie in memory. Once a text is longer
    /// than a cache, all places are shown. The inner result is the visitor's.
    ///
    /// # Errors
    /// A cache that can't be had.
    pub fn visit_states<E>(
        &mut self,
        length: u32,
        mut visit: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, RunError> {
        self.walk_states(length, false, |bytes| visit(bytes))
    }

    /// Has `fill` put what [`Self::visit_states`] showed back where it was.
    ///
    /// # Errors
    /// Those of [`Self::visit_states`].
    pub fn fill_states<E>(
        &mut self,
        length: u32,
        fill: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, RunError> {
        self.walk_states(length, true, fill)
    }

    fn walk_states<E>(
        &mut self,
        length: u32,
        fills: bool,
        mut visit: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, RunError> {
        let Player { plan, program, states, .. } = &mut self.player;
        for (index, state) in (0..).zip(program.states()) {
            let places = length.min(plan.cache_shape(&state).map_or(0, |shape| shape.capacity));
            let (_, bytes) = states.get(program, plan, index, 0, 0..places)?;
            for range in plan.held_ranges(&state, places) {
                if let Err(error) = visit(bytes.get_mut(range).unwrap_or_default()) {
                    return Ok(Err(error));
                }
            }
            if fills {
                (0..places).for_each(|place| states.changed(place));
            }
        }
        Ok(Ok(()))
    }

    /// Goes on behind sequence 0's first `length` positions, whose states came with
    /// [`Self::fill_states`].
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
        &self.player.inputs
    }

    /// Positions up to which inputs may branch, spare places included.
    pub(crate) fn branching_places(&self) -> u32 {
        self.reach.rewinds
    }

    /// True if what a pass ran can't be taken back, so that nothing is run on trust.
    pub(crate) fn goes_only_on(&self) -> bool {
        self.reach.rewinds == 0
    }

    /// The logits of a selected token of the last pass, `[vocab_size]`. Empty past the last, and
    /// without an output of that name.
    #[must_use]
    pub fn logits(&self, column: usize) -> &[f32] {
        self.logits.map_or(&[], |port| self.output(&port, column))
    }

    /// As [`Self::logits`], `[vocab_size]` or empty, to change them before sampling.
    pub fn logits_mut(&mut self, column: usize) -> &mut [f32] {
        let Player { memory, program, inputs, .. } = &mut self.player;
        let Some(port) = self.logits else { return &mut [] };
        let split = memory.split(program, inputs.counts(), [], port.value);
        split.map_or(&mut [], |([], output)| output.into_column(column))
    }

    /// A column of an output of floats of the last pass, `[port.value.width]`; empty past the last, and
    /// if the output's elements are others.
    #[must_use]
    pub fn output(&self, port: &Port<'_>, column: usize) -> &[f32] {
        self.elements(port, Dtype::F32, column)
    }

    /// A column of an output of signed bytes of the last pass, `[port.value.width]`, the dimensions of
    /// its slot in row-major order (`NHWC`); empty past the last, and if the elements are others.
    #[must_use]
    pub fn output_i8(&self, port: &Port<'_>, column: usize) -> &[i8] {
        self.elements(port, Dtype::I8, column)
    }

    fn elements<T: Element>(&self, port: &Port<'_>, dtype: Dtype, column: usize) -> &[T] {
        let Player { memory, program, inputs, .. } = &self.player;
        let Some(slot) = program.slot(port.value.slot).filter(|slot| slot.dtype == dtype) else {
            return &[];
        };
        let Ok(columns) = memory.read(program, port.value) else { return &[] };
        if column < inputs.counts().of(slot.per) { columns.column(column) } else { &[] }
    }

    /// The bytes of an input, to be set before [`Self::infer`]: `[port.value.width]` little-endian
    /// elements of its slot's type, the dimensions in row-major order (`NHWC`). Empty if the program has
    /// no such input.
    pub fn input_mut(&mut self, name: &str) -> &mut [u8] {
        let Player { memory, program, .. } = &mut self.player;
        let Some(port) = program.inputs().find(|port| port.name == name) else { return &mut [] };
        memory.bytes_mut(program, port.value)
    }

    /// Says which weights come after an operation's where some between are left out.
    fn expect(&mut self, op: &Op, layer: u32, later: &Steps<'a>) {
        let Player { program, pages, .. } = &mut self.player;
        // A build without parts has nothing to leave out.
        if !cfg!(feature = "float") || program.header().parts == 0 {
            return;
        }
        if let Some(now) = program.ranges(op, layer).last() {
            let later = later.clone().flat_map(|(op, layer)| program.ranges(&op, layer));
            pages.expect(&now, later.chain(program.ranges_in_order(self.parts)));
        }
    }
}

/// The output that tokens are chosen from.
pub const LOGITS: &str = "logits";
