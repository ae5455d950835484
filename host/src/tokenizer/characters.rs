//! Characters and bytes as tokenizers spell them.

use super::Spec;
use crate::Result;
use regex_syntax::hir::{Class, ClassUnicode, HirKind};

/// The byte that a piece named `<0xNN>` stands for.
pub(super) fn byte_token(piece: &[u8]) -> Option<u8> {
    let digits = piece.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digits =
        std::str::from_utf8(digits).ok().filter(|d| d.len() == 2 && !d.starts_with('+'))?;
    u8::from_str_radix(digits, 16).ok()
}

/// The characters that an expression is for.
pub(super) fn characters(spec: &Spec, expression: &str) -> Result<ClassUnicode> {
    let hir = regex_syntax::parse(expression).ok();
    match hir.map(regex_syntax::hir::Hir::into_kind) {
        Some(HirKind::Class(Class::Unicode(found))) => Ok(found),
        _ => Err(spec.malformed(
            expression,
            "no table",
            "Unicode tables",
            "build with Unicode tables",
        )),
    }
}
