//! Flash images: opened, and run a few tokens in a small arena.

use omex_core::arena::Layout;
use omex_core::engine::{Engine, Model, Wanted};
use omex_core::error::RunError;
use omex_core::image::open;
use omex_core::ops::Operand;
use omex_core::program::{ALL, Program};
use omex_core::simd::{Kernels, PORTABLE};
use omex_hal::{PageError, PageErrorKind, PageGeometry, Pager, Parallel, Serial};
use zerocopy::IntoBytes;

/// Bytes for the sections that stay in memory, and for the arena.
const MEMORY: usize = 256 << 10;
/// Work that a pass may have, so that an input takes milliseconds.
pub(crate) const MAX_WORK: u64 = 2 << 20;

/// An image. It runs with its checksums and with all of them taken as right, which is how inputs
/// get past them; and whatever the pager, the kernels and the cores, the results are the same.
pub fn image(data: &[u8]) {
    for crc32c in [PORTABLE.crc32c, |_, _| 0] {
        let kernels = omex::dispatch::available();
        let [portable, fastest] = [Some(&&PORTABLE), kernels.last()].map(|table| {
            let table = table.copied().unwrap_or(&PORTABLE);
            Kernels { crc32c, ..*table }
        });
        let one = run(&mut Whole(data), &portable, &Serial);
        let other = run(&mut OnePage { data, resident: vec![] }, &fastest, &Backwards);
        assert_eq!(one, other);
    }
}

/// What a run comes to: the bits of all logits, or an error. `None` if the image does not open.
type Outcome = Option<Result<Vec<u32>, RunError>>;

fn run(pager: &mut dyn Pager, kernels: &Kernels, parallel: &dyn Parallel) -> Outcome {
    let mut resident = [0; MEMORY];
    let (_, model, _) = open(pager, kernels.crc32c, &mut resident).ok()?;
    let layout = Layout::new(&model.program, &model.plan, pager.geometry().pages).ok()?;
    let passes = 4 * u64::from(model.plan.columns.min(5));
    if layout.total() > MEMORY as u64 || work(&model.program).saturating_mul(passes) > MAX_WORK {
        return None;
    }
    let mut memory = vec![0u128; MEMORY / 16];
    Some(forward(model, memory.as_mut_bytes(), pager, kernels, parallel))
}

/// Passes of several tokens and of one, past the end of the KV cache if it is short.
fn forward(
    model: Model<'_>,
    memory: &mut [u8],
    pager: &mut dyn Pager,
    kernels: &Kernels,
    parallel: &dyn Parallel,
) -> Result<Vec<u32>, RunError> {
    let (columns, logit_columns) = (model.plan.columns as usize, model.plan.logit_columns as usize);
    let vocabulary = model.program.header().vocab_size;
    if vocabulary == 0 {
        let outputs: Vec<_> = model.program.outputs().collect();
        let mut engine =
            Engine::new(model, memory, pager, kernels, parallel).map_err(|_| RunError::Program)?;
        engine.infer()?;
        let floats = outputs.iter().flat_map(|port| engine.output(port, 0));
        return Ok(floats.map(|x| x.to_bits()).collect());
    }
    let tokens = [0, 1, 5, 2, vocabulary - 1].map(|token: u32| token % vocabulary);
    let several = &tokens[..columns.min(tokens.len())];
    let selected = &tokens[..logit_columns.min(tokens.len())];
    let mut engine =
        Engine::new(model, memory, pager, kernels, parallel).map_err(|_| RunError::Program)?;
    let mut bits = vec![];
    let last = &tokens[..1];
    for (tokens, wanted) in [
        (several, Wanted::Last),
        (last, Wanted::Last),
        (selected, Wanted::All),
        (several, Wanted::Last),
    ] {
        engine.forward(tokens, wanted)?;
        let wanted = if wanted == Wanted::All { tokens.len() } else { 1 };
        bits.extend((0..wanted).flat_map(|c| engine.logits(c)).map(|x| x.to_bits()));
    }
    Ok(bits)
}

/// About how many numbers one token's pass touches.
pub(crate) fn work(program: &Program<'_>) -> u64 {
    let vocabulary = u64::from(program.header().vocab_size);
    let mut sum = vocabulary;
    for (op, layer) in program.steps(ALL).take(1 << 16) {
        let mut of_op = 8;
        op.operands(&mut |operand| {
            of_op += match operand {
                Operand::Weight(weight) => {
                    program.tensor(weight.at(layer)).map_or(0, |t| t.bytes())
                }
                Operand::State(_) => 0,
                Operand::Read(value)
                | Operand::Source(value)
                | Operand::Write(value)
                | Operand::Update(value) => u64::from(value.width),
            };
        });
        sum = sum.saturating_add(of_op);
    }
    sum
}

/// The page size that the header asks for, if a device could have it.
fn geometry(data: &[u8]) -> PageGeometry {
    let field = data.get(12..).and_then(<[u8]>::first_chunk);
    let wanted = u32::from_le_bytes(field.copied().unwrap_or_default());
    let page_size = if wanted.is_power_of_two() { wanted.clamp(512, 1 << 24) } else { 512 };
    PageGeometry { page_size, pages: data.len().div_ceil(page_size as usize) as u32 }
}

fn pages(data: &[u8], page: u32) -> Result<&[u8], PageError> {
    let start = (page as usize).checked_mul(geometry(data).page_size as usize);
    let bytes = start.and_then(|start| data.get(start..)).filter(|bytes| !bytes.is_empty());
    bytes.ok_or(PageError { page, kind: PageErrorKind::OutOfRange })
}

/// Mapped flash: a page and everything behind it.
struct Whole<'d>(&'d [u8]);

impl Pager for Whole<'_> {
    fn geometry(&self) -> PageGeometry {
        geometry(self.0)
    }

    fn is_stable(&self, _page: u32) -> bool {
        true
    }

    fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
        pages(self.0, page)
    }

    fn discard(&mut self, _page: u32) {}
}

/// A card that is read a page at a time.
struct OnePage<'d> {
    data: &'d [u8],
    resident: Vec<u8>,
}

impl Pager for OnePage<'_> {
    fn geometry(&self) -> PageGeometry {
        geometry(self.data)
    }

    fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
        let bytes = pages(self.data, page)?;
        let length = bytes.len().min(self.geometry().page_size as usize);
        self.resident = bytes[..length].to_vec();
        Ok(&self.resident)
    }

    fn discard(&mut self, _page: u32) {}
}

/// Three cores, the last task first.
struct Backwards;

#[expect(unsafe_code, reason = "a kind of cores")]
// SAFETY: a plain loop calls each index once and returns after the last.
unsafe impl Parallel for Backwards {
    fn cores(&self) -> usize {
        3
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).rev().for_each(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_run() {
        for (name, image) in crate::seeds::all("image") {
            let crc32c =
                if name.ends_with("unchecked") { |_, _: &[u8]| 0 } else { PORTABLE.crc32c };
            let kernels = Kernels { crc32c, ..PORTABLE };
            let outcome = run(&mut Whole(&image), &kernels, &Serial);
            assert!(matches!(outcome, Some(Ok(_))), "{name}: {outcome:?}");
        }
    }
}
