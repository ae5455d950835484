//! What spilled caches take.

use omex_core::state::kv::KvShape;

/// Bytes that are read and written at once, at least, each with a checksum of its own.
pub const BLOCK: usize = 4096;

/// Buffers that spilled caches pass through: one in use, one being read.
pub(crate) const BUFFERS: u32 = 2;

/// Bytes of a cache, in memory and in the file: whole blocks.
pub(crate) fn cache_bytes(shape: &KvShape) -> usize {
    (shape.bytes() as usize).next_multiple_of(BLOCK)
}

/// Blocks of a spilled cache that stay in memory.
pub(super) fn tail_blocks(shape: &KvShape) -> usize {
    shape.ranges(0..1).count().min(cache_bytes(shape) / BLOCK)
}

/// Bytes of memory that `caches` caches take of which `spilled` lie in the file.
pub(crate) fn memory_bytes(shape: &KvShape, caches: u32, spilled: u32) -> u64 {
    let cache = cache_bytes(shape);
    let checksums = cache / BLOCK * size_of::<u32>();
    let of_spilled = checksums + tail_blocks(shape) * BLOCK;
    u64::from(caches - spilled + BUFFERS) * cache as u64 + u64::from(spilled) * of_spilled as u64
}
