//! `cargo xtask size`: what firmware takes of its board, beside what is on record.

use crate::elf::Elf;
use crate::firmware::{BOARDS, Board, Kind};
use crate::images::Images;
use crate::modules::{self, Shares};
use crate::record::{self, Row};
use crate::{Result, board};

const USAGE: &str = "\
Usage: cargo xtask size [NAME] [--update]

Shows what the firmware of a board, or of all, takes: of flash, section by section and module by module, of
memory, variable by variable, and of the stack, as an emulated board says after playing a model. Then compares
with boards/SIZES.md: what takes over 2 % more fails. Another compiler than the one on record only shows.

  --update   put what was measured on record

Examples:
  cargo xtask size lm3s6965evb
  cargo xtask size --update";

/// So many modules and variables are listed by name.
const LISTED: usize = 24;

/// Runs the command.
///
/// # Errors
/// Tools that are missing, or firmware that does not fit, or takes more than it did.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let (mut board, mut update) = (None::<&Board>, false);
    for argument in arguments {
        match argument.as_str() {
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            "--update" => update = true,
            name if board.is_none() && !name.starts_with('-') => board = Some(Board::find(name)?),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let boards: Vec<_> =
        BOARDS.iter().filter(|b| board.is_none_or(|one| one.name == b.name)).collect();
    let rows = measure(&boards, true)?;
    if update { record::update(&rows) } else { record::check(&rows) }
}

/// Builds the firmware of the boards that are built by default, checks that it fits, and compares it with what is on
/// record.
///
/// # Errors
/// Tools that are missing, or firmware that does not fit, or takes more than it did.
pub(crate) fn check() -> Result<()> {
    check_those(true)
}

/// As [`check`], of the boards that are not built by default.
///
/// # Errors
/// Those of [`check`].
pub(crate) fn check_others() -> Result<()> {
    check_those(false)
}

fn check_those(by_default: bool) -> Result<()> {
    let boards: Vec<_> = BOARDS.iter().filter(|board| board.by_default == by_default).collect();
    record::check(&measure(&boards, false)?)
}

fn measure(boards: &[&'static Board], with_shares: bool) -> Result<Vec<Row>> {
    let mut images = Images::new()?;
    let mut rows = vec![];
    for (board, kind) in boards.iter().flat_map(|board| Kind::ALL.map(|kind| (board, kind))) {
        rows.push(measure_one(board, kind, &mut images, with_shares)?);
    }
    Ok(rows)
}

/// Builds a board's firmware, prints what it takes, and checks that it fits.
fn measure_one(
    board: &'static Board,
    kind: Kind,
    images: &mut Images,
    with_shares: bool,
) -> Result<Row> {
    let elf = Elf::read(&board.build(kind)?)?;
    let symbol = |name| elf.symbol(name).ok_or(format!("the firmware has no symbol {name}"));
    let room = symbol("_stack_start")? - symbol("_stack_end")?;
    let data = symbol("__sdata")?;
    let (flash, mut variables) = (elf.flash_bytes(), 0);
    println!("\n{:<24} {:>8} {:>8}", format!("{}, {}", board.name, kind.feature()), "flash", "RAM");
    for section in &elf.sections {
        let in_ram = if section.address >= data { section.size } else { 0 };
        // What is in memory with its contents is copied there from flash.
        let in_flash = if section.has_contents { section.size } else { 0 };
        println!("{:<24} {in_flash:>8} {in_ram:>8}", section.name);
        variables += in_ram;
    }
    let ram = variables + room;
    println!("{:<24} {:>8} {room:>8}", "stack, at most", "");
    println!("{:<24} {flash:>8} {ram:>8}", "in all");
    println!("{:<24} {:>8} {:>8}", "of", board.flash, board.ram);
    if flash > board.flash || ram > board.ram {
        return Err(format!("the firmware does not fit the {}", board.name));
    }
    let shares = modules::variables(&elf);
    if with_shares {
        print("flash by module", &modules::flash(&elf));
        print("memory by variable", &shares);
    }
    let arena =
        shares.iter().filter(|(name, _)| name.contains("ARENA")).map(|(_, bytes)| bytes).sum();
    let stack = match images.of(board, kind)? {
        Some(image) => Some(board::stack_bytes(board, kind, &image)?),
        None => None,
    };
    if let Some(stack) = stack {
        println!("{:<24} {:>8} {stack:>8}", "stack, as used", "");
    }
    let compiler = board.compiler()?;
    let (board, firmware) = (board.name.to_owned(), kind.feature().to_owned());
    Ok(Row { compiler, board, firmware, flash, arena, variables: variables - arena, stack })
}

fn print(title: &str, shares: &Shares) {
    println!("{title}");
    for (name, bytes) in shares.iter().take(LISTED) {
        println!("  {name:<40} {bytes:>8}");
    }
    let rest: u64 = shares.iter().skip(LISTED).map(|(_, bytes)| bytes).sum();
    println!("  {:<40} {rest:>8}", "all others");
}
