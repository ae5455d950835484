//! As `main`, but the model answers over the machine's serial port, as it does on boards that people own.
#![no_std]
#![no_main]

mod image;

use omex_board::{Arena, Console, serve};
use omex_hal::Serial;

/// What the stack leaves of 384 KB.
const ARENA_BYTES: usize = 374 << 10;

/// A 16550.
const DATA: *mut u8 = 0x1000_0000 as *mut u8;
const STATUS: *const u8 = 0x1000_0005 as *const u8;
const RECEIVED: u8 = 1;
const MAY_SEND: u8 = 1 << 5;

/// Ends QEMU when this is written to it.
const POWER: *mut u32 = 0x0010_0000 as *mut u32;
const OFF: u32 = 0x5555;
/// What ends a terminal's input.
const END_OF_TRANSMISSION: u8 = 4;

/// A clock of 10 MHz.
const CLOCK: *const u32 = 0x0200_bff8 as *const u32;
const TICKS_A_MICROSECOND: u64 = 10;

/// `omex-board` begins here.
#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    static mut ARENA: Arena<ARENA_BYTES> = Arena([0; ARENA_BYTES]);
    // SAFETY: `main` is called once, and nobody else knows the arena.
    let arena = unsafe { &mut *(&raw mut ARENA) };
    let console = Console {
        read: &mut receive,
        write: &mut |bytes| bytes.iter().for_each(send),
        micros: &micros,
    };
    serve(&image::image(), &mut arena.0, &Serial, console)
}

fn receive() -> u8 {
    wait_for(RECEIVED);
    // SAFETY: the port's register has no effect on memory.
    match unsafe { DATA.read_volatile() } {
        END_OF_TRANSMISSION => power_off(),
        byte => byte,
    }
}

fn send(byte: &u8) {
    wait_for(MAY_SEND);
    // SAFETY: the port's register has no effect on memory.
    unsafe { DATA.write_volatile(*byte) }
}

fn wait_for(bit: u8) {
    // SAFETY: reading the port's status changes nothing.
    while unsafe { STATUS.read_volatile() } & bit == 0 {}
}

fn power_off() -> ! {
    loop {
        // SAFETY: the machine ends.
        unsafe { POWER.write_volatile(OFF) }
    }
}

/// The lower half of the clock, which begins anew after seven minutes.
fn micros() -> u64 {
    // SAFETY: reading the clock changes nothing.
    u64::from(unsafe { CLOCK.read_volatile() }) / TICKS_A_MICROSECOND
}
