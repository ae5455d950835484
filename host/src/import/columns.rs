//! Rows of tensors that are stored column by column, as a view of a transposed matrix is.

use super::source_file::SourceFile;
use crate::Result;
use std::sync::{Mutex, PoisonError};

/// Bytes of a tile, and its most rows: as many as are converted together.
const TILE_BYTES: u64 = 4 << 20;
const TILE_ROWS: u64 = 512;
/// Tiles that are kept: threads read rows of neighbouring ones, and quantized rows lie in three tensors.
const KEPT: usize = 12;

/// A matrix whose columns lie in a file, each number beside the one of the next row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Columns {
    /// Of the first number in the file.
    pub(super) offset: u64,
    /// Bytes from a column to the next.
    pub(super) apart: u64,
    pub(super) rows: u64,
    pub(super) columns: u64,
    /// Bytes of a number.
    pub(super) size: usize,
}

/// Some rows of a matrix, turned.
#[derive(Debug)]
struct Tile {
    file: usize,
    matrix: Columns,
    first: u64,
    bytes: Vec<u8>,
}

/// The last tiles that were read: a row alone would cost a read for each of its numbers.
#[derive(Debug, Default)]
pub(super) struct Tiles(Mutex<Vec<Tile>>);

impl Tiles {
    /// Bytes that these take, of rows of so many bytes at most.
    pub(super) fn most(row_bytes: u64) -> u64 {
        KEPT as u64 * TILE_BYTES.max(row_bytes)
    }

    /// Reads a row of `matrix`, which lies in the file with the number `number`.
    pub(super) fn read_row(
        &self,
        (file, number): (&SourceFile, usize),
        name: &str,
        (matrix, row): (Columns, u64),
        out: &mut [u8],
    ) -> Result<()> {
        let row_bytes = matrix.columns * matrix.size as u64;
        let height = (TILE_BYTES / row_bytes).clamp(1, TILE_ROWS);
        let first = row - row % height;
        let mut tiles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = |tile: &Tile| (tile.file, tile.matrix, tile.first) == (number, matrix, first);
        let at = match tiles.iter().position(kept) {
            Some(at) => at,
            None => {
                let bytes = turn(file, name, matrix, first, height.min(matrix.rows - first))?;
                tiles.truncate(KEPT - 1);
                tiles.insert(0, Tile { file: number, matrix, first, bytes });
                0
            }
        };
        let start = ((row - first) * row_bytes) as usize;
        out.copy_from_slice(&tiles[at].bytes[start..start + out.len()]);
        Ok(())
    }
}

/// `height` rows from `first` on, one after another.
fn turn(
    file: &SourceFile,
    name: &str,
    matrix: Columns,
    first: u64,
    height: u64,
) -> Result<Vec<u8>> {
    let (size, columns) = (matrix.size, matrix.columns as usize);
    let mut column = vec![0; height as usize * size];
    let mut bytes = vec![0; column.len() * columns];
    for number in 0..columns {
        let offset = matrix.offset + number as u64 * matrix.apart + first * size as u64;
        file.read(name, offset, &mut column)?;
        for (row, value) in column.chunks_exact(size).enumerate() {
            let at = (row * columns + number) * size;
            bytes[at..at + size].copy_from_slice(value);
        }
    }
    Ok(bytes)
}
