//! GPT-2's spelling of bytes as printable characters (`bytes_to_unicode` in `encoder.py` of openai/gpt-2).

/// The character that spells `byte`.
pub(super) fn character(byte: u8) -> char {
    if is_itself(byte) {
        return char::from(byte);
    }
    // The other bytes take the characters from U+0100 on, in order.
    let before = (0..byte).filter(|&b| !is_itself(b)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn is_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The bytes that a piece spells, or none if it has a character that spells no byte.
pub(super) fn bytes(piece: &str) -> Option<Vec<u8>> {
    piece.chars().map(byte).collect()
}

fn byte(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0..=0xFF => u8::try_from(code).ok().filter(|&b| is_itself(b)),
        // 0x00 to 0x20, 0x7F to 0xA0, 0xAD.
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// How bytes are spelled.
pub(super) fn spelled(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| character(b)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_byte_is_spelled_and_read_back() {
        for b in 0..=255 {
            assert_eq!(super::byte(super::character(b)), Some(b));
        }
        assert_eq!(super::character(b' '), 'Ġ');
        assert_eq!(super::bytes("a b"), None);
    }
}
