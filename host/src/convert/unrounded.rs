//! A model's weights as they are stored, as pages that are made when they are read: what a package is
//! compared with, without another one being written.

use super::planned::Planned;
use super::rows::{computed_bytes, little_endian, panels_of, read_vector};
use super::weights::WeightLayout;
use crate::Result;
use crate::arch::{Blueprint, Data};
use crate::import::Container;
use crate::package::TensorEntry;
use crate::pager::{Read, Reader};
use crate::quantize::Precision;
use crate::session::Tables;
use omex_core::quant::{Format, PANEL};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// The tables of a model in 32-bit floats, which hold whatever a source does. Its pages are made until
/// `deadline`; later reads fail.
///
/// # Errors
/// A model that no program can be made of.
pub(super) fn tables(
    source: &Arc<dyn Container>,
    blueprint: &Blueprint,
    deadline: Instant,
) -> Result<Tables> {
    let layout = WeightLayout::new(&**source, blueprint, Some(Precision::F32), false);
    let index = layout.index();
    let tables = super::tables(source.path(), &layout, &blueprint.eos, &index)?;
    let mut files: Vec<Vec<Part>> = vec![vec![]; index.files.len()];
    for (entry, tensor) in index.tensors.iter().zip(layout.in_order()) {
        let file = index.files.iter().position(|file| file.name == entry.file);
        if let Some(file) = file.and_then(|file| files.get_mut(file)) {
            file.push((entry.clone(), tensor.clone()));
        }
    }
    let files = Arc::new(files);
    let source = Arc::clone(source);
    Ok(tables.with_pages(Arc::new(move || {
        let (source, files) = (Arc::clone(&source), Arc::clone(&files));
        Box::new(Unrounded { source, files, deadline, done: VecDeque::new(), last: None })
    })))
}

/// A tensor of a file, and where its numbers come from.
type Part = (TensorEntry, Planned);

/// Makes what is read.
struct Unrounded {
    source: Arc<dyn Container>,
    files: Arc<Vec<Vec<Part>>>,
    deadline: Instant,
    done: VecDeque<(Read, io::Result<usize>)>,
    /// Rows that a read ended within: the next one goes on with them.
    last: Option<Rows>,
}

/// Some rows of a tensor, as its panels hold them.
struct Rows {
    /// The file, and the tensor in it.
    place: (usize, usize),
    /// Bytes of the tensor.
    range: Range<u64>,
    bytes: Vec<u8>,
}

impl Reader for Unrounded {
    fn submit(&mut self, mut read: Read) {
        let (file, offset) = read.place();
        let result = self.fill(file, offset, read.bytes_mut());
        self.done.push_back((read, result));
    }

    fn wait(&mut self) -> Option<(Read, io::Result<usize>)> {
        self.done.pop_front()
    }
}

impl Unrounded {
    fn fill(&mut self, file: usize, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        if Instant::now() >= self.deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        out.fill(0);
        let files = Arc::clone(&self.files);
        let wanted = offset..offset + out.len() as u64;
        for (number, (entry, _)) in files.get(file).into_iter().flatten().enumerate() {
            let there = entry.offset..entry.offset + entry.length;
            let mut at = wanted.start.max(there.start);
            let end = wanted.end.min(there.end);
            while at < end {
                let rows = self.rows((file, number), at - entry.offset)?;
                let from = (at - entry.offset - rows.range.start) as usize;
                let length = (rows.range.end + entry.offset).min(end) - at;
                let to = (at - wanted.start) as usize;
                let (length, bytes) = (length as usize, &rows.bytes);
                out[to..to + length].copy_from_slice(&bytes[from..from + length]);
                at += length as u64;
            }
        }
        Ok(out.len())
    }

    /// The rows of a tensor that the byte `at` of it lies in.
    fn rows(&mut self, place: (usize, usize), at: u64) -> io::Result<&Rows> {
        let there = |rows: &Rows| rows.place == place && rows.range.contains(&at);
        if !self.last.as_ref().is_some_and(there) {
            self.last = Some(self.make(place, at).map_err(io::Error::other)?);
        }
        self.last.as_ref().ok_or(io::ErrorKind::NotFound.into())
    }

    fn make(&self, place: (usize, usize), at: u64) -> Result<Rows> {
        let (entry, tensor) = &self.files[place.0][place.1];
        let whole = |bytes: Vec<u8>| Rows { place, range: 0..bytes.len() as u64, bytes };
        match &tensor.plan.data {
            Data::Computed(numbers) => return Ok(whole(computed_bytes(tensor, numbers))),
            Data::Raw(bytes) => return Ok(whole(bytes.clone())),
            Data::Stored(_) if tensor.format == Format::Vector => {
                return Ok(whole(little_endian(&read_vector(&*self.source, &tensor.plan)?)));
            }
            Data::Stored(_) => {}
        }
        let panels = u64::from(tensor.plan.rows.div_ceil(PANEL as u32));
        let panel_bytes = (entry.length / panels.max(1)).max(1);
        let first = at / panel_bytes;
        let count = (MADE_AT_ONCE / panel_bytes).clamp(1, panels - first);
        let bytes = panels_of(&*self.source, tensor, first..first + count)?;
        let start = first * panel_bytes;
        Ok(Rows { place, range: start..start + bytes.len() as u64, bytes })
    }
}

/// Bytes of rows that are made together, so that all cores have some.
pub(super) const MADE_AT_ONCE: u64 = 2 << 20;
