//! OMEX on the LM3S6965 evaluation board: a model on an SD card is played in 64 KB.
//!
//! The flash image begins with the card. `spi` and `timer` are the chip's; `omex-board` does the rest.
#![no_std]
#![no_main]

mod spi;
mod timer;

use cortex_m_rt::entry;
use omex_board::{Arena, Card, Counted, Failure};
use omex_hal_adapters::SdCard;

/// What the stack and the timer leave of the chip's 64 KB.
const ARENA_BYTES: usize = (54 << 10) - 16;

/// How images for this board are packed.
const PACK: &str = "--ram 64K --reserve 11K";

#[entry]
fn main() -> ! {
    // `entry` makes this a `&'static mut`: there is only one.
    static mut ARENA: Arena<ARENA_BYTES> = Arena([0; ARENA_BYTES]);
    timer::start();
    omex_board::run(card, &mut ARENA.0, PACK)
}

/// Starts the card in the board's socket.
fn card() -> Result<Counted<Card<SdCard<spi::Spi, spi::Select>>>, Failure> {
    let (bus, select) = spi::start();
    let mut card = SdCard::start(bus, select)?;
    card.bus().speed_up();
    Ok(Counted(Card::new(card), timer::COUNTER))
}
