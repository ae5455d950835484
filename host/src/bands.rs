//! Bands: operations over images, each of which makes more than a small memory holds, are played for some rows of
//! their last result after others, so that no more than a band of what lies between is there at once (patch-based
//! inference, arXiv:2110.15352). Bits stay the same; rows where bands meet are computed twice.

use crate::graph::{Graph, Node, ValueRef};
use omex_core::ops::{AveragePool, Conv2d, QuantizedAdd};
use omex_core::program::Per;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;

/// Operations that are played in bands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bands {
    /// The number of the first of them.
    pub first: usize,
    /// The number of the one behind the last.
    pub end: usize,
    /// Bands of the last one's result.
    pub count: u32,
    /// Products that are computed besides those of whole images.
    pub extra_products: u64,
}

/// How many bands are tried.
const COUNTS: [u32; 8] = [2, 3, 4, 6, 8, 12, 16, 24];
/// The most operations that are played in bands: weights are read once for each.
const MOST_OPERATIONS: usize = 16;

/// All ways to play operations in bands, `largest` among them, those with the least extra work first.
#[must_use]
pub fn ways(graph: &Graph, largest: usize) -> Vec<Bands> {
    let mut ways = vec![];
    for first in (largest + 1).saturating_sub(MOST_OPERATIONS)..=largest {
        for end in largest + 1..=graph.nodes.len().min(first + MOST_OPERATIONS) {
            let Some(segment) = Segment::of(graph, first..end) else { continue };
            let whole = segment.bands(1).map_or(0, |bands| segment.products(&bands));
            ways.extend(COUNTS.iter().filter_map(|count| {
                let extra_products =
                    segment.products(&segment.bands(*count)?).saturating_sub(whole);
                Some(Bands { first, end, count: *count, extra_products })
            }));
        }
    }
    ways.sort_by_key(|bands| (bands.extra_products, bands.count));
    ways
}

/// The graph with these operations in bands; `None` if they can't be.
#[must_use]
pub fn cut(graph: &Graph, bands: Bands) -> Option<Graph> {
    let segment = Segment::of(graph, bands.first..bands.end)?;
    let mut cut = graph.clone();
    let mut nodes = vec![];
    for (number, band) in segment.bands(bands.count)?.iter().enumerate() {
        nodes.extend(segment.draw(&mut cut, band, number));
    }
    cut.nodes.splice(bands.first..bands.end, nodes);
    cut.values.retain(|name, _| !segment.inner.contains(&name.as_str()));
    Some(cut)
}

/// An operation whose rows depend on some rows of its inputs.
struct Local<'n> {
    inputs: Vec<&'n mut ValueRef>,
    output: &'n mut ValueRef,
    /// Rows of the window, and from one to the next.
    kernel: i64,
    stride: i64,
    /// Rows above the image.
    pad: Option<&'n mut u16>,
}

impl<'n> Local<'n> {
    fn of(node: &'n mut Node) -> Option<Self> {
        Some(match node {
            Node::Conv2d(Conv2d { input, output, kernel, stride, pad, .. })
            | Node::AveragePool(AveragePool { input, output, kernel, stride, pad, .. }) => {
                let (kernel, stride) = (kernel[0].into(), stride[0].into());
                Local { inputs: vec![input], output, kernel, stride, pad: Some(&mut pad[0]) }
            }
            Node::QuantizedAdd(QuantizedAdd { first, second, output, .. }) => {
                Local { inputs: vec![first, second], output, kernel: 1, stride: 1, pad: None }
            }
            _ => return None,
        })
    }
}

/// First row and end.
type Rows = (u32, u32);

/// What an operation does for a band.
struct Play {
    output: Rows,
    inputs: Vec<Rows>,
    /// Rows above the first that is read.
    pad: u16,
}

/// A band: what each operation of a segment does for it, and which rows it needs of each value between them.
struct Band<'g> {
    plays: Vec<Play>,
    needed: BTreeMap<&'g str, Rows>,
}

/// Operations in a row, of which only the last one's result is used by others.
struct Segment<'g> {
    graph: &'g Graph,
    nodes: &'g [Node],
    /// The last one's result.
    result: &'g str,
    /// The results of the others.
    inner: Vec<&'g str>,
}

impl<'g> Segment<'g> {
    fn of(graph: &'g Graph, range: Range<usize>) -> Option<Self> {
        let nodes = graph.nodes.get(range.clone())?;
        let mut written = vec![];
        for node in nodes {
            let mut node = node.clone();
            let local = Local::of(&mut node)?;
            let (name, _) = graph.values.get_key_value(local.output.name.as_str())?;
            let whole = local.inputs.iter().all(|input| input.rows.is_none());
            if !whole || local.output.rows.is_some() || written.contains(&name.as_str()) {
                return None;
            }
            written.push(name.as_str());
        }
        let result = written.pop()?;
        let segment = Self { graph, nodes, result, inner: written };
        segment.is_closed(&range).then_some(segment)
    }

    /// True if nothing else refers to what lies between the operations, and none of them reads the result.
    fn is_closed(&self, range: &Range<usize>) -> bool {
        let ports = self.graph.inputs.iter().chain(&self.graph.outputs).map(|port| &port.value);
        let ports = ports.cloned();
        let others = self.graph.nodes.iter().enumerate().filter(|(at, _)| !range.contains(at));
        let others = others.flat_map(|(_, node)| node.values());
        let reads_result = self.nodes.iter().flat_map(Node::values);
        self.graph.subgraphs.is_empty()
            && !ports.chain(others).any(|value| self.inner.contains(&value.name.as_str()))
            && reads_result.filter(|value| value.name == self.result).count() == 1
    }

    /// Rows of an image, and elements of one.
    fn image(&self, name: &str) -> Option<[u32; 2]> {
        let shape = self.graph.values.get(name).filter(|shape| shape.per == Per::Pass)?;
        let [one, height, width, channels] = shape.dims.map(u32::from);
        (one == 1 && width * channels > 0).then_some([height, width * channels])
    }

    /// The result in so many bands.
    fn bands(&self, count: u32) -> Option<Vec<Band<'g>>> {
        let [height, _] = self.image(self.result)?;
        if count > height {
            return None;
        }
        let edge = |band: u32| band * height / count;
        (0..count).map(|band| self.band((edge(band), edge(band + 1)))).collect()
    }

    /// What is needed for rows of the result, found from the last operation to the first.
    fn band(&self, rows: Rows) -> Option<Band<'g>> {
        let mut needed = BTreeMap::from([(self.result, rows)]);
        let mut plays = vec![];
        for node in self.nodes.iter().rev() {
            let mut node = node.clone();
            let local = Local::of(&mut node)?;
            let output = *needed.get(local.output.name.as_str())?;
            let pad = local.pad.as_deref().copied().map_or(0, i64::from);
            let first = i64::from(output.0) * local.stride - pad;
            let end = i64::from(output.1 - 1) * local.stride - pad + local.kernel;
            let mut play = Play { output, inputs: vec![], pad: u16::try_from(-first).unwrap_or(0) };
            for input in &local.inputs {
                let (name, _) = self.graph.values.get_key_value(input.name.as_str())?;
                let [height, _] = self.image(name)?;
                let rows = (first.max(0) as u32, end.clamp(0, height.into()) as u32);
                if rows.0 >= rows.1 {
                    return None;
                }
                let all = needed.entry(name).or_insert(rows);
                *all = (all.0.min(rows.0), all.1.max(rows.1));
                play.inputs.push(rows);
            }
            plays.push(play);
        }
        plays.reverse();
        Some(Band { plays, needed })
    }

    /// Products of all bands.
    fn products(&self, bands: &[Band<'_>]) -> u64 {
        let plays = bands.iter().flat_map(|band| self.nodes.iter().zip(&band.plays));
        plays.map(|(node, play)| self.products_of(node, play).unwrap_or(0)).sum()
    }

    fn products_of(&self, node: &Node, play: &Play) -> Option<u64> {
        let area = |kernel: [u16; 2]| kernel.into_iter().map(u64::from).product::<u64>();
        let (output, each) = match node {
            Node::Conv2d(op) if op.depthwise => (&op.output, area(op.kernel)),
            Node::Conv2d(op) => {
                let channels = self.graph.values.get(&op.input.name)?.dims[3];
                (&op.output, area(op.kernel) * u64::from(channels))
            }
            Node::AveragePool(op) => (&op.output, area(op.kernel)),
            Node::QuantizedAdd(op) => (&op.output, 1),
            _ => return None,
        };
        let [_, row] = self.image(&output.name)?;
        Some(u64::from(play.output.1 - play.output.0) * u64::from(row) * each)
    }

    /// The operations of a band, over values that `graph` gets.
    fn draw(&self, graph: &mut Graph, band: &Band<'_>, number: usize) -> Vec<Node> {
        let own = |name: &str| format!("{name}/band{number}");
        for name in &self.inner {
            let (Some((first, end)), Some([_, row])) = (band.needed.get(name), self.image(name))
            else {
                continue;
            };
            let mut shape = self.graph.values[*name];
            (shape.width, shape.dims[1]) = ((end - first) * row, (end - first) as u16);
            graph.values.insert(own(name), shape);
        }
        let place = |value: &mut ValueRef, (first, end): Rows| {
            let row = self.image(&value.name).map_or(0, |[_, row]| row);
            let rows = |first, end| Some((first * row, end * row));
            *value = match self.inner.contains(&value.name.as_str()) {
                true => {
                    let from = band.needed.get(value.name.as_str()).map_or(0, |rows| rows.0);
                    ValueRef { name: own(&value.name), rows: rows(first - from, end - from) }
                }
                false => ValueRef { name: value.name.clone(), rows: rows(first, end) },
            };
        };
        let mut nodes = self.nodes.to_vec();
        for (node, play) in nodes.iter_mut().zip(&band.plays) {
            let Some(local) = Local::of(node) else { continue };
            place(local.output, play.output);
            for (input, rows) in local.inputs.into_iter().zip(&play.inputs) {
                place(input, *rows);
            }
            if let Some(pad) = local.pad {
                *pad = play.pad;
            }
        }
        nodes
    }
}
