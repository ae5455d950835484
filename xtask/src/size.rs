//! `cargo xtask size`: what a firmware takes of its board.

use crate::Result;
use crate::elf::Elf;
use crate::firmware::{BOARDS, Board, Kind};

const USAGE: &str = "\
Usage: cargo xtask size [NAME]

Shows what the firmware of a board, or of all, takes of flash and memory, section by section: that for
language models, and that for int8 graphs.";

/// Runs the command.
///
/// # Errors
/// Tools that are missing, or firmware that does not fit.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    match arguments {
        [] => BOARDS.iter().try_for_each(check_all),
        [flag] if flag == "--help" || flag == "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        [name] => check_all(Board::find(name)?),
        _ => Err(USAGE.to_owned()),
    }
}

fn check_all(board: &Board) -> Result<()> {
    Kind::ALL.iter().try_for_each(|kind| check(board, *kind))
}

/// Builds a board's firmware, prints what it takes, and checks that it fits.
///
/// # Errors
/// Tools that are missing, or firmware that does not fit.
pub(crate) fn check(board: &Board, kind: Kind) -> Result<()> {
    let elf = Elf::read(&board.build(kind)?)?;
    let symbol = |name| elf.symbol(name).ok_or(format!("the firmware has no symbol {name}"));
    let stack = symbol("_stack_start")? - symbol("_stack_end")?;
    let data = symbol("__sdata")?;
    let (flash, mut ram) = (elf.flash_bytes(), stack);
    println!("{:<16} {:>8} {:>8}", format!("{}, {}", board.name, kind.feature()), "flash", "RAM");
    for section in &elf.sections {
        let in_ram = if section.address >= data { section.size } else { 0 };
        // What is in memory with its contents is copied there from flash.
        let in_flash = if section.has_contents { section.size } else { 0 };
        println!("{:<16} {in_flash:>8} {in_ram:>8}", section.name);
        ram += in_ram;
    }
    println!("{:<16} {:>8} {stack:>8}", "stack, at most", "");
    println!("{:<16} {flash:>8} {ram:>8}", "in all");
    println!("{:<16} {:>8} {:>8}", "of", board.flash, board.ram);
    if flash > board.flash || ram > board.ram {
        return Err(format!("the firmware does not fit the {}", board.name));
    }
    Ok(())
}
