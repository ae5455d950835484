//! OMEX on an STM32H743 (Nucleo-H743ZI): a model on an SD card is paged in as it is played, and answers over the
//! serial port that the board's debugger has on USB (PD8 sends, PD9 receives, 115,200 baud).
#![no_std]
#![no_main]

mod card;

use card::SdmmcCard;
use cortex_m_rt::entry;
use defmt_rtt as _;
use embassy_stm32::sdmmc::{self, Sdmmc};
use embassy_stm32::usart::{Config, Uart};
use embassy_stm32::{bind_interrupts, peripherals, rcc};
use embassy_time::Instant;
use omex_board::{Arena, Card, Console, serve};
use omex_hal::Serial;
use panic_probe as _;

/// What is left of 512 KB: the stack has 12, other variables 4.
const ARENA_BYTES: usize = 496 << 10;

bind_interrupts!(struct Interrupts {
    SDMMC1 => sdmmc::InterruptHandler<peripherals::SDMMC1>;
});

#[entry]
fn main() -> ! {
    // `entry` makes this a `&'static mut`: there is only one.
    static mut ARENA: Arena<ARENA_BYTES> = Arena([0; ARENA_BYTES]);
    let chip = embassy_stm32::init(clocks());
    let Ok(port) = Uart::new_blocking(chip.USART3, chip.PD9, chip.PD8, Config::default()) else {
        defmt::panic!("no serial port at this rate");
    };
    let (mut tx, mut rx) = port.split();
    let mut slot = Sdmmc::new_4bit(
        chip.SDMMC1,
        Interrupts,
        chip.PC12,
        chip.PD2,
        chip.PC8,
        chip.PC9,
        chip.PC10,
        chip.PC11,
        Default::default(),
    );
    let card = match SdmmcCard::start(&mut slot) {
        Ok(card) => Card::new(card),
        Err(_) => defmt::panic!("no SD card in the slot, or it does not start"),
    };
    let console = Console {
        read: &mut || {
            let mut byte = [0];
            // Line noise is no byte.
            while rx.blocking_read(&mut byte).is_err() {}
            let [byte] = byte;
            byte
        },
        write: &mut |bytes| _ = tx.blocking_write(bytes),
        micros: &|| Instant::now().as_micros(),
    };
    serve(&card, &mut ARENA.0, &Serial, console)
}

/// The core at 400 MHz, the card's port at 100 MHz, all from the internal oscillator.
fn clocks() -> embassy_stm32::Config {
    let mut config = embassy_stm32::Config::default();
    config.rcc.hsi = Some(rcc::HSIPrescaler::DIV1);
    config.rcc.pll1 = Some(rcc::Pll {
        source: rcc::PllSource::HSI,
        prediv: rcc::PllPreDiv::DIV4,
        mul: rcc::PllMul::MUL50,
        fracn: None,
        divp: Some(rcc::PllDiv::DIV2),
        divq: Some(rcc::PllDiv::DIV8),
        divr: None,
    });
    config.rcc.sys = rcc::Sysclk::PLL1_P;
    config.rcc.ahb_pre = rcc::AHBPrescaler::DIV2;
    config.rcc.apb1_pre = rcc::APBPrescaler::DIV2;
    config.rcc.apb2_pre = rcc::APBPrescaler::DIV2;
    config.rcc.apb3_pre = rcc::APBPrescaler::DIV2;
    config.rcc.apb4_pre = rcc::APBPrescaler::DIV2;
    config.rcc.voltage_scale = rcc::VoltageScale::Scale1;
    config
}
