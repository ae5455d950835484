//! GGUF's blocks have the values that gguf-py gives them.

use flate2::read::DeflateDecoder;
use omex::import::Encoding;
use std::io::Read;
use std::path::Path;

const TYPES: [(&str, Encoding); 14] = [
    ("BF16", Encoding::Bf16),
    ("Q8_0", Encoding::Q8_0),
    ("Q4_0", Encoding::Q4_0),
    ("Q4_1", Encoding::Q4_1),
    ("Q5_0", Encoding::Q5_0),
    ("Q5_1", Encoding::Q5_1),
    ("Q2_K", Encoding::Q2K),
    ("Q3_K", Encoding::Q3K),
    ("Q4_K", Encoding::Q4K),
    ("Q5_K", Encoding::Q5K),
    ("Q6_K", Encoding::Q6K),
    ("IQ4_NL", Encoding::Iq4Nl),
    ("IQ4_XS", Encoding::Iq4Xs),
    ("MXFP4", Encoding::Mxfp4),
];

/// The arrays of an `.npz` file without their headers, in its order.
fn arrays(path: &Path) -> Vec<Vec<u8>> {
    let file = std::fs::read(path).unwrap();
    let (mut rest, mut arrays) = (file.as_slice(), vec![]);
    while let Some(at) = rest.windows(4).position(|bytes| bytes == b"PK\x03\x04") {
        let header = &rest[at..];
        let length = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let data = &header[30 + length(26) + length(28)..];
        let (mut decoder, mut array) = (DeflateDecoder::new(data), vec![]);
        decoder.read_to_end(&mut array).unwrap();
        rest = &data[decoder.total_in() as usize..];
        let header = 10 + usize::from(u16::from_le_bytes([array[8], array[9]]));
        arrays.push(array.split_off(header));
    }
    arrays
}

#[test]
fn blocks_have_the_values_of_the_reference() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/refs/gguf_blocks");
    if !folder.exists() {
        println!("skipped: {} is absent", folder.display());
        return;
    }
    for (name, encoding) in TYPES {
        let arrays = arrays(&folder.join(name).with_extension("npz"));
        let [raw, values] = arrays.as_slice() else { panic!("{name}: {} arrays", arrays.len()) };
        let expected = values.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let expected: Vec<f32> = expected.collect();
        let mut found = vec![0.0; expected.len()];
        encoding.decode(raw, &mut found);
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let close = (found - expected).abs() <= 1e-6 * expected.abs().max(1e-3);
            assert!(close, "{name}, value {i}: {found}, expected {expected}");
        }
    }
}
