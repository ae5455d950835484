//! Where the operations of a block are drawn: below all that they read, side by side where they need not
//! wait for one another.

use super::{Flow, Picture};
use std::collections::{BTreeMap, BTreeSet};

/// Of an operation's box.
pub(super) const WIDTH: f64 = 272.0;
pub(super) const HEIGHT: f64 = 66.0;
/// Of what names another block.
pub(super) const PORT_HEIGHT: f64 = 22.0;
const GAP: f64 = 26.0;
/// Between lines that pass by rows.
const LANE: f64 = 12.0;

/// What is drawn of a block.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Thing {
    /// An operation, by its number.
    Node(usize),
    /// Where something comes from, or goes to.
    Port(String),
}

/// A thing and its place.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) thing: Thing,
    row: usize,
    /// Its left upper corner.
    pub(super) x: f64,
    pub(super) y: f64,
}

/// A block's drawing.
#[derive(Default)]
pub(super) struct Layout {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) things: Vec<Placed>,
    /// Paths of lines, and of the heads of arrows.
    pub(super) lines: Vec<String>,
    pub(super) heads: Vec<String>,
    /// The largest part of the whole that an operation of any block takes.
    pub(super) most: f64,
}

/// Flows by the block that they begin or end in.
pub(super) struct Flows<'p> {
    picture: &'p Picture,
    /// For each block: what comes in, and what goes out or stays.
    to: Vec<Vec<Flow>>,
    from: Vec<Vec<Flow>>,
    /// The largest part of the whole that an operation takes.
    most: f64,
}

impl<'p> Flows<'p> {
    pub(super) fn new(picture: &'p Picture) -> Self {
        let mut to = vec![vec![]; picture.blocks.len()];
        let mut from = to.clone();
        for flow in &picture.flows {
            to[flow.to.0].push(*flow);
            from[flow.from.0].push(*flow);
        }
        let nodes = picture.blocks.iter().flat_map(|block| &block.nodes);
        let most = nodes.map(|node| picture.share(&node.costs)).fold(0.0, f64::max);
        Self { picture, to, from, most }
    }

    /// Lays out a block.
    pub(super) fn layout(&self, block: usize) -> Layout {
        let (things, edges) = self.things(block);
        let mut drawing = Drawing { things, edges, layout: Layout::default() };
        drawing.layout.most = self.most;
        drawing.rows();
        drawing.places();
        drawing.connect();
        drawing.layout
    }

    /// What is drawn of a block, in an order in which all edges lead forward; and these edges.
    fn things(&self, block: usize) -> (Vec<Thing>, Vec<(usize, usize)>) {
        let mut edges = BTreeSet::new();
        let outside = self.to[block].iter().filter(|flow| flow.from.0 != block);
        let sources: BTreeSet<_> = outside.map(|flow| flow.from).collect();
        let sources: Vec<_> = sources.into_iter().collect();
        let name = |(block, node): &(usize, usize)| {
            let block = &self.picture.blocks[*block];
            format!("from {}: {}", block.name, block.nodes[*node].op)
        };
        let mut things: Vec<_> = sources.iter().map(|from| Thing::Port(name(from))).collect();
        let first = things.len();
        things.extend((0..self.picture.blocks[block].nodes.len()).map(Thing::Node));
        for flow in &self.to[block] {
            let from = match sources.binary_search(&flow.from) {
                Ok(port) => port,
                Err(_) => first + flow.from.1,
            };
            edges.insert((from, first + flow.to.1));
        }
        let mut readers: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for flow in self.from[block].iter().filter(|flow| flow.to.0 != block) {
            readers.entry(flow.from.1).or_default().insert(flow.to.0);
        }
        for (node, blocks) in readers {
            edges.insert((first + node, things.len()));
            things.push(Thing::Port(self.readers(&blocks)));
        }
        (things, edges.into_iter().collect())
    }

    fn readers(&self, blocks: &BTreeSet<usize>) -> String {
        let next = blocks.first().map_or("", |block| self.picture.blocks[*block].name.as_str());
        match blocks.len() {
            1 => format!("to {next}"),
            count => format!("to {next} and {} more", count - 1),
        }
    }
}

struct Drawing {
    things: Vec<Thing>,
    edges: Vec<(usize, usize)>,
    layout: Layout,
}

impl Drawing {
    /// Puts each thing below all that it reads.
    fn rows(&mut self) {
        let mut rows = vec![0; self.things.len()];
        // Edges are sorted by where they begin, and all lead forward.
        for (from, to) in &self.edges {
            rows[*to] = rows[*to].max(rows[*from] + 1);
        }
        let placed = self.things.iter().zip(rows);
        self.layout.things = placed
            .map(|(thing, row)| Placed { thing: thing.clone(), row, x: 0.0, y: 0.0 })
            .collect();
    }

    /// Puts the things of a row side by side, each near what it reads.
    fn places(&mut self) {
        let count = self.layout.things.iter().map(|thing| thing.row + 1).max().unwrap_or(0);
        let mut rows = vec![vec![]; count];
        for (number, thing) in self.layout.things.iter().enumerate() {
            rows[thing.row].push(number);
        }
        let mut read: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        self.edges.iter().for_each(|(from, to)| read.entry(*to).or_default().push(*from));
        let widest = rows.iter().map(Vec::len).max().unwrap_or(0) as f64;
        let content = widest * (WIDTH + GAP) - GAP;
        let mut y = GAP / 2.0;
        for row in &mut rows {
            let middle = |number: &usize| {
                let from = read.get(number).map_or(&[][..], Vec::as_slice);
                let sum: f64 = from.iter().map(|from| self.layout.things[*from].x).sum();
                if from.is_empty() { 0.0 } else { sum / from.len() as f64 }
            };
            row.sort_by(|a, b| middle(a).total_cmp(&middle(b)));
            let mut x = (content - row.len() as f64 * (WIDTH + GAP) + GAP) / 2.0 + GAP / 2.0;
            let mut height: f64 = 0.0;
            for number in row {
                let thing = &mut self.layout.things[*number];
                (thing.x, thing.y) = (x, y);
                height = height.max(thing.height());
                x += WIDTH + GAP;
            }
            y += height + GAP;
        }
        (self.layout.width, self.layout.height) = (content + GAP, y - GAP / 2.0);
    }

    /// Draws a curve to the next row, and lines beside the rows to those below.
    fn connect(&mut self) {
        let things = std::mem::take(&mut self.layout.things);
        let passes = |(from, to): &&(usize, usize)| things[*to].row > things[*from].row + 1;
        for (from, to) in self.edges.iter().filter(|edge| !passes(edge)) {
            self.layout.curve(&things[*from], &things[*to]);
        }
        // For each lane the row where it is free again.
        let mut lanes: Vec<usize> = vec![];
        let right = self.layout.width;
        for of_one in self.edges.chunk_by(|a, b| a.0 == b.0) {
            let below: Vec<_> = of_one.iter().filter(passes).map(|edge| &things[edge.1]).collect();
            let Some(end) = below.iter().map(|thing| thing.row).max() else { continue };
            let from = &things[of_one[0].0];
            let free = lanes.iter().position(|until| *until <= from.row);
            let lane = free.unwrap_or_else(|| {
                lanes.push(0);
                lanes.len() - 1
            });
            lanes[lane] = end;
            let x = right + LANE * lane as f64;
            below.iter().for_each(|to| self.layout.beside(from, to, x));
        }
        self.layout.width += LANE * lanes.len() as f64;
        self.layout.things = things;
    }
}

impl Placed {
    pub(super) fn height(&self) -> f64 {
        match self.thing {
            Thing::Node(_) => HEIGHT,
            Thing::Port(_) => PORT_HEIGHT,
        }
    }
}

impl Layout {
    fn curve(&mut self, from: &Placed, to: &Placed) {
        let (x, y) = (from.x + WIDTH / 2.0, from.y + from.height());
        let (end_x, end_y) = (to.x + WIDTH / 2.0, to.y);
        let middle = (y + end_y) / 2.0;
        self.lines.push(format!(
            "M{x:.1} {y:.1}C{x:.1} {middle:.1} {end_x:.1} {middle:.1} {end_x:.1} {end_y:.1}"
        ));
        self.heads.push(format!("M{end_x:.1} {end_y:.1}l-3.5 -7h7z"));
    }

    fn beside(&mut self, from: &Placed, to: &Placed, x: f64) {
        // What comes in is above what goes out.
        let (left, y) = (from.x + WIDTH, from.y + from.height() * 0.7);
        let (end_x, end_y) = (to.x + WIDTH, to.y + to.height() * 0.3);
        self.lines.push(format!("M{left:.1} {y:.1}H{x:.1}V{end_y:.1}H{end_x:.1}"));
        self.heads.push(format!("M{end_x:.1} {end_y:.1}l7 -3.5v7z"));
    }
}
