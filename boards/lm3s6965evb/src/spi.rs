//! The PL022 serial port SSI0 and the SD card's select pin.

use core::convert::Infallible;
use embedded_hal::digital::{self, OutputPin};
use embedded_hal::spi::{self, SpiBus};

const RCGC1: usize = 0x400f_e104;
const RCGC1_SSI0: u32 = 1 << 4;
const RCGC2: usize = 0x400f_e108;
const RCGC2_GPIO_A_D: u32 = 0b1001;

const GPIO_A: usize = 0x4000_4000;
const GPIO_D: usize = 0x4000_7000;
const GPIO_DIRECTION: usize = 0x400;
const GPIO_ALTERNATE: usize = 0x420;
const GPIO_DIGITAL: usize = 0x51c;
/// PA2 clock, PA4 receive, PA5 transmit.
const SSI_PINS: u32 = 0x34;
/// PD0; a GPIO's data register is masked by its address.
const SELECT_PIN: u32 = 1;
const SELECT: usize = GPIO_D + ((SELECT_PIN as usize) << 2);

const SSI0: usize = 0x4000_8000;
const CONTROL_0: usize = SSI0;
const CONTROL_1: usize = SSI0 + 0x04;
const DATA: usize = SSI0 + 0x08;
const STATUS: usize = SSI0 + 0x0c;
const PRESCALE: usize = SSI0 + 0x10;
const EIGHT_BITS: u32 = 7;
const ENABLE: u32 = 1 << 1;
const NOT_EMPTY: u32 = 1 << 2;
const FULL: u32 = 1 << 3;
const BUSY: u32 = 1 << 4;
const FIFO: usize = 8;

fn write(register: usize, value: u32) {
    // SAFETY: only called with the registers above, which have no effect on memory.
    unsafe { (register as *mut u32).write_volatile(value) }
}

fn read(register: usize) -> u32 {
    // SAFETY: as for `write`.
    unsafe { (register as *const u32).read_volatile() }
}

fn set(register: usize, bits: u32) {
    write(register, read(register) | bits);
}

/// The bus, in mode 0.
pub struct Spi(());

/// The pin that selects the SD card.
pub struct Select(());

/// Switches both on, the bus at 400 kHz of the 12 MHz that the chip starts with.
pub fn start() -> (Spi, Select) {
    set(RCGC1, RCGC1_SSI0);
    set(RCGC2, RCGC2_GPIO_A_D);
    read(RCGC2); // The clocks need some cycles.
    set(GPIO_A + GPIO_ALTERNATE, SSI_PINS);
    set(GPIO_A + GPIO_DIGITAL, SSI_PINS);
    set(GPIO_D + GPIO_DIRECTION, SELECT_PIN);
    set(GPIO_D + GPIO_DIGITAL, SELECT_PIN);
    write(CONTROL_1, 0);
    write(PRESCALE, 30);
    write(CONTROL_0, EIGHT_BITS);
    write(CONTROL_1, ENABLE);
    (Spi(()), Select(()))
}

impl Spi {
    /// Half of the chip's clock: as fast as the port goes.
    pub fn speed_up(&mut self) {
        while read(STATUS) & BUSY != 0 {}
        write(PRESCALE, 2);
    }

    fn receive() -> u8 {
        while read(STATUS) & NOT_EMPTY == 0 {}
        read(DATA) as u8
    }

    fn exchange(byte: u8) -> u8 {
        write(DATA, u32::from(byte));
        Self::receive()
    }
}

impl spi::ErrorType for Spi {
    type Error = Infallible;
}

impl SpiBus for Spi {
    fn read(&mut self, words: &mut [u8]) -> Result<(), Infallible> {
        // Fills the FIFO, then empties it.
        let (full, rest) = words.as_chunks_mut::<FIFO>();
        for words in full {
            let (send, take) = (|| write(DATA, 0xff), || read(DATA) as u8);
            // Not a loop, which the compiler would leave one.
            let _ = [send(), send(), send(), send(), send(), send(), send(), send()];
            while read(STATUS) & FULL == 0 {}
            *words = [take(), take(), take(), take(), take(), take(), take(), take()];
        }
        rest.iter_mut().for_each(|word| *word = Self::exchange(0xff));
        Ok(())
    }

    fn write(&mut self, words: &[u8]) -> Result<(), Infallible> {
        for word in words {
            Self::exchange(*word);
        }
        Ok(())
    }

    fn transfer(&mut self, read: &mut [u8], write: &[u8]) -> Result<(), Infallible> {
        let padded = write.iter().copied().chain(core::iter::repeat(0xff));
        read.iter_mut().zip(padded).for_each(|(r, w)| *r = Self::exchange(w));
        self.write(write.get(read.len()..).unwrap_or_default())
    }

    fn transfer_in_place(&mut self, words: &mut [u8]) -> Result<(), Infallible> {
        words.iter_mut().for_each(|word| *word = Self::exchange(*word));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(()) // Every call above waits for the answer to its last byte.
    }
}

impl digital::ErrorType for Select {
    type Error = Infallible;
}

impl OutputPin for Select {
    fn set_low(&mut self) -> Result<(), Infallible> {
        write(SELECT, 0);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        write(SELECT, SELECT_PIN);
        Ok(())
    }
}
