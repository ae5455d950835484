//! What the examples know of their board: where the image lies, what counts instructions, and what the debugger's
//! command line names.

use core::slice::from_raw_parts;
use omex_board::{COMMAND_BYTES, Counter, Failure, File, Flash, argument};

/// What the stack leaves of the 128 KB that most boards with a Cortex-M4 have.
pub const ARENA_BYTES: usize = 64 << 10;

/// How images for the examples are packed.
pub const PACK: &str = "--ram 75K --reserve 11K";

/// The CMSDK's timer 0, 1.6 periods of which are an instruction in QEMU with `-icount shift=6`.
pub const COUNTER: Counter = Counter { ticks, instructions: 5, of_ticks: 8 };

const TIMER: *mut u32 = 0x4000_0000 as *mut u32;
const CONTROL: usize = 0;
const VALUE: usize = 1;
const RELOAD: usize = 2;
const ENABLE: u32 = 1;

unsafe extern "C" {
    static _image_start: u8;
    static _image_end: u8;
}

/// The memory behind the firmware, as flash would be.
pub fn image() -> Flash {
    let (start, end) = (&raw const _image_start, &raw const _image_end);
    // SAFETY: these addresses are memory, which is always readable, and which nothing writes to.
    Flash(unsafe { from_raw_parts(start, end.addr() - start.addr()) })
}

/// Has the timer count down from its largest value, over and over.
pub fn start_counter() {
    for (register, value) in
        [(CONTROL, 0), (RELOAD, u32::MAX), (VALUE, u32::MAX), (CONTROL, ENABLE)]
    {
        // SAFETY: these registers are the timer's, which touches no memory and raises no interrupt.
        unsafe { TIMER.wrapping_add(register).write_volatile(value) }
    }
}

fn ticks() -> u32 {
    // SAFETY: reading the timer's value changes nothing.
    !unsafe { TIMER.wrapping_add(VALUE).read_volatile() }
}

/// The file at the other end of the debugger that stands for a sensor.
///
/// # Errors
/// None is named, or it can't be read.
pub fn sensor() -> Result<File, Failure> {
    let path = &mut [0; COMMAND_BYTES];
    let path = argument(path).ok_or(Failure::Task("expected the name of a file"))?;
    File::open(path).ok_or(Failure::Task("the file can't be read"))
}
