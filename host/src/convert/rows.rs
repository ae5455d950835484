//! Rows of stored tensors into panels of blocks.

use super::range::{check_scales, read_row};
use super::weights::Planned;
use crate::Result;
use crate::arch::Data;
use crate::import::{Container, Encoding};
use crate::quantize::{Compensation, Group, quantize, write_panel};
use omex_core::quant::{Format, GROUP, PANEL};

/// Rows that are read before they are quantized together.
const BATCH: usize = 32 * PANEL;

/// Hands the bytes of a tensor to `put`, some panels at a time, with the number of rows in them.
pub(super) fn write_tensor(
    source: &dyn Container,
    tensor: &Planned,
    compensation: Option<&Compensation>,
    put: &mut dyn FnMut(&[u8], u64) -> Result<()>,
) -> Result<()> {
    if let Data::Computed(numbers) = &tensor.plan.data {
        return put(&little_endian(numbers), 1);
    }
    let rows: Vec<_> = tensor.plan.stored_rows().collect();
    if tensor.format == Format::Vector {
        let mut numbers = vec![0.0; tensor.plan.columns as usize];
        for (name, row) in rows {
            read_row(source, (name, row), tensor.format, &mut numbers)?;
            put(&little_endian(&numbers), 1)?;
        }
        return Ok(());
    }
    for batch in rows.chunks(BATCH) {
        put(&encode(source, batch, tensor, compensation)?, batch.len() as u64)?;
    }
    Ok(())
}

fn little_endian(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// A row as it was read.
enum Row {
    /// Floats, to be quantized.
    Floats(Vec<f32>),
    /// Blocks that the format can take over.
    Groups(Vec<Group>),
}

impl Row {
    fn read(source: &dyn Container, name: &str, row: u32, tensor: &Planned) -> Result<Self> {
        let encoding = source.tensor(name).map(|t| t.encoding);
        let same = matches!(
            (encoding, tensor.format),
            (Some(Encoding::Q8_0), Format::Int8) | (Some(Encoding::Q4_0), Format::Int4)
        );
        if same {
            let mut bytes = vec![];
            source.read_row_bytes(name, row, &mut bytes)?;
            let groups = ggml_groups(&bytes, tensor.format);
            check_scales(source, (name, row), &groups, tensor.format)?;
            return Ok(Self::Groups(groups));
        }
        let mut floats = vec![0.0; tensor.plan.columns as usize];
        read_row(source, (name, row), tensor.format, &mut floats)?;
        Ok(Self::Floats(floats))
    }

    fn groups(self, format: Format, compensation: Option<&Compensation>) -> Vec<Group> {
        match (self, compensation) {
            (Self::Groups(groups), _) => groups,
            (Self::Floats(floats), Some(compensation)) => compensation.quantize_row(&floats),
            (Self::Floats(floats), None) => {
                let padded = floats.chunks(GROUP).map(|chunk| {
                    let mut group = [0.0; GROUP];
                    group[..chunk.len()].copy_from_slice(chunk);
                    group
                });
                padded.map(|group| quantize(format, &group)).collect()
            }
        }
    }
}

/// A row of the plane that is asked for.
fn plane_groups(
    source: &dyn Container,
    (name, row): (&str, u32),
    tensor: &Planned,
    compensation: Option<&Compensation>,
) -> Result<Vec<Group>> {
    let base = Row::read(source, name, row, tensor)?.groups(tensor.format, compensation);
    // Making up for errors can push a weight at the edge of the range beyond it.
    check_scales(source, (name, row), &base, tensor.format)?;
    if tensor.plane == 0 {
        return Ok(base);
    }
    let mut errors = vec![0.0; tensor.plan.columns as usize];
    source.read_row(name, row, &mut errors)?;
    for (error, base) in errors.iter_mut().zip(base.iter().flat_map(Group::values)) {
        *error -= base;
    }
    // Rounded plainly: GPTQ of what is so small gains at most 0.03 % of perplexity.
    Ok(Row::Floats(errors).groups(tensor.format, None))
}

/// Blocks of Q8_0 or Q4_0: an f16 scale, then the integers.
fn ggml_groups(bytes: &[u8], format: Format) -> Vec<Group> {
    let scale = |block: &[u8]| half::f16::from_le_bytes([block[0], block[1]]);
    let mut q = [0i8; GROUP];
    match format {
        Format::Int8 => bytes
            .chunks_exact(2 + GROUP)
            .map(|block| {
                q.iter_mut().zip(&block[2..]).for_each(|(q, b)| *q = b.cast_signed());
                Group::Integers(scale(block), q)
            })
            .collect(),
        _ => bytes
            .chunks_exact(2 + GROUP / 2)
            .map(|block| {
                let (low, high) = q.split_at_mut(GROUP / 2);
                for ((low, high), b) in low.iter_mut().zip(high).zip(&block[2..]) {
                    (*low, *high) = ((b & 15) as i8 - 8, (b >> 4) as i8 - 8);
                }
                Group::Integers(scale(block), q)
            })
            .collect(),
    }
}

/// Reads rows, quantizes them and lays them into panels, on all cores.
fn encode(
    source: &dyn Container,
    rows: &[(&str, u32)],
    tensor: &Planned,
    compensation: Option<&Compensation>,
) -> Result<Vec<u8>> {
    let panels: Vec<_> = rows.chunks(PANEL).collect();
    let cores = crate::profile::cores();
    let encode = |panels: &[&[(&str, u32)]]| {
        let mut bytes = vec![];
        for panel in panels {
            let groups = panel.iter().map(|row| plane_groups(source, *row, tensor, compensation));
            write_panel(tensor.format, &groups.collect::<Result<Vec<_>>>()?, &mut bytes);
        }
        Ok(bytes)
    };
    let share = panels.len().div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            panels.chunks(share).map(|panels| scope.spawn(move || encode(panels))).collect();
        let parts =
            threads.into_iter().map(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
        Ok(parts.collect::<Result<Vec<_>>>()?.concat())
    })
}
