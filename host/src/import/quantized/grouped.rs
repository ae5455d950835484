//! Integers of a few bits, rows of blocks with a scale and perhaps a zero point each: ONNX Runtime's MatMulNBits
//! (<https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits>).

use crate::Result;
use crate::import::container::Container;
use crate::import::encoding::Encoding;
use crate::import::stored::StoredModel;

/// Numbers and bytes of a block of Q4_0, whose blocks some of these are.
const Q4_0: (u32, usize) = (32, 16);

/// How integers lie.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Grouping {
    pub(in super::super) rows: u32,
    pub(in super::super) columns: u32,
    /// Of an integer: 2, 4 or 8.
    pub(in super::super) bits: u32,
    /// Columns of a block: as many as fill whole bytes.
    pub(in super::super) size: u32,
}

impl Grouping {
    /// Blocks of a row.
    pub(in super::super) fn blocks(&self) -> u32 {
        self.columns.div_ceil(self.size)
    }

    /// Bytes of a block, and of a row of zero points.
    pub(in super::super) fn bytes(&self) -> [u64; 2] {
        let bytes = |count: u32| (u64::from(count) * u64::from(self.bits)).div_ceil(8);
        [bytes(self.size), bytes(self.blocks())]
    }

    /// The integer with this number of a row of them.
    fn integer(&self, bytes: &[u8], number: usize) -> f32 {
        let bit = number * self.bits as usize;
        let mask = u8::MAX >> (8 - self.bits);
        f32::from(bytes[bit / 8] >> (bit % 8) & mask)
    }
}

/// A matrix.
#[derive(Debug)]
pub(in super::super) struct Grouped {
    pub(in super::super) grouping: Grouping,
    /// The tensors of integers, a row for each of the matrix, and of scales.
    pub(in super::super) integers: String,
    pub(in super::super) scales: String,
    /// The tensor of zero points, of integers or of floats; without one, they are in the middle.
    pub(in super::super) zeros: Option<String>,
}

impl Grouped {
    pub(super) fn shape(&self) -> [u32; 2] {
        [self.grouping.rows, self.grouping.columns]
    }

    pub(super) fn stored_as(&self) -> &str {
        &self.integers
    }

    /// Q4_0, where blocks can be kept as they are.
    pub(super) fn encoding(&self, model: &StoredModel) -> Encoding {
        let Grouping { bits, size, columns, .. } = self.grouping;
        let scales = model.tensor(&self.scales).map(|info| info.encoding);
        let kept = (bits, size) == (4, Q4_0.0) && columns.is_multiple_of(size);
        match kept && self.zeros.is_none() && scales == Some(Encoding::F16) {
            true => Encoding::Q4_0,
            false => Encoding::F32,
        }
    }

    pub(super) fn read_row(&self, model: &StoredModel, row: u32, out: &mut [f32]) -> Result<()> {
        let (grouping, mut bytes) = (&self.grouping, vec![]);
        model.read_row_bytes(&self.integers, row, &mut bytes)?;
        let mut scales = vec![0.0; grouping.blocks() as usize];
        model.read_row(&self.scales, row, &mut scales)?;
        let zeros = self.read_zeros(model, row)?;
        let size = grouping.size as usize;
        for (number, x) in out.iter_mut().enumerate() {
            let block = number / size;
            *x = (grouping.integer(&bytes, number) - zeros[block]) * scales[block];
        }
        Ok(())
    }

    fn read_zeros(&self, model: &StoredModel, row: u32) -> Result<Vec<f32>> {
        let blocks = self.grouping.blocks() as usize;
        let mut zeros = vec![(1u32 << (self.grouping.bits - 1)) as f32; blocks];
        let Some(name) = &self.zeros else { return Ok(zeros) };
        if model.tensor(name).is_some_and(|info| info.encoding.is_float()) {
            model.read_row(name, row, &mut zeros)?;
            return Ok(zeros);
        }
        let mut bytes = vec![];
        model.read_row_bytes(name, row, &mut bytes)?;
        Ok((0..blocks).map(|block| self.grouping.integer(&bytes, block)).collect())
    }

    /// A row as blocks of Q4_0: the scale, then a byte for each of the first 16 numbers and the one 16 further on.
    pub(super) fn read_row_bytes(
        &self,
        model: &StoredModel,
        row: u32,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let (mut integers, mut scales) = (vec![], vec![]);
        model.read_row_bytes(&self.integers, row, &mut integers)?;
        model.read_row_bytes(&self.scales, row, &mut scales)?;
        out.clear();
        for (scale, block) in scales.as_chunks::<2>().0.iter().zip(integers.chunks_exact(Q4_0.1)) {
            out.extend(scale);
            let nibble = |number: usize| block[number / 2] >> (number % 2 * 4) & 15;
            out.extend((0..Q4_0.1).map(|number| nibble(number) | nibble(number + Q4_0.1) << 4));
        }
        Ok(())
    }
}
