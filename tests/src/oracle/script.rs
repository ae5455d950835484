//! What is done with the texts of an engine: passes over some of them, which go on, go back, branch,
//! are refused or fail; what is accepted of branches; and forks. Every result belongs to one text, whatever was
//! done before.

use super::choices::Choices;
use super::rules::{Rules, branch};
use omex_core::pass::Input;

/// A token, the adapter that it meets, and the segment that it is in.
pub(super) type Token = (u32, u16, u8);

/// Segments of a text.
pub(super) const SEGMENTS: u32 = 3;

/// A text, and the place in it whose output some column computes.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) text: Vec<Token>,
    pub(super) place: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A pass, and what its columns see whose outputs are wanted.
    Pass(Vec<Input>, Vec<Seen>),
    /// A pass that is refused.
    Refused(Vec<Input>),
    /// A pass that fails at its end.
    Failed(Vec<Input>),
    Accept(usize),
    /// From a sequence to another, and how much of it.
    Fork([u32; 2], usize),
}

/// One pass over all of a text, or one for each of its tokens.
pub(super) fn plain(text: &[Token], one_by_one: bool) -> Vec<Step> {
    let count = if one_by_one { 1 } else { text.len() };
    let input = |(position, (token, adapter, segment)): (usize, &Token)| Input {
        token: *token,
        sequence: 0,
        position: position as u32,
        logits: true,
        adapter: *adapter,
        segment: *segment,
    };
    let inputs: Vec<_> = text.iter().enumerate().map(input).collect();
    let pass = |inputs: &[Input]| {
        let seen = |i: &Input| Seen { text: text.to_vec(), place: i.position as usize };
        Step::Pass(inputs.to_vec(), inputs.iter().map(seen).collect())
    };
    inputs.chunks(count).map(pass).collect()
}

/// A script of some steps that keep to the rules.
pub(super) fn write(random: &mut Choices<'_>, rules: &Rules) -> Vec<Step> {
    let texts = vec![vec![]; rules.plan.sequences as usize];
    let mut writer = Writer { rules, random, texts, last: vec![] };
    let count = writer.random.between(1, 7);
    (0..count).flat_map(|_| writer.steps()).collect()
}

/// An input, and the text that it ends.
type Column = (Input, Vec<Token>);

/// A script that is being written.
struct Writer<'r, 'c> {
    rules: &'r Rules,
    random: &'r mut Choices<'c>,
    /// What each sequence holds.
    texts: Vec<Vec<Token>>,
    /// The last pass, of which something can be accepted.
    last: Vec<Column>,
}

fn inputs(columns: &[Column]) -> Vec<Input> {
    columns.iter().map(|(input, _)| *input).collect()
}

impl Writer<'_, '_> {
    fn steps(&mut self) -> Vec<Step> {
        let branched = branch(&inputs(&self.last));
        let step = match self.random.below(10) {
            0 | 1 => self.accept(),
            _ if branched && self.random.chance(2) => self.accept(),
            2 | 3 => return self.fork(),
            4 => Some(self.refused()),
            5 if self.random.chance(2) => return self.failed(),
            _ => None,
        };
        vec![step.unwrap_or_else(|| self.pass())]
    }

    fn lengths(&self) -> Vec<usize> {
        self.texts.iter().map(Vec::len).collect()
    }

    /// Columns that may be run now.
    fn columns(&mut self) -> Vec<Column> {
        let lengths = self.lengths();
        let mut columns = vec![];
        for _ in 0..self.random.between(1, 4) {
            let longer = [columns.clone(), self.run(&columns)].concat();
            if self.rules.allow(&lengths, &inputs(&longer)) {
                columns = longer;
            }
        }
        if columns.is_empty() {
            let sequence = self.random.below(self.rules.plan.sequences);
            columns = self.run_from(vec![], sequence, 1);
        }
        columns
    }

    /// A pass that leaves of its texts what goes before its inputs; or nothing, so that none goes on.
    fn failed(&mut self) -> Vec<Step> {
        let inputs = inputs(&self.columns());
        let Some(kept) = self.rules.may_fail(&inputs) else { return vec![] };
        let old = self.lengths();
        for input in &inputs {
            self.texts[input.sequence as usize].truncate(kept.min(input.position as usize));
        }
        self.last.clear();
        let ended = inputs.iter().find(|input| old[input.sequence as usize] > 0 && kept == 0);
        let on = ended.map(|of| Input { position: old[of.sequence as usize] as u32, ..*of });
        let on = on.map(|input| Step::Refused(vec![input]));
        [Step::Failed(inputs)].into_iter().chain(on).collect()
    }

    fn pass(&mut self) -> Step {
        let columns = self.columns();
        self.pass_over(columns)
    }

    fn pass_over(&mut self, mut columns: Vec<Column>) -> Step {
        let mut wanted = self.rules.plan.logit_columns;
        for (input, _) in &mut columns {
            input.logits = wanted > 0 && !self.random.chance(4);
            wanted -= u32::from(input.logits);
        }
        for (input, text) in &columns {
            self.texts[input.sequence as usize].clone_from(text);
        }
        let of = |input: &Input| self.texts[input.sequence as usize].clone();
        let seen = |(input, text): &Column| Seen {
            text: if self.rules.whole { of(input) } else { text.clone() },
            place: input.position as usize,
        };
        let seen = columns.iter().filter(|(input, _)| input.logits).map(seen).collect();
        self.last = columns;
        Step::Pass(inputs(&self.last), seen)
    }

    /// More columns of a pass: of the last sequence, behind what it holds or further back, or of any.
    fn run(&mut self, pass: &[Column]) -> Vec<Column> {
        let any = self.random.below(self.rules.plan.sequences);
        let last = pass.last().map(|(input, _)| input.sequence);
        let sequence = last.filter(|_| self.random.chance(2)).unwrap_or(any);
        let mut earlier = pass.iter().filter(|(input, _)| input.sequence == sequence);
        let first = earlier.next().map_or(0, |(input, _)| input.position as usize);
        let text = pass.iter().rfind(|(input, _)| input.sequence == sequence);
        let mut text = text.map_or_else(|| self.texts[sequence as usize].clone(), |c| c.1.clone());
        let start = match self.random.below(5) {
            _ if self.rules.whole => 0,
            0 => 0,
            1 | 2 => self.random.between(first.min(text.len()) as u32, text.len() as u32) as usize,
            _ => text.len(),
        };
        text.truncate(start);
        let most = self.random.pick(&[4, 4, 4, 8, 40]);
        let length = self.random.between(1, most);
        self.run_from(text, sequence, length)
    }

    fn run_from(&mut self, mut text: Vec<Token>, sequence: u32, length: u32) -> Vec<Column> {
        let adapter = self.random.pick(&self.rules.adapters);
        let column = |_| {
            let (token, position) = (self.random.below(self.rules.vocabulary), text.len() as u32);
            let segment = self.random.below(SEGMENTS) as u8;
            text.push((token, adapter, segment));
            (Input { token, sequence, position, logits: false, adapter, segment }, text.clone())
        };
        (0..length).map(column).collect()
    }

    /// Leaves the text behind some column of the last pass.
    fn accept(&mut self) -> Option<Step> {
        let column = self.random.below(self.last.len().max(1) as u32) as usize;
        let (input, text) = self.last.get(column)?.clone();
        if !self.rules.may_accept(&inputs(&self.last), column) {
            return None;
        }
        self.texts[input.sequence as usize] = text;
        Some(Step::Accept(column))
    }

    /// A fork of some text, which may go on at once.
    fn fork(&mut self) -> Vec<Step> {
        let sequences = self.rules.plan.sequences;
        let [from, to] = [self.random.below(sequences), self.random.below(sequences)];
        let mut text = self.texts[from as usize].clone();
        let length = self.random.pick(&[0, text.len(), text.len(), text.len() / 2]);
        if !self.rules.may_go_back(text.len(), length) {
            return vec![];
        }
        text.truncate(length);
        self.texts[to as usize].clone_from(&text);
        if self.last.iter().any(|(input, _)| input.sequence == to) {
            self.last.clear();
        }
        let mut steps = vec![Step::Fork([from, to], length)];
        let columns = self.run_from(text, to, 1);
        if !self.rules.whole && self.rules.allow(&self.lengths(), &inputs(&columns)) {
            steps.push(self.pass_over(columns));
        }
        steps
    }

    /// An input whose token, sequence, position or adapter is not there; none, or too many; a text that
    /// goes back before what the pass itself began with; or a whole one that the cache has no room for.
    fn refused(&mut self) -> Step {
        self.last.clear();
        let (end, plan) = (self.texts[0].len() as u32, self.rules.plan);
        let (token, sequence, segment) = (0, 0, 0);
        let good = Input { token, sequence, position: end, logits: false, adapter: 0, segment };
        let back = [good, Input { position: end.saturating_sub(1), ..good }];
        let long = (0..=plan.kv_capacity).map(|position| Input { position, ..good });
        let beyond = end + self.random.between(1, 6);
        Step::Refused(match self.random.below(8) {
            0 => vec![Input { token: self.rules.vocabulary, ..good }],
            1 => vec![Input { sequence: plan.sequences, ..good }],
            2 => vec![Input { position: beyond, ..good }],
            3 => vec![Input { adapter: u16::MAX, ..good }],
            4 => vec![],
            5 if end > 0 => back.to_vec(),
            6 if self.rules.whole => long.collect(),
            _ => vec![Input { position: 0, ..good }; plan.columns as usize + 1],
        })
    }
}
