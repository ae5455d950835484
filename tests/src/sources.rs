//! The ways to read that this machine has.

use omex::pager::{PageSource, Space, open_reader};

/// Bytes of a page of the file that is tried.
const PAGE: u32 = 4096;

/// Sources of pages that this machine has; says which it lacks.
///
/// # Panics
/// No temporary file can be written.
#[must_use]
pub fn sources() -> Vec<PageSource> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page");
    std::fs::write(&path, [0; PAGE as usize]).unwrap();
    let files = vec![(path, u64::from(PAGE))];
    let space = Space { files, page_size: PAGE, open: vec![] };
    let all = [PageSource::Uring, PageSource::Direct, PageSource::Read];
    let works = |source: &PageSource| match open_reader(&space, Some(*source), 2) {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: {source}: {error}");
            false
        }
    };
    all.into_iter().filter(works).collect()
}
