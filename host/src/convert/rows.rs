//! Rows of stored tensors into panels of blocks.

use super::planned::Planned;
use super::range::{check_scales, read_row};
use crate::arch::{Data, Order, Source, TensorPlan};
use crate::import::{Container, Encoding, FP4};
use crate::quantize::{Compensation, Group, quantize, write_panel};
use crate::{Error, Result};
use half::f16;
use omex_core::quant::{FloatGroup, Format, GROUP, PANEL};
use std::borrow::Cow;
use std::ops::Range;

/// Rows with at most `batch` numbers, in whole panels; one panel at least.
fn rows_at_once(columns: u32, batch: u32) -> u32 {
    let rows = batch / columns.max(1);
    (rows - rows % PANEL as u32).max(PANEL as u32)
}

/// Hands the bytes of a tensor to `put`, panels of about `batch` numbers at a time; returns the relative
/// error of rounding.
pub(super) fn write_tensor(
    container: &dyn Container,
    tensor: &Planned,
    compensation: Option<&Compensation>,
    batch: u32,
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<f32> {
    let exact = match &tensor.plan.data {
        Data::Computed(numbers) => {
            let (bytes, rounding) = computed(tensor, numbers);
            put(&bytes)?;
            return Ok(rounding.relative());
        }
        Data::Raw(bytes) => Some(Cow::Borrowed(bytes)),
        Data::Stored(_) if tensor.format == Format::Vector => {
            Some(Cow::Owned(little_endian(&read_vector(container, &tensor.plan)?)))
        }
        Data::Stored(_) => None,
    };
    if let Some(bytes) = exact {
        put(&bytes)?;
        return Ok(0.0);
    }
    let step = rows_at_once(tensor.plan.columns, batch);
    let encoded = |first: u32| {
        let rows = rows_of(&tensor.plan, first..first.saturating_add(step));
        encode(&Batch::new(container, &rows, tensor)?, tensor, compensation)
    };
    let mut sums = Rounding::default();
    let mut take = |parts: Vec<Part>| {
        parts.into_iter().try_for_each(|(bytes, of_rows)| {
            of_rows.iter().for_each(|row| sums.add(row));
            put(&bytes)
        })
    };
    one_ahead((0..tensor.plan.rows).step_by(step as usize), &encoded, &mut take)?;
    Ok(sums.relative())
}

/// The bytes of a tensor whose numbers are known, and how they were rounded.
fn computed(tensor: &Planned, numbers: &[f32]) -> (Vec<u8>, Rounding) {
    let mut sums = Rounding::default();
    if tensor.format == Format::Vector {
        return (little_endian(numbers), sums);
    }
    let (mut bytes, columns) = (vec![], tensor.plan.columns.max(1) as usize);
    for panel in numbers.chunks(PANEL * columns) {
        let rows = panel.chunks(columns).map(|row| {
            let groups = quantize_row(tensor.format, row, None);
            sums.add(&Rounding::of(row, &groups, tensor.format));
            groups
        });
        write_panel(tensor.format, &rows.collect::<Vec<_>>(), &mut bytes);
    }
    (bytes, sums)
}

/// The bytes of a tensor whose numbers are known.
pub(super) fn computed_bytes(tensor: &Planned, numbers: &[f32]) -> Vec<u8> {
    computed(tensor, numbers).0
}

/// Makes something of each item, and hands it on in order while the next one is made.
fn one_ahead<T: Send>(
    items: impl Iterator<Item = u32>,
    make: &(impl Fn(u32) -> Result<T> + Sync),
    take: &mut impl FnMut(T) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let start = |item| {
            let started = std::thread::Builder::new().spawn_scoped(scope, move || make(item));
            started.map_err(|_| item)
        };
        let finish = |started: Result<std::thread::ScopedJoinHandle<'_, _>, _>| match started {
            Ok(thread) => thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e)),
            // Where no thread can be started, it is made here.
            Err(item) => make(item),
        };
        let mut ahead = None;
        for item in items {
            if let Some(made) = ahead.replace(start(item)) {
                take(finish(made)?)?;
            }
        }
        ahead.map_or(Ok(()), |last| take(finish(last)?))
    })
}

/// Panels of a matrix, as [`write_tensor`] makes them without compensation.
pub(super) fn panels_of(
    container: &dyn Container,
    tensor: &Planned,
    panels: Range<u64>,
) -> Result<Vec<u8>> {
    let row = |panel: u64| u32::try_from(panel * PANEL as u64).unwrap_or(u32::MAX);
    let rows = rows_of(&tensor.plan, row(panels.start)..row(panels.end));
    let parts = encode(&Batch::new(container, &rows, tensor)?, tensor, None)?;
    Ok(parts.into_iter().flat_map(|(bytes, _)| bytes).collect())
}

/// The stored rows that these rows of a matrix are, as far as it has them.
fn rows_of(plan: &TensorPlan, wanted: Range<u32>) -> Vec<(&Source, u32)> {
    let mut before = 0;
    let mut rows = vec![];
    for source in plan.sources() {
        let own = |row: u32| row.saturating_sub(before).min(source.shape[0]);
        rows.extend((own(wanted.start)..own(wanted.end)).map(|row| (source, row)));
        before += source.shape[0];
    }
    rows
}

/// How far stored numbers are from those of the source: sums of squares.
#[derive(Clone, Copy, Default)]
struct Rounding {
    errors: f64,
    numbers: f64,
}

impl Rounding {
    fn of(numbers: &[f32], stored: &[Group], format: Format) -> Self {
        let mut sums = Self::default();
        for (numbers, group) in numbers.chunks(GROUP).zip(stored) {
            let (mut x, mut y) = ([0.0; GROUP], [0.0; GROUP]);
            x[..numbers.len()].copy_from_slice(numbers);
            y[..numbers.len()].copy_from_slice(&group.values()[..numbers.len()]);
            if format == Format::F16 {
                y = y.map(|stored| f16::from_f32(stored).to_f32());
            }
            for (error, x) in y.iter_mut().zip(&x) {
                *error -= x;
            }
            sums.add(&Self { errors: squares(&y), numbers: squares(&x) });
        }
        sums
    }

    fn add(&mut self, other: &Self) {
        self.errors += other.errors;
        self.numbers += other.numbers;
    }

    /// The error as a part of the numbers, root mean square.
    fn relative(&self) -> f32 {
        if self.errors == 0.0 { 0.0 } else { (self.errors / self.numbers).sqrt() as f32 }
    }
}

/// The sum of squares, which in 32 bits could be too large or too small for a float.
fn squares(x: &FloatGroup) -> f64 {
    let mut lanes = [0.0; 4];
    for x in x.as_chunks::<4>().0 {
        lanes.iter_mut().zip(x).for_each(|(lane, x)| *lane += f64::from(*x) * f64::from(*x));
    }
    lanes.iter().sum()
}

pub(super) fn little_endian(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The numbers of a vector, one source after another.
pub(crate) fn read_vector(container: &dyn Container, plan: &TensorPlan) -> Result<Vec<f32>> {
    let mut numbers = vec![];
    for source in plan.sources() {
        let [rows, columns] = source.read_shape().map(|side| side as usize);
        let mut stored = vec![0.0; rows * columns];
        for (row, out) in (source.first_row()..).zip(stored.chunks_mut(columns.max(1))) {
            read_row(container, (&source.tensor, row), Format::Vector, out)?;
        }
        let at = |number: usize| match source.transposed {
            true => source.stored_column((number % rows) as u32) as usize * columns + number / rows,
            false => source.stored_row(number as u32) as usize,
        };
        let stored = (0..stored.len()).map(|number| stored[at(number)] + source.plus);
        match source.negated_exponential {
            false => numbers.extend(stored),
            true => {
                let first = numbers.len();
                numbers.extend(stored.map(|number| libm::log(f64::from(-number)) as f32));
                check_logarithms(container, &source.tensor, &numbers[first..])?;
            }
        }
    }
    Ok(numbers)
}

/// The parts of a row, of so many numbers each, in the order in which they are used.
fn in_order<T: Copy>(columns: Order, width: u32, stored: Vec<T>) -> Vec<T> {
    if columns == Order::Plain {
        return stored;
    }
    let place = |number: u32| (columns.place(number * width) / width) as usize;
    (0..stored.len() as u32).map(|number| stored[place(number)]).collect()
}

/// Refuses what has no logarithm.
fn check_logarithms(container: &dyn Container, name: &str, numbers: &[f32]) -> Result<()> {
    if numbers.iter().all(|number| number.is_finite()) {
        return Ok(());
    }
    let (found, expected) = ("a number that is not below 0", "minus the exponentials of numbers");
    Err(Error::malformed(container.tensor_path(name), name, found, expected, "get the file again"))
}

/// Rows that are read and encoded together.
struct Batch<'b> {
    container: &'b dyn Container,
    rows: &'b [(&'b Source, u32)],
    columns: usize,
    format: Format,
    /// The rows of tensors that are stored transposed, and nothing for others.
    turned: Vec<Vec<f32>>,
}

impl<'b> Batch<'b> {
    fn new(
        container: &'b dyn Container,
        rows: &'b [(&'b Source, u32)],
        tensor: &Planned,
    ) -> Result<Self> {
        let (columns, format) = (tensor.plan.columns as usize, tensor.format);
        let turned = vec![vec![]; rows.len()];
        let mut batch = Self { container, rows, columns, format, turned };
        let mut start = 0;
        for of_one in rows.chunk_by(|(a, _), (b, _)| std::ptr::eq(*a, *b)) {
            if let Some((source, first)) = of_one.first()
                && source.transposed
            {
                batch.turn(source, *first, start..start + of_one.len())?;
            }
            start += of_one.len();
        }
        Ok(batch)
    }

    /// Reads a tensor once for all of its rows that are in the batch at `places`.
    fn turn(&mut self, source: &Source, first: u32, places: Range<usize>) -> Result<()> {
        let [stored_rows, stored_columns] = source.read_shape();
        let turned = &mut self.turned[places];
        turned.iter_mut().for_each(|row| row.resize(self.columns, 0.0));
        let mut stored = vec![0.0; stored_columns as usize];
        for column in 0..stored_rows {
            let row = source.first_row() + source.stored_column(column);
            let place = (source.tensor.as_str(), row);
            read_row(self.container, place, self.format, &mut stored)?;
            for (number, row) in (first..).zip(turned.iter_mut()) {
                row[column as usize] = stored[source.stored_row(number) as usize];
            }
        }
        Ok(())
    }

    /// A row as floats.
    fn floats(&self, at: usize) -> Result<Vec<f32>> {
        let (source, row) = self.rows[at];
        if source.transposed {
            return Ok(self.turned[at].clone());
        }
        let mut floats = vec![0.0; self.columns];
        let place = (source.tensor.as_str(), source.first_row() + source.stored_row(row));
        read_row(self.container, place, self.format, &mut floats)?;
        Ok(in_order(source.columns, 1, floats))
    }

    /// A row as blocks that the format can take over as they are, if it is stored so.
    fn blocks(&self, at: usize) -> Result<Option<Vec<Group>>> {
        let (source, row) = self.rows[at];
        let encoding = self.container.tensor(&source.tensor).map(|info| info.encoding);
        let same = matches!(
            (encoding, self.format),
            (Some(Encoding::Q8_0 | Encoding::Mxfp4), Format::Int8)
                | (Some(Encoding::Q4_0), Format::Int4)
        );
        if !same || source.transposed || !source.columns.keeps(GROUP as u32) {
            return Ok(None);
        }
        let mut bytes = vec![];
        let stored = source.first_row() + source.stored_row(row);
        self.container.read_row_bytes(&source.tensor, stored, &mut bytes)?;
        let groups = match encoding {
            Some(Encoding::Mxfp4) => mxfp4_groups(&bytes),
            _ => Some(ggml_groups(&bytes, self.format)),
        };
        Ok(groups.map(|groups| in_order(source.columns, GROUP as u32, groups)))
    }

    /// A row of the plane that is asked for.
    fn groups(
        &self,
        at: usize,
        tensor: &Planned,
        compensation: Option<&Compensation>,
    ) -> Result<(Vec<Group>, Rounding)> {
        let (base, floats) = match self.blocks(at)? {
            Some(groups) => (groups, None),
            None => {
                let floats = self.floats(at)?;
                (quantize_row(self.format, &floats, compensation), Some(floats))
            }
        };
        let (source, row) = self.rows[at];
        // Making up for errors can push a weight at the edge of the range beyond it.
        let place = (source.tensor.as_str(), source.first_row() + source.stored_row(row));
        check_scales(self.container, place, &base, self.format)?;
        if tensor.plane == 0 {
            let rounding = floats.map(|floats| Rounding::of(&floats, &base, self.format));
            return Ok((base, rounding.unwrap_or_default()));
        }
        let floats = floats.map_or_else(|| self.floats(at), Ok)?;
        let mut errors = floats.clone();
        for (error, base) in errors.iter_mut().zip(base.iter().flat_map(Group::values)) {
            *error -= base;
        }
        // Rounded plainly: GPTQ of what is so small gains at most 0.03 % of perplexity.
        let residual = quantize_row(self.format, &errors, None);
        // What both planes together get wrong, as a part of the numbers.
        let left = Rounding::of(&errors, &residual, self.format);
        let numbers = floats.iter().map(|x| f64::from(*x).powi(2)).sum();
        Ok((residual, Rounding { numbers, ..left }))
    }
}

fn quantize_row(format: Format, floats: &[f32], compensation: Option<&Compensation>) -> Vec<Group> {
    if let Some(compensation) = compensation {
        return compensation.quantize_row(floats);
    }
    let padded = floats.chunks(GROUP).map(|chunk| {
        let mut group = [0.0; GROUP];
        group[..chunk.len()].copy_from_slice(chunk);
        group
    });
    padded.map(|group| quantize(format, &group)).collect()
}

/// Blocks of Q8_0 or Q4_0: an f16 scale, then the integers.
fn ggml_groups(bytes: &[u8], format: Format) -> Vec<Group> {
    let scale = |block: &[u8]| f16::from_le_bytes([block[0], block[1]]);
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

/// Blocks of MXFP4 as integers, which they are but for their exponents: none where a half has not one of
/// these.
fn mxfp4_groups(bytes: &[u8]) -> Option<Vec<Group>> {
    let group = |block: &[u8]| {
        // Integers are the numbers doubled.
        let exponent = i32::from(block[0]) - 128;
        let scale = (-24..=15).contains(&exponent).then(|| f16::from_f64(2f64.powi(exponent)))?;
        let mut q = [0i8; GROUP];
        let (low, high) = q.split_at_mut(GROUP / 2);
        for ((low, high), b) in low.iter_mut().zip(high).zip(&block[1..]) {
            (*low, *high) = (FP4[usize::from(b & 15)], FP4[usize::from(b >> 4)]);
        }
        Some(Group::Integers(scale, q))
    };
    bytes.chunks_exact(1 + GROUP / 2).map(group).collect()
}

/// Rows in panels, and how each was rounded.
type Part = (Vec<u8>, Vec<Rounding>);

/// Reads rows, quantizes them and lays them into panels, on all cores: a part by each.
fn encode(
    batch: &Batch<'_>,
    tensor: &Planned,
    compensation: Option<&Compensation>,
) -> Result<Vec<Part>> {
    let rows: Vec<usize> = (0..batch.rows.len()).collect();
    let panels: Vec<_> = rows.chunks(PANEL).collect();
    let cores = crate::system::cores();
    let encode = |panels: &[&[usize]]| {
        // All at once: a buffer that grows takes its length twice for a while.
        let rows = (panels.len() * PANEL) as u32;
        let length = tensor.format.tensor_bytes(rows, tensor.plan.columns);
        let (mut bytes, mut roundings) = (Vec::with_capacity(length as usize), vec![]);
        for panel in panels {
            let rows = panel.iter().map(|row| batch.groups(*row, tensor, compensation));
            let (groups, of_rows): (Vec<_>, Vec<_>) =
                rows.collect::<Result<Vec<_>>>()?.into_iter().unzip();
            write_panel(tensor.format, &groups, &mut bytes);
            roundings.extend(of_rows);
        }
        Ok((bytes, roundings))
    };
    let share = panels.len().div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        let start =
            |panels| std::thread::Builder::new().spawn_scoped(scope, move || encode(panels));
        // Where no thread can be started, its share is done here.
        let threads: Vec<_> =
            panels.chunks(share).map(|panels| start(panels).map_err(|_| encode(panels))).collect();
        let parts = threads.into_iter().map(|started| match started {
            Ok(thread) => thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e)),
            Err(done) => done,
        });
        parts.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::arch::blueprint;
    use crate::synth::RandomModel;

    #[test]
    fn what_is_made_ahead_is_taken_in_order_until_something_fails() {
        let make = |item| match item {
            6 => Err(Error::Interrupted),
            _ => Ok(item),
        };
        let mut taken = vec![];
        let mut take = |item| {
            taken.push(item);
            Ok(())
        };
        one_ahead(0..5, &make, &mut take).unwrap();
        assert!(matches!(one_ahead(5..9, &make, &mut take), Err(Error::Interrupted)));
        assert_eq!(taken, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn tensors_that_are_stored_transposed_are_read_by_columns_batch_for_batch() {
        let config = serde_json::json!({
            "model_type": "gpt2", "n_embd": 80, "n_layer": 1, "n_head": 1, "vocab_size": 8,
            "bos_token_id": null, "eos_token_id": null,
        });
        let config = config.as_object().unwrap().clone();
        let model = RandomModel::with_config(std::path::Path::new("config.json"), config).unwrap();
        let blueprint = blueprint(&model).unwrap();
        let plan = blueprint.tensors().find(|plan| plan.name == "layers.0.feed_forward.up");
        let tensor = Planned { plan: plan.unwrap().clone(), format: Format::F32, plane: 0 };
        let source = &tensor.plan.sources()[0];
        let rows: Vec<_> = (0..tensor.plan.rows).map(|row| (source, row)).collect();
        let mut stored = vec![0.0; tensor.plan.rows as usize];
        for (number, rows) in rows.chunks(3 * PANEL).enumerate() {
            let batch = Batch::new(&model, rows, &tensor).unwrap();
            for column in [0, 79] {
                model.read_row(&source.tensor, column, &mut stored).unwrap();
                for (at, (_, row)) in rows.iter().enumerate() {
                    let found = batch.floats(at).unwrap()[column as usize];
                    assert_eq!(found, stored[*row as usize], "batch {number}, row {row}");
                }
            }
        }
    }
}
