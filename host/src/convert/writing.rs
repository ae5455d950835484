//! Writing the weights of a package, file by file: what is finished of one that was cut off is kept.

use super::calibration::Calibrator;
use super::job::Compensations;
use super::partial::{Finished, Stage};
use super::room::{Room, WRITE_BYTES};
use super::rows::write_tensor;
use super::told::{Note, Told};
use super::weights::{WeightLayout, Written};
use crate::import::Container;
use crate::package::{FileEntry, WeightIndex};
use crate::page_writer::PageWriter;
use crate::{Error, Result, dispatch};
use omex_core::quant::Format;
use std::fs::File;
use std::io::BufWriter;

/// Is shown the bytes done and the bytes in all.
pub(super) type Step<'s> = &'s mut dyn FnMut(u64, u64) -> Result<()>;

/// Weights that are to be written, but for files that are kept.
pub(super) struct Writing<'l> {
    layout: &'l WeightLayout,
    stage: &'l Stage,
    crc32c: fn(u32, &[u8]) -> u32,
    index: WeightIndex,
    /// One for each file.
    kept: Vec<bool>,
    /// Bytes that are kept or written.
    done: u64,
}

impl<'l> Writing<'l> {
    /// Finds out which files of a package are finished, and removes all others.
    pub(super) fn begin(
        layout: &'l WeightLayout,
        stage: &'l Stage,
        step: Step<'_>,
    ) -> Result<Self> {
        let (crc32c, index) = (dispatch::kernels()?.crc32c, layout.index());
        let mut writing = Self { layout, stage, crc32c, index, kept: vec![], done: 0 };
        let mut first = 0;
        for (number, content) in layout.written().iter().enumerate() {
            let tensors = first..first + content.tensors.len();
            first = tensors.end;
            let finished = stage
                .finished(&writing.index.files[number], &writing.index.tensors[tensors.clone()]);
            let kept = match &finished {
                Some(finished) => writing.is_whole(&finished.file, step)?,
                None => false,
            };
            if let Some(Finished { file, tensors: entries }) = finished.filter(|_| kept) {
                writing.done += file.length;
                writing.index.files[number] = file;
                writing.index.tensors[tensors].clone_from_slice(&entries);
            }
            writing.kept.push(kept);
        }
        let files = writing.index.files.iter().zip(&writing.kept);
        let kept = files.filter(|(_, kept)| **kept).map(|(file, _)| file.name.as_str());
        stage.keep_only(&kept.collect())?;
        Ok(writing)
    }

    fn is_whole(&self, file: &FileEntry, step: Step<'_>) -> Result<bool> {
        let (mut done, all) = (self.done, self.index.space());
        self.stage.is_whole(file, self.index.page_size, self.crc32c, &mut |bytes| {
            done += bytes;
            step(done, all)
        })
    }

    /// Writes what is missing and returns the index.
    pub(super) fn finish(
        mut self,
        source: &dyn Container,
        mut calibrator: Option<&mut Calibrator<'_>>,
        (room, told): (Room, Told<'_>),
        step: Step<'_>,
    ) -> Result<WeightIndex> {
        let written = self.layout.written();
        if let Some(next) = self.kept.iter().position(|kept| !kept).filter(|_| self.done > 0) {
            let (layer, layers) = (written[next].layer + 1, self.layout.files.len());
            told.of(&Note::GoesOn { layer, layers, folder: &self.stage.folder });
        }
        let none = Compensations::new();
        let mut first = 0;
        for (number, content) in written.iter().enumerate() {
            let start = first;
            first += content.tensors.len();
            if self.kept[number] {
                continue;
            }
            let int4 = content.tensors.iter().any(|tensor| tensor.format == Format::Int4);
            let compensations = match &mut calibrator {
                Some(calibrator) if int4 => calibrator.compensations(&written[number..])?,
                _ => &none,
            };
            let tensors = self.index.tensors[start..first].to_vec();
            let unwritten = Finished { file: self.index.files[number].clone(), tensors };
            let finished =
                self.write(source, content, unwritten, (compensations, room.batch()), step)?;
            self.stage.finish(&finished)?;
            self.done += finished.file.length;
            self.index.files[number] = finished.file;
            self.index.tensors[start..first].clone_from_slice(&finished.tensors);
        }
        Ok(self.index)
    }

    /// Writes a file, and puts what came of it into its entries.
    fn write(
        &self,
        source: &dyn Container,
        content: &Written<'_>,
        mut entries: Finished,
        (compensations, batch): (&Compensations, u32),
        step: Step<'_>,
    ) -> Result<Finished> {
        let path = self.stage.weights().join(&entries.file.name);
        let io = |e| Error::io(&path, "write", e);
        let out = File::create_new(&path).map_err(|e| Error::io(&path, "create", e))?;
        let out = BufWriter::with_capacity(WRITE_BYTES, out);
        let (crc32c, all) = (self.crc32c, self.index.space());
        let mut writer = PageWriter::new(out, self.index.page_size, crc32c);
        for (tensor, entry) in content.tensors.iter().zip(&mut entries.tensors) {
            writer.align(content.alignment).map_err(io)?;
            let mut crc = 0;
            let compensation = compensations.get(&tensor.plan.name);
            let compensation = compensation.filter(|_| tensor.format == Format::Int4);
            entry.error = write_tensor(source, tensor, compensation, batch, &mut |bytes| {
                crc = crc32c(crc, bytes);
                writer.write(bytes).map_err(io)?;
                step(self.done + writer.length(), all)
            })?;
            entry.crc32c = format!("{crc:08x}");
        }
        writer.align(u64::from(self.index.page_size)).map_err(io)?;
        let (out, checksums) = writer.finish().map_err(io)?;
        out.into_inner().map_err(|e| io(e.into_error()))?.sync_all().map_err(io)?;
        entries.file.page_crc32c = checksums.iter().map(|crc| format!("{crc:08x}")).collect();
        Ok(entries)
    }
}
