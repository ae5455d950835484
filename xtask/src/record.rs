//! Sizes of firmware that are on record: `boards/SIZES.md`.

use crate::{Result, root};
use std::path::PathBuf;

/// What a firmware may take more than is on record.
const TOLERANCE: f64 = 0.02;

const HEADING: &str = "\
# Sizes

Bytes that firmware takes, as `cargo xtask size --update` measured them. `cargo xtask test` fails where one of them
grows over 2 %, unless this file changes, too. The arena is all memory that nothing else needs. Stack is the most that was
in use in QEMU: of `text` while the model that ships here wrote, of `int8` while it spotted keywords (MLPerf Tiny).
Boards without a figure there are not emulated.

| board | firmware | flash | arena | other variables | stack | compiler |
|---|---|---|---|---|---|---|
";

/// What one firmware takes, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) board: String,
    pub(crate) firmware: String,
    pub(crate) flash: u64,
    pub(crate) arena: u64,
    pub(crate) variables: u64,
    /// `None` if it was not run.
    pub(crate) stack: Option<u64>,
    pub(crate) compiler: String,
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [board, firmware, flash, arena, variables, stack, compiler] = cells[..] else {
            return None;
        };
        Some(Self {
            board: board.to_owned(),
            firmware: firmware.to_owned(),
            flash: flash.parse().ok()?,
            arena: arena.parse().ok()?,
            variables: variables.parse().ok()?,
            stack: if stack == "-" { None } else { Some(stack.parse().ok()?) },
            compiler: compiler.to_owned(),
        })
    }

    fn line(&self) -> String {
        let Self { board, firmware, flash, arena, variables, stack, compiler } = self;
        let stack = stack.map_or("-".to_owned(), |stack| stack.to_string());
        format!(
            "| {board} | {firmware} | {flash} | {arena} | {variables} | {stack} | {compiler} |\n"
        )
    }

    fn is_of(&self, other: &Self) -> bool {
        self.board == other.board && self.firmware == other.firmware
    }

    /// What takes more than on record, in words.
    fn growth(&self, recorded: &Self) -> Vec<String> {
        let numbers = [
            ("flash", Some(self.flash), Some(recorded.flash)),
            ("other variables", Some(self.variables), Some(recorded.variables)),
            ("stack", self.stack, recorded.stack),
        ];
        let both = numbers.into_iter().filter_map(|(name, a, b)| Some((name, a?, b?)));
        both.filter(|(_, found, recorded)| *found as f64 > *recorded as f64 * (1.0 + TOLERANCE))
            .map(|(name, found, recorded)| {
                format!(
                    "{}, {}: {name} {found} bytes, {recorded} on record: if that is worth it, \
                     `cargo xtask size --update`",
                    self.board, self.firmware
                )
            })
            .collect()
    }
}

/// Compares with what is on record.
///
/// # Errors
/// Firmware that is not on record, or takes more.
pub(crate) fn check(rows: &[Row]) -> Result<()> {
    let recorded = on_record()?;
    let mut misses = vec![];
    for row in rows {
        match recorded.iter().find(|recorded| recorded.is_of(row)) {
            None => misses.push(format!("{}, {}: not on record", row.board, row.firmware)),
            Some(recorded) if recorded.compiler != row.compiler => {
                println!(
                    "{}, {}: not compared: the record is of {}, this is {}",
                    row.board, row.firmware, recorded.compiler, row.compiler
                );
            }
            Some(recorded) => misses.extend(row.growth(recorded)),
        }
    }
    if misses.is_empty() { Ok(()) } else { Err(misses.join("\n")) }
}

/// Puts rows on record, in place of those of the same firmware.
///
/// # Errors
/// A file that can't be read or written.
pub(crate) fn update(rows: &[Row]) -> Result<()> {
    let mut all = if path().exists() { on_record()? } else { vec![] };
    all.retain(|recorded| !rows.iter().any(|row| row.is_of(recorded)));
    all.extend_from_slice(rows);
    all.sort_by(|a, b| (&a.board, &a.firmware).cmp(&(&b.board, &b.firmware)));
    let lines = all.iter().map(Row::line);
    let text: String = std::iter::once(HEADING.to_owned()).chain(lines).collect();
    std::fs::write(path(), text).map_err(|e| format!("{}: {e}", path().display()))
}

fn path() -> PathBuf {
    root().join("boards/SIZES.md")
}

fn on_record() -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(path()).map_err(|e| format!("{}: {e}", path().display()))?;
    let rows = text.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let parse = |line| Row::parse(line).ok_or(format!("{}: no row: {line}", path().display()));
    rows.map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(flash: u64, stack: Option<u64>) -> Row {
        let text = |text: &str| text.to_owned();
        let (board, firmware, compiler) = (text("b"), text("int8"), text("rustc 1.95.0"));
        Row { board, firmware, flash, arena: 7, variables: 100, stack, compiler }
    }

    #[test]
    fn rows_are_read_as_they_are_written() {
        for row in [row(1000, Some(5)), row(1, None)] {
            assert_eq!(Row::parse(row.line().trim_end()), Some(row));
        }
        assert_eq!(Row::parse("| b | int8 | x |"), None);
    }

    #[test]
    fn growth_over_two_percent_is_told() {
        assert!(row(1020, Some(102)).growth(&row(1000, Some(100))).is_empty());
        assert_eq!(row(1021, Some(103)).growth(&row(1000, Some(100))).len(), 2);
        assert!(row(900, None).growth(&row(1000, Some(1))).is_empty());
    }
}
