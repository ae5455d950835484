//! How the work of a kernel is cut: panel by panel, and so many columns at once as registers hold.

/// Calls `$kernel` for each panel and each tile of up to four columns, with the tile's width as a
/// constant.
macro_rules! for_tiles {
    ($kernel:ident, $block:expr, $blocks:expr, $x:expr, $columns:expr, $sums:expr) => {
        let columns = $columns.max(1);
        let panel_bytes = ($x.len() / columns * $block).max(1);
        for (panel, sums) in $blocks.chunks_exact(panel_bytes).zip($sums.chunks_mut(columns)) {
            for (tile, sums) in sums.chunks_mut(4).enumerate() {
                let x = $x.get(tile * 4..).unwrap_or_default();
                match sums.len() {
                    1 => $kernel::<1>(panel, x, columns, sums),
                    2 => $kernel::<2>(panel, x, columns, sums),
                    3 => $kernel::<3>(panel, x, columns, sums),
                    _ => $kernel::<4>(panel, x, columns, sums),
                }
            }
        }
    };
}
pub(super) use for_tiles;

/// The groups of `C` columns for each block, out of `columns` that lie side by side.
pub(super) fn groups_of<const C: usize, X>(
    x: &[X],
    columns: usize,
) -> impl Iterator<Item = &[X; C]> {
    x.chunks(columns).filter_map(<[X]>::first_chunk)
}
