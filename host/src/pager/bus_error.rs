//! A mapped file that is cut short while it is in use raises SIGBUS. Where the host application
//! asked for it, the lost part is replaced by zeros here, so that whoever reads it goes on, and finds
//! out afterwards.
#![expect(unsafe_code, reason = "handling a signal")]

use libc::{c_int, c_void, siginfo_t};
use memmap2::Mmap;
use std::mem::{MaybeUninit, transmute};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// Ranges that are made room for at once.
const RANGES: usize = 256;
/// What `si_code` says of errors in memory: no such place in the file, the device's, the memory's.
/// A signal that somebody sent has others.
const ERRORS: std::ops::RangeInclusive<c_int> = 2..=4;

/// First address, and the one behind the last; both 0 if free.
struct Range {
    start: AtomicUsize,
    end: AtomicUsize,
    /// Zeros took the place of bytes.
    lost: AtomicBool,
}

/// Ranges that are watched; once there, they stay, since a signal's handler may look at any time.
struct Ranges {
    ranges: [Range; RANGES],
    more: AtomicPtr<Ranges>,
}

static WATCHED: Ranges = Ranges::new();

impl Ranges {
    const fn new() -> Self {
        Self {
            ranges: [const {
                Range {
                    start: AtomicUsize::new(0),
                    end: AtomicUsize::new(0),
                    lost: AtomicBool::new(false),
                }
            }; RANGES],
            more: AtomicPtr::new(null_mut()),
        }
    }

    fn more(&self) -> Option<&'static Self> {
        // SAFETY: null, or what `add` leaked.
        unsafe { self.more.load(Ordering::Acquire).as_ref() }
    }

    /// Makes room behind the last ranges.
    fn add(&self) -> &'static Self {
        let more = Box::into_raw(Box::new(Self::new()));
        let (before, order) = (null_mut(), (Ordering::AcqRel, Ordering::Acquire));
        if self.more.compare_exchange(before, more, order.0, order.1).is_err() {
            // SAFETY: made above, and nobody else has it.
            drop(unsafe { Box::from_raw(more) });
        }
        self.more().unwrap_or(&WATCHED)
    }

    /// The range that an address lies in. Only loads, as a signal's handler may.
    fn find(address: usize) -> Option<&'static Range> {
        let holds = |range: &&Range| {
            range.start.load(Ordering::Acquire) <= address
                && address < range.end.load(Ordering::Acquire)
        };
        let mut lists = std::iter::successors(Some(&WATCHED), |list| list.more());
        lists.find_map(|list| list.ranges.iter().find(holds))
    }

    /// Takes a free range.
    fn claim(start: usize, length: usize) -> &'static Range {
        let mut list = &WATCHED;
        let claims = |range: &&Range| {
            range.start.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let range = loop {
            match list.ranges.iter().find(claims) {
                Some(range) => break range,
                None => list = list.more().unwrap_or_else(|| list.add()),
            }
        };
        range.lost.store(false, Ordering::Release);
        range.end.store(start.saturating_add(length), Ordering::Release);
        range
    }
}

/// A mapping whose lost parts read as zeros, once there is a guard.
pub(super) struct Watched {
    map: Mmap,
    range: &'static Range,
}

impl Watched {
    /// Watches a mapping.
    pub(super) fn new(map: Mmap) -> Self {
        let range = Ranges::claim(map.as_ptr().addr(), map.len());
        Self { map, range }
    }

    /// Zeros took the place of bytes that the file had, or that could not be read.
    pub(super) fn is_lost(&self) -> bool {
        self.range.lost.load(Ordering::Acquire)
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
        self.range.end.store(0, Ordering::Release);
        self.range.start.store(0, Ordering::Release);
    }
}

/// What was there before the guard, the guard, and the size of the system's pages.
struct Guard {
    before: libc::sigaction,
    own: libc::sigaction,
    page_size: usize,
}

/// There before the handler is.
static GUARD: OnceLock<Guard> = OnceLock::new();

/// Guards this process against mapped files of models that are cut short, or that can't be read,
/// while they are in use: the pass fails, where otherwise SIGBUS ends the process. Says whether the
/// guard is in place.
///
/// This installs a handler for SIGBUS, once, so it is the application's to decide. What is no error
/// in such a file goes to the handler that was there before. A SIGBUS that somebody sends does, too,
/// and ends the process no more.
pub fn guard_mapped_files() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let install = || {
        let Some(guard) = prepare() else { return false };
        let own = &raw const GUARD.get_or_init(|| guard).own;
        // SAFETY: a plain call.
        unsafe { libc::sigaction(libc::SIGBUS, own, null_mut()) == 0 }
    };
    *INSTALLED.get_or_init(install)
}

fn prepare() -> Option<Guard> {
    let mut before = MaybeUninit::uninit();
    // SAFETY: plain calls; `before` is filled where `sigaction` succeeds.
    unsafe {
        if libc::sigaction(libc::SIGBUS, null(), before.as_mut_ptr()) != 0 {
            return None;
        }
        let mut own: libc::sigaction = std::mem::zeroed();
        own.sa_sigaction = on_bus_error as *const () as usize;
        own.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let page_size = libc::sysconf(libc::_SC_PAGESIZE).max(1) as usize;
        Some(Guard { before: before.assume_init(), own, page_size })
    }
}

/// Makes only calls that a signal's handler may make.
extern "C" fn on_bus_error(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(guard) = GUARD.get() else { return };
    // SAFETY: the kernel hands over a valid `info`.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    // Those of errors are above 0; where somebody sent it, `si_addr` is no address.
    let sent = code <= 0;
    if ERRORS.contains(&code) && replace(address, guard.page_size) {
        return;
    }
    // SAFETY: as the handler before was promised.
    let handled = unsafe { hand_on(&guard.before, signal, info, context) };
    if sent {
        // The handler before may have uninstalled this one, as Rust's own does.
        // SAFETY: a plain call.
        unsafe { libc::sigaction(signal, &raw const guard.own, null_mut()) };
    } else if !handled {
        // The instruction is tried again, and the error with it.
        // SAFETY: plain calls, of what was there before.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Puts zeros in place of what a watched mapping has from an address on; false if none has it.
fn replace(address: usize, page_size: usize) -> bool {
    let Some(range) = Ranges::find(address) else { return false };
    range.lost.store(true, Ordering::Release);
    let start = address - address % page_size;
    let length = range.end.load(Ordering::Acquire).saturating_sub(start);
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let start = std::ptr::without_provenance_mut(start);
    // SAFETY: the mapping's own addresses, which it keeps while one of its bytes is being read;
    // bytes that can be read take the place of bytes, and that they are others is noted above.
    unsafe { libc::mmap(start, length, libc::PROT_READ, flags, -1, 0) != libc::MAP_FAILED }
}

/// Calls the handler that was there before; false if there was none.
///
/// # Safety
/// `before` is what `sigaction` said, and the rest what the system calls a handler with.
unsafe fn hand_on(
    before: &libc::sigaction,
    signal: c_int,
    info: *mut siginfo_t,
    context: *mut c_void,
) -> bool {
    match before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => return false,
        // SAFETY: the flag says which of both it is.
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => unsafe {
            transmute::<usize, extern "C" fn(c_int, *mut siginfo_t, *mut c_void)>(handler)(
                signal, info, context,
            );
        },
        // SAFETY: as above.
        handler => unsafe { transmute::<usize, extern "C" fn(c_int)>(handler)(signal) },
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// Maps a file of some pages, many times.
    fn mapped(times: usize) -> (File, Vec<Watched>) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 << 16).unwrap();
        // SAFETY: bytes that vanish are what is tested.
        let map = || Watched::new(unsafe { Mmap::map(&file) }.unwrap());
        let maps = (0..times).map(|_| map()).collect();
        (file, maps)
    }

    /// Runs a test of this file, meant for a process of its own, in one.
    fn in_own_process(test: &str) -> std::process::ExitStatus {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let name = format!("pager::bus_error::tests::{test}");
        command.args(["--exact", &name, "--ignored", "--test-threads=1"]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() || said.contains("1 passed"), "no such test: {said}");
        output.status
    }

    #[test]
    fn every_one_of_thousands_of_files_is_guarded() {
        assert!(guard_mapped_files());
        let (file, maps) = mapped(3000);
        file.set_len(0).unwrap();
        for map in maps {
            assert!(!map.is_lost());
            assert_eq!(map[2 << 16], 0);
            assert!(map.is_lost());
        }
    }

    #[test]
    fn signals_that_somebody_sends_are_no_errors_and_leave_the_guard_in_place() {
        assert!(guard_mapped_files());
        let (file, maps) = mapped(1);
        for _ in 0..3 {
            // SAFETY: a plain call.
            unsafe { libc::raise(libc::SIGBUS) };
        }
        assert!(!maps[0].is_lost());
        file.set_len(0).unwrap();
        assert_eq!(maps[0][1], 0);
        assert!(maps[0].is_lost());
    }

    #[test]
    fn without_being_asked_nothing_is_guarded() {
        assert_eq!(in_own_process("reads_what_was_cut").signal(), Some(libc::SIGBUS));
        assert_eq!(in_own_process("reads_what_was_cut_with_a_guard").code(), Some(0));
    }

    #[test]
    #[ignore = "ends its process; another test runs it"]
    fn reads_what_was_cut() {
        let (file, maps) = mapped(1);
        file.set_len(0).unwrap();
        assert_eq!(maps[0][0], 0);
    }

    #[test]
    #[ignore = "needs a process of its own; another test runs it"]
    fn reads_what_was_cut_with_a_guard() {
        let (file, maps) = mapped(1);
        assert!(guard_mapped_files());
        file.set_len(0).unwrap();
        assert_eq!(maps[0][0], 0);
    }

    extern "C" fn noted(_signal: c_int) {
        NOTED.fetch_add(1, Ordering::Relaxed);
    }

    static NOTED: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn the_handler_before_gets_what_is_not_the_guards() {
        assert_eq!(in_own_process("an_application_with_a_handler").code(), Some(0));
    }

    #[test]
    #[ignore = "needs a process of its own; another test runs it"]
    fn an_application_with_a_handler() {
        // SAFETY: plain calls.
        unsafe {
            libc::signal(libc::SIGBUS, noted as *const () as usize);
            assert!(guard_mapped_files());
            libc::raise(libc::SIGBUS);
            libc::raise(libc::SIGBUS);
        }
        assert_eq!(NOTED.load(Ordering::Relaxed), 2);
    }
}
