//! Whose the bytes of a firmware are, by the names of its symbols.

use crate::elf::Elf;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes by name, the most first.
pub(crate) type Shares = Vec<(String, u64)>;

/// What has no symbol, or one that is no path: constants, assembly, padding.
const NO_MODULE: &str = "(no module)";

/// Flash by module: of our crates, by their modules; of others, by crate.
pub(crate) fn flash(elf: &Elf) -> Shares {
    let mut modules = of_symbols(elf, true, |name| module(&rustc_demangle::demangle(name)));
    let named: u64 = modules.values().sum();
    *modules.entry(NO_MODULE.to_owned()).or_default() += elf.flash_bytes().saturating_sub(named);
    sorted(modules)
}

/// Memory by variable.
pub(crate) fn variables(elf: &Elf) -> Shares {
    sorted(of_symbols(elf, false, |name| format!("{:#}", rustc_demangle::demangle(name))))
}

/// Bytes of symbols in flash, or of variables without contents there, by what `group` makes of their names.
fn of_symbols(elf: &Elf, in_flash: bool, group: impl Fn(&str) -> String) -> BTreeMap<String, u64> {
    let (mut shares, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for symbol in elf.symbols.iter().filter(|symbol| symbol.size > 0) {
        let holds = |start: u64, size: u64| (start..start + size).contains(&symbol.address);
        let mut sections = elf.sections.iter().filter(|s| holds(s.address, s.size));
        // Functions that are alike are one, with several names.
        if sections.any(|s| s.has_contents == in_flash) && seen.insert(symbol.address & !1) {
            *shares.entry(group(&symbol.name)).or_default() += symbol.size;
        }
    }
    shares
}

fn sorted(shares: BTreeMap<String, u64>) -> Shares {
    let mut shares: Vec<_> = shares.into_iter().collect();
    shares.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    shares
}

/// The module of what has this name: `a::b` of `<a::b::C as d::E>::f` if `a` is ours, else `a`.
fn module(name: &impl std::fmt::Display) -> String {
    let name = format!("{name:#}");
    let path = |text: &str| {
        let start = text.find(|c: char| c.is_alphabetic() || c == '_').unwrap_or(text.len());
        let text = text[start..].trim_start_matches("mut ").trim_start_matches("dyn ");
        let end = text.find(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
        text[..end.unwrap_or(text.len())].to_owned()
    };
    // Of what is implemented for a type without a path, the trait says more.
    let places = std::iter::once(name.as_str()).chain(name.split(" as ").skip(1));
    let Some(path) = places.map(path).find(|path| path.contains("::")) else {
        return NO_MODULE.to_owned();
    };
    let depth = if path.starts_with("omex_") { 2 } else { 1 };
    path.split("::").take(depth).collect::<Vec<_>>().join("::")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_have_modules() {
        for (name, expected) in [
            ("omex_core::engine::steps::play::{closure#0}", "omex_core::engine"),
            ("<omex_core::engine::Engine>::infer", "omex_core::engine"),
            ("<&mut omex_hal::Pager as core::fmt::Debug>::fmt", "omex_hal::Pager"),
            ("<u32 as core::fmt::Display>::fmt", "core"),
            ("core::fmt::write", "core"),
            ("memcpy", NO_MODULE),
        ] {
            assert_eq!(module(&name), expected);
        }
    }
}
