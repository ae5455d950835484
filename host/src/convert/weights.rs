//! Which tensors a package has, in which precision and in which file.

use super::fuse::fuse;
use super::planned::Planned;
use crate::arch::{Blueprint, Role, TensorPlan};
use crate::graph::Graph;
use crate::import::Container;
use crate::package::{FileEntry, TensorEntry, WeightIndex};
use crate::quantize::Precision;
use omex_core::quant::Format;
use std::collections::BTreeSet;

/// The tensors of each file, in the order of use, and the graph that uses them.
pub(super) struct WeightLayout {
    pub(super) graph: Graph,
    pub(super) files: Vec<Vec<Planned>>,
}

impl WeightLayout {
    pub(super) fn new(
        source: &dyn Container,
        blueprint: &Blueprint,
        precision: Option<Precision>,
        residual: bool,
    ) -> Self {
        let planned = |plan: &TensorPlan| Planned::new(source, precision, plan.clone());
        let files = blueprint.files.iter().map(|file| file.iter().map(planned).collect());
        let mut layout = Self { graph: blueprint.graph.clone(), files: files.collect() };
        fuse(&mut layout.graph, &mut layout.files);
        if residual {
            layout.add_residuals(source);
        }
        layout
    }

    /// Puts a residual plane behind every int4 matrix of the layers that some layer has to round, but
    /// for experts, whose products are not corrected.
    /// The layers share one subgraph, so all get one or none.
    fn add_residuals(&mut self, source: &dyn Container) {
        // What follows on "layers.0." in the name.
        let part = |t: &Planned| t.plan.name.splitn(3, '.').nth(2).map(str::to_owned);
        let corrected = |t: &&Planned| t.plan.role != Role::Experts;
        let rounded = self.files.iter().flatten().filter(corrected);
        let rounded = rounded.filter(|t| t.is_rounded_to_int4(source));
        let parts: BTreeSet<_> = rounded.filter_map(part).collect();
        for file in &mut self.files {
            let planes = file.drain(..).flat_map(|base| {
                let rounded = base.format == Format::Int4
                    && part(&base).is_some_and(|part| parts.contains(&part));
                let residual = rounded.then(|| Planned { plane: 1, ..base.clone() });
                [Some(base), residual].into_iter().flatten()
            });
            *file = planes.collect();
        }
    }

    /// True if some matrix is not int4 yet, and will be.
    pub(super) fn rounds_to_int4(&self, source: &dyn Container) -> bool {
        self.files.iter().flatten().any(|t| t.is_rounded_to_int4(source))
    }

    /// Where every tensor will lie; checksums are zeros.
    pub(super) fn index(&self) -> WeightIndex {
        let page_size = self.page_size();
        let mut index = WeightIndex { format: 1, page_size, ..Default::default() };
        for Written { name, tensors, alignment, .. } in self.written() {
            let mut end = 0u64;
            for tensor in tensors {
                let offset = end.next_multiple_of(alignment);
                let length = tensor.bytes();
                end = offset + length;
                index.tensors.push(TensorEntry {
                    name: tensor.plan.name.clone(),
                    plane: tensor.plane,
                    file: name.clone(),
                    offset,
                    length,
                    shape: [tensor.plan.rows, tensor.plan.columns],
                    format: precision_of(tensor.format),
                    crc32c: NO_CRC.into(),
                    error: 0.0,
                });
            }
            let length = end.next_multiple_of(u64::from(page_size));
            let page_crc32c = NO_CRC.repeat((length / u64::from(page_size)) as usize);
            index.files.push(FileEntry { name, length, page_crc32c });
        }
        index
    }

    /// The tensors in the order of the index.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &Planned> {
        self.written().into_iter().flat_map(|file| file.tensors)
    }

    /// The files that are written. Experts have files of their own, behind all that is read in order:
    /// no read of one brings a piece of the other.
    pub(super) fn written(&self) -> Vec<Written<'_>> {
        let of = |experts: bool| {
            let alignment = if experts { u64::from(self.page_size()) } else { ALIGNMENT };
            let files = self.files.iter().enumerate();
            files.map(move |(number, file)| {
                let kind = if experts { ".experts" } else { "" };
                let name = format!("layer_{number}{kind}.bin");
                let tensors = of_experts(file, experts).collect();
                Written { name, layer: number, tensors, alignment }
            })
        };
        of(false).chain(of(true).filter(|file| !file.tensors.is_empty())).collect()
    }

    /// Pages large enough for fast reads, and so small that filling up the last one of each file
    /// costs little.
    fn page_size(&self) -> u32 {
        let bytes = |experts| {
            let of_file =
                move |file: &Vec<_>| of_experts(file, experts).map(Planned::bytes).sum::<u64>();
            self.files.iter().map(of_file)
        };
        let smallest = bytes(false).chain(bytes(true).filter(|bytes| *bytes > 0)).min();
        let wanted = (smallest.unwrap_or(0) / 32).next_power_of_two();
        wanted.clamp(4096, 64 << 10) as u32
    }
}

/// A file and what is in it.
pub(super) struct Written<'l> {
    pub(super) name: String,
    /// The place of its layer among [`WeightLayout::files`].
    pub(super) layer: usize,
    pub(super) tensors: Vec<&'l Planned>,
    /// What the tensors' places are multiples of.
    pub(super) alignment: u64,
}

/// The tensors of a block that are experts, or those that are not.
fn of_experts(file: &[Planned], experts: bool) -> impl Iterator<Item = &Planned> {
    file.iter().filter(move |tensor| (tensor.plan.role == Role::Experts) == experts)
}

/// A checksum that is still to be computed.
const NO_CRC: &str = "00000000";

/// Tensors begin on cache lines.
const ALIGNMENT: u64 = 64;

fn precision_of(format: Format) -> Precision {
    match format {
        Format::Vector => Precision::Vector,
        Format::Channels => Precision::Channels,
        Format::F32 => Precision::F32,
        Format::F16 => Precision::F16,
        Format::Int8 => Precision::Int8,
        Format::Int4 => Precision::Int4,
    }
}
