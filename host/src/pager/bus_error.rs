//! A mapped file that is cut short while it is in use raises SIGBUS. Here the lost part is replaced
//! by zeros, so that whoever reads it goes on, and finds out afterwards.
#![expect(unsafe_code, reason = "handling a signal")]

use memmap2::Mmap;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Files that can be watched at once: many models' worth.
const WATCHED: usize = 1024;

/// First address, and the one behind the last; both 0 if free.
struct Range {
    start: AtomicUsize,
    end: AtomicUsize,
    /// Zeros took the place of bytes.
    lost: AtomicBool,
}

static RANGES: [Range; WATCHED] = [const {
    Range { start: AtomicUsize::new(0), end: AtomicUsize::new(0), lost: AtomicBool::new(false) }
}; WATCHED];

/// What SIGBUS did before, and the size of the system's pages.
static BEFORE: OnceLock<(libc::sigaction, usize)> = OnceLock::new();

/// A mapping whose lost parts read as zeros.
pub(super) struct Watched {
    map: Mmap,
    /// Place in [`RANGES`].
    place: Option<usize>,
}

impl Watched {
    /// Watches a mapping. Past [`WATCHED`] of them, or without a handler, it is not watched.
    pub(super) fn new(map: Mmap) -> Self {
        let installed = BEFORE.get().is_some() || install();
        let start = map.as_ptr().addr();
        let claims = |range: &Range| {
            range.start.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let place = if installed { RANGES.iter().position(claims) } else { None };
        if let Some(range) = place.and_then(|place| RANGES.get(place)) {
            range.lost.store(false, Ordering::Release);
            range.end.store(start + map.len(), Ordering::Release);
        }
        Self { map, place }
    }

    /// Zeros took the place of bytes that the file had, or that could not be read.
    pub(super) fn is_lost(&self) -> bool {
        let range = self.place.and_then(|place| RANGES.get(place));
        range.is_some_and(|range| range.lost.load(Ordering::Acquire))
    }
}

impl std::ops::Deref for Watched {
    type Target = Mmap;

    fn deref(&self) -> &Mmap {
        &self.map
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(range) = self.place.and_then(|place| RANGES.get(place)) {
            range.end.store(0, Ordering::Release);
            range.start.store(0, Ordering::Release);
        }
    }
}

/// Installs the handler; false if the system refuses.
fn install() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        let mut before = MaybeUninit::uninit();
        // SAFETY: plain calls; `before` is filled where `sigaction` succeeds.
        unsafe {
            if libc::sigaction(libc::SIGBUS, null(), before.as_mut_ptr()) != 0 {
                return false;
            }
            let page_size = libc::sysconf(libc::_SC_PAGESIZE).max(1) as usize;
            let _ = BEFORE.set((before.assume_init(), page_size));
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_bus_error as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &raw const action, null_mut()) == 0
        }
    })
}

/// Puts zeros where a watched file has no bytes any more; other errors take the way they took
/// before. Makes only calls that a signal's handler may make.
extern "C" fn on_bus_error(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    let Some((before, page_size)) = BEFORE.get() else { return };
    // SAFETY: the kernel hands over a valid `info`, whose address is set for this signal. Only what
    // a watched mapping has from the address on is replaced, by as many bytes that can be read; that
    // they are others is noted first.
    unsafe {
        let address = (*info).si_addr().addr();
        let holds = |range: &&Range| {
            range.start.load(Ordering::Acquire) <= address
                && address < range.end.load(Ordering::Acquire)
        };
        if let Some(range) = RANGES.iter().find(holds) {
            range.lost.store(true, Ordering::Release);
            let start = address - address % page_size;
            let length = range.end.load(Ordering::Acquire) - start;
            let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let start = std::ptr::without_provenance_mut(start);
            let zeros = libc::mmap(start, length, libc::PROT_READ, flags, -1, 0);
            if zeros != libc::MAP_FAILED {
                return;
            }
        }
        // The instruction is tried again, and the error with it.
        libc::sigaction(signal, before, null_mut());
    }
}
