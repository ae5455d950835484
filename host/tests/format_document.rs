//! `docs/format.md` and `docs/format-tokenizer.md` say what the code does: their tables are made from the code here, and compared.

use half::f16;
use omex_core::arena::Plan;
use omex_core::image::{Extent, HEADER_BYTES, ImageHeader, MAGIC, VERSION};
use omex_core::ops::{
    Activate, Activation, Add, Alignment, Angles, Attend, AveragePool, Binary, BinaryFunction,
    CODES, Constant, Conv2d, Correction, Decay, Delta, Dequantize, Embed, Experts, Fill,
    FloatConv2d, FloatSoftmax, Gated, Index, Keep, Linear, LinearAttention, Lookup, Mask, Norm,
    NormKind, Op, Pairing, Pool, Pooling, Quantize, QuantizedAdd, QuantizedBinary,
    QuantizedFunction, QuantizedLstm, QuantizedSum, Rearrange, Recall, Reduce, Reduction, Resize,
    Rotary, Route, Scale, Select, ShortConv, SoftCap, Softmax, Store, Unary, UnaryFunction,
    Weights,
};
use omex_core::program::{
    self, Dtype, MAX_LAYERS, MAX_RECORDS, MAX_STOP_TOKENS, MAX_WIDTH, Needs, PART_BYTES,
    PORT_BYTES, Part, PartKind, Per, PerLayer, Port, Record, Slot, Tensor, Value,
};
use omex_core::quant::{Format, GROUP, PANEL, float16, float32, int4, int8};
use omex_core::state::State;
use omex_core::state::kv::KvFormat;
use omex_core::token::layout::{self, field, second};

const DOCUMENT: &str = include_str!("../../docs/format.md");

#[track_caller]
fn assert_says(text: &str) {
    assert!(DOCUMENT.contains(text), "docs/format.md does not say: {text}");
}

/// Where `needle` is in `bytes`: once.
#[track_caller]
fn place(bytes: &[u8], needle: &[u8]) -> usize {
    let mut places = bytes.windows(needle.len()).enumerate().filter(|(_, w)| *w == needle);
    let (place, _) = places.next().expect("the bytes are there");
    assert!(places.next().is_none(), "the bytes are there once");
    place
}

/// A row of a table about this number, which occurs once in `bytes`.
#[track_caller]
fn assert_row(bytes: &[u8], number: &[u8], length: usize, field: &str) {
    assert_says(&format!("\n| {} | {length} | {field}", place(bytes, number)));
}

#[test]
fn the_image_header_is_as_drawn() {
    let extent = |n: u64| Extent { offset: 0x1000 * n, length: 0x1000 * n + 1, crc32c: n as u32 };
    let header = ImageHeader {
        page_size: 0x0004_0000,
        plan: Plan {
            columns: 0x102,
            logit_columns: 0x103,
            kv_capacity: 0x104,
            kv_sinks: 0x105,
            kv_format: KvFormat::Single,
            sequences: 1,
        },
        ram_bytes: 0x106,
        needs: Needs { ops: [0x777e, 0, 0, 0], formats: 9 },
        program: extent(0x2f1),
        tensors: extent(0x2f2),
        tokenizer: extent(0x2f3),
        checksums: extent(0x2f4),
        pages: Extent { offset: 0x0080_0000, length: 0x1234_5678, crc32c: 0 },
    };
    let bytes = header.to_bytes(|_, covered| covered.len() as u32 * 0x10001);
    assert_eq!(HEADER_BYTES, 256);
    assert_says("header     256 bytes");
    assert_row(&bytes, &MAGIC, 8, "magic, `OMEXIMG` and a zero byte");
    assert_row(&bytes, &[VERSION as u8, 0, 0, 0, 0, 0, 4, 0], 4, "version, 2");
    for (number, field) in [
        (header.page_size, "page size, a power of two from 512 to 2^24"),
        (0x102, "plan: tokens in one pass, at most (columns)"),
        (0x103, "plan: of these, tokens whose logits are wanted, at most"),
        (0x104, "plan: positions of a KV cache"),
        (0x105, "plan: of these, attention sinks"),
        (0x106, "bytes of memory that the plan was made for"),
        (252 * 0x10001, "CRC-32C of the 252 bytes before"),
    ] {
        assert_row(&bytes, &number.to_le_bytes(), 4, field);
    }
    for (extent, name) in [
        (header.program, "program"),
        (header.tensors, "tensors"),
        (header.tokenizer, "tokenizer"),
        (header.checksums, "checksums"),
        (header.pages, "pages"),
    ] {
        assert_row(&bytes, &extent.offset.to_le_bytes(), 24, &format!("{name} |"));
        let section = &bytes[place(&bytes, &extent.offset.to_le_bytes())..][..24];
        assert_eq!(section[8..16], extent.length.to_le_bytes());
        assert_eq!(section[16..20], extent.crc32c.to_le_bytes());
        assert_eq!(section[20..], [0; 4]);
    }
    assert_says("| 36 | 4 | plan: format of keys and values, 0 = f16, 1 = f32, 2 = int8 |\n");
    assert_says(
        "| 160 | 32 | a bit for each operation's code that the program needs, lowest first |\n",
    );
    assert_eq!(bytes[160..168], header.needs.ops[0].to_le_bytes());
    assert_says("| 192 | 4 | a bit for each weight format's number that it needs |\n");
    assert_eq!(bytes[192..196], header.needs.formats.to_le_bytes());
    assert_says("| 196 | 56 | reserved |\n");
    assert_eq!(bytes[36..40], [KvFormat::Single as u8, 0, 0, 0]);
    assert!(bytes[196..252].iter().all(|b| *b == 0));
    assert_eq!(ImageHeader::parse(&bytes, |_, covered| covered.len() as u32 * 0x10001), Ok(header));
}

#[test]
fn page_sizes_are_as_stated() {
    let crc32c = |_, _: &[u8]| 0;
    for (page_size, valid) in
        [(256, false), (512, true), (768, false), (1 << 24, true), (1 << 25, false)]
    {
        let none = Extent::default();
        let plan = Plan {
            columns: 1,
            logit_columns: 1,
            kv_capacity: 1,
            kv_sinks: 0,
            kv_format: KvFormat::Half,
            sequences: 1,
        };
        let header = ImageHeader {
            page_size,
            plan,
            ram_bytes: 0,
            needs: Needs::default(),
            program: none,
            tensors: none,
            tokenizer: none,
            checksums: none,
            pages: none,
        };
        assert_eq!(
            ImageHeader::parse(&header.to_bytes(crc32c), crc32c).is_ok(),
            valid,
            "{page_size}"
        );
    }
}

#[test]
fn tensor_records_are_as_drawn() {
    let tensor =
        Tensor { format: Format::Int4, rows: 0x11223, columns: 0x11224, address: 0x55_6677_8899 };
    let record = tensor.to_record();
    assert_eq!(record.len(), 24);
    assert_says("A record is 24 bytes.");
    assert_row(&record, &[4, 0, 0, 0, 0x23], 4, "format's number");
    assert_row(&record, &tensor.rows.to_le_bytes(), 4, "rows, 1 to 2^24");
    assert_row(&record, &tensor.columns.to_le_bytes(), 4, "columns, 1 to 2^24");
    assert_row(&record, &tensor.address.to_le_bytes(), 8, "address: bytes from the image's start");
    assert_eq!(MAX_WIDTH, 1 << 24);
}

#[test]
fn formats_have_these_numbers_and_sizes() {
    for (format, name, unit) in [
        (Format::Vector, "vector", "4 (an element)".to_owned()),
        (Format::F32, "f32", float32::BLOCK_BYTES.to_string()),
        (Format::F16, "f16", float16::BLOCK_BYTES.to_string()),
        (Format::Int8, "int8", int8::BLOCK_BYTES.to_string()),
        (Format::Int4, "int4", int4::BLOCK_BYTES.to_string()),
    ] {
        assert_says(&format!("\n| {} | `{name}` | {unit} |", format as u32));
        assert_eq!(Format::from_number(format as u32), Some(format));
    }
    assert_says("| 5 | `channels` | 12 + ⌈columns / 4⌉ · 4 (a row) | a signed byte |");
    assert_eq!(Format::from_number(5), Some(Format::Channels));
    assert_eq!(Format::Channels.tensor_bytes(3, 5), 3 * (12 + 8));
    assert_eq!(Format::from_number(6), None);
    assert_eq!((PANEL, GROUP), (8, 32));
    assert_eq!(Format::Int8.tensor_bytes(9, 33), 2 * 2 * 272);
    assert_eq!(Format::Vector.tensor_bytes(1, 33), 4 * 33);
}

#[test]
fn weights_lie_where_the_formulas_say() {
    let scale = f16::from_f32(0.5);
    for r in 0..PANEL {
        let mut eight = int8::EMPTY;
        let mut four = int4::EMPTY;
        let mut half = [0; float16::BLOCK_BYTES];
        let mut single = [0; float32::BLOCK_BYTES];
        let floats: [f32; GROUP] = std::array::from_fn(|c| c as f32 + 1.0);
        int8::write_row(&mut eight, r, scale, &std::array::from_fn(|c| c as i8 - 16));
        int4::write_row(&mut four, r, scale, &std::array::from_fn(|c| (c % 16) as i8 - 8));
        float16::write_row(&mut half, r, &floats);
        float32::write_row(&mut single, r, &floats);
        assert_eq!(eight[2 * r..][..2], scale.to_le_bytes());
        assert_eq!(four[2 * r..][..2], scale.to_le_bytes());
        for c in 0..GROUP {
            assert_eq!(eight[16 + 32 * (c / 4) + 4 * r + c % 4] as i8, c as i8 - 16);
            let byte = four[16 + 32 * (c % 16 / 4) + 4 * r + c % 4];
            assert_eq!(usize::from(if c < 16 { byte & 15 } else { byte >> 4 }), c % 16);
            assert_eq!(half[2 * (8 * c + r)..][..2], f16::from_f32(floats[c]).to_le_bytes());
            assert_eq!(single[4 * (8 * c + r)..][..4], floats[c].to_le_bytes());
        }
    }
    for formula in [
        "f32    byte 4 (8 c + r) ",
        "f16    byte 2 (8 c + r) ",
        "byte 16 + 32 (c / 4) + 4 r + c % 4 ",
        "byte 16 + 32 (c % 16 / 4) + 4 r + c % 4 ",
    ] {
        assert_says(formula);
    }
}

#[test]
fn the_tokenizer_section_is_as_drawn() {
    let document = include_str!("../../docs/format-tokenizer.md");
    let says = |text: &str| assert!(document.contains(text), "format-tokenizer.md: {text}");
    says(&format!("Version {}.", layout::VERSION));
    says(&format!("\n  4  2  version = {}\n", layout::VERSION));
    says(&format!("## Header: {} bytes", layout::HEADER));
    for (at, bytes, name) in [
        (field::KIND, 1, "kind "),
        (field::PRE_TOKENIZER, 1, "pre-tokenizer "),
        (field::FLAGS, 4, "flags "),
        (field::LENGTH, 4, "length "),
        (field::VOCABULARY, 4, "vocabulary "),
        (field::UNKNOWN, 4, "unknown "),
        (field::INDEX, 4, "index "),
        (field::PIECES, 4, "pieces "),
        (field::MERGES, 4, "merges "),
        (field::MERGE_BUCKETS, 4, "merge buckets "),
        (field::CLASSES, 4, "classes "),
        (field::CLASS_COUNT, 4, "class count "),
        (field::WORDS, 4, "words "),
        (field::WORD_BUCKETS, 4, "word buckets "),
        (field::ADDED, 4, "added "),
        (field::ADDED_COUNT, 4, "added count "),
        (field::TEMPLATE, 4, "template "),
        (field::BEFORE, 2, "before "),
        (field::AFTER, 2, "after "),
        (field::BYTES, 4, "bytes "),
        (field::FIRST_BYTES, 32, "first bytes "),
    ] {
        says(&format!("\n{at:>3} {bytes:>2}  {name}"));
    }
    says(&format!("## Second header: {} bytes", layout::SECOND_HEADER));
    for (at, bytes, name) in [
        (second::REPLACED, 4, "replaced "),
        (second::REPLACED_UNITS, 4, "replaced units "),
        (second::REPLACEMENTS, 4, "replacements "),
        (second::REPLACEMENTS_LENGTH, 4, "their length "),
        (second::LONGEST_WORD, 4, "longest word "),
        (second::GROWTH, 4, "growth "),
        (second::SCORES, 4, "scores "),
        (second::UNKNOWN_SCORE, 8, "unknown score "),
        (second::ASCII, 128, "ASCII classes "),
    ] {
        says(&format!("\n{at:>3} {bytes:>2}  {name}"));
    }
    assert_eq!((layout::BUCKET, layout::BUCKET_ENTRIES, layout::ID_BITS), (64, 5, 21));
    says("5 keys of 8 bytes: bits 0-41 what is looked up, 42-62 the id that it gives, 63 set");
    assert_eq!(layout::key(3, 5), 3 | 5 << 21 | 1 << 63);
    // The published FNV-1a of "foobar".
    assert_eq!(layout::word_key(b"foobar"), 0x8594_4171_f739_67e8 >> 22 | 1 << 63);
}

/// An example of every operation: its references are the first values of their kind, and so on upwards.
fn examples() -> Vec<Op> {
    let weight = PerLayer { first: 1, stride: 2 };
    let [a, b, c] =
        [1, 4, 7].map(|n| Value { slot: n, first: u32::from(n) + 1, width: u32::from(n) + 2 });
    vec![
        Embed { weight, output: a, index: Index::Token, offset: 0, accumulate: false }.into(),
        Norm {
            weight,
            bias: None,
            input: a,
            output: b,
            epsilon: 1.0,
            kind: NormKind::Rms,
            group: 0,
        }
        .into(),
        Linear { bias: None, weight, input: a, output: b, accumulate: true }.into(),
        Correction { weight, input: a, output: b, part: 1 }.into(),
        Angles { frequencies: weight, output: a, scale: 0.0 }.into(),
        Rotary { angles: a, value: b, head_width: 8, pairing: Pairing::Halves }.into(),
        Store { state: weight, key: a, value: b }.into(),
        Attend {
            state: weight,
            query: a,
            angles: Some(b),
            output: c,
            scale: 1.0,
            pairing: Pairing::Halves,
            mask: Mask::Causal,
            reach: 0,
            head_scores: None,
            cap: 0.0,
        }
        .into(),
        Gated { activation: Activation::Silu, gate: a, up: b, output: c }.into(),
        Activate { activation: Activation::Gelu, value: a }.into(),
        Add { input: a, output: b }.into(),
        Scale { value: a, factor: 1.0, by: None }.into(),
        SoftCap { value: a, cap: 1.0 }.into(),
        Select { input: a, output: b }.into(),
        ShortConv { state: weight, weight, bias: Some(weight), input: a, output: b, taps: 3 }
            .into(),
        Conv2d {
            weight,
            input: a,
            output: b,
            kernel: [3, 4],
            stride: [2, 1],
            pad: [1, 1],
            input_zero: -1,
            output_zero: 2,
            clamp: [-128, 127],
            depthwise: true,
        }
        .into(),
        AveragePool {
            input: a,
            output: b,
            kernel: [3, 4],
            stride: [2, 1],
            pad: [1, 1],
            clamp: [-128, 127],
        }
        .into(),
        Softmax { input: a, output: b, multiplier: 1 << 30, shift: 20, least_difference: -8 }
            .into(),
        Route {
            input: a,
            output: b,
            weights: Weights::Shares,
            factor: 1.0,
            bias: Some(c),
            groups: 4,
            kept_groups: 2,
            factors: None,
            by_best: false,
        }
        .into(),
        Experts {
            gate_up: weight,
            down: weight,
            experts: 8,
            activation: Activation::Silu,
            input: a,
            route: b,
            gathered: c,
            wide: a,
            gated: b,
            output: c,
            gate_up_bias: None,
            down_bias: None,
            limit: 0.0,
            up_plus: 0.0,
        }
        .into(),
        Delta {
            down: weight,
            up: weight,
            scale: 1.0,
            input: a,
            gathered: b,
            low: c,
            result: a,
            output: b,
            part: 2,
        }
        .into(),
        Constant { weight, output: a }.into(),
        Decay { a_log: weight, dt_bias: weight, dt: a, decay: b, least: 0.0, most: 1.0 }.into(),
        LinearAttention {
            state: weight,
            skip: Some(weight),
            query: a,
            key: b,
            value: c,
            decay: a,
            rate: b,
            output: c,
            groups: 2,
            delta: true,
        }
        .into(),
        QuantizedAdd {
            first: a,
            second: b,
            output: c,
            zeros: [-1, 2, 3],
            multipliers: [1 << 30, 1 << 30, 1 << 30],
            shifts: [0, -1, -20],
            clamp: [-128, 127],
        }
        .into(),
        Rearrange {
            input: a,
            output: b,
            dims: [1, 1, 1, 2, 3],
            from: [0, 0, 0, 1, -2],
            to: [0, 0, 0, 3, 1],
            from_first: 4,
            to_first: 5,
        }
        .into(),
        Fill { output: a, number: 1.0 }.into(),
        FloatConv2d {
            bias: None,
            weight,
            input: a,
            output: b,
            kernel: [3, 4],
            stride: [2, 1],
            pad: [1, 1],
            dilation: [1, 2],
            depthwise: true,
        }
        .into(),
        Pool {
            pooling: Pooling::Mean,
            input: a,
            output: b,
            kernel: [3, 4],
            stride: [2, 1],
            pad: [1, 1],
        }
        .into(),
        Binary {
            function: BinaryFunction::Multiply,
            first: a,
            second: b,
            output: c,
            dims: [1, 1, 2, 3],
            first_steps: [0, 0, 3, 1],
            second_steps: [0, 0, 0, 1],
        }
        .into(),
        Reduce { reduction: Reduction::Mean, input: a, output: b }.into(),
        FloatSoftmax { value: a, length: 3, log: true }.into(),
        Lookup { table: weight, input: a, output: b }.into(),
        Quantize { input: a, output: b, scale: 1.0, zero: -1, ties_away: true }.into(),
        Dequantize { input: a, output: b, scale: 1.0, zero: -1 }.into(),
        Resize {
            input: a,
            output: b,
            alignment: Alignment::HalfPixel,
            bilinear: true,
            nearest: false,
        }
        .into(),
        Unary { function: UnaryFunction::Sqrt, value: a }.into(),
        QuantizedBinary {
            function: QuantizedFunction::Multiply,
            first: a,
            second: b,
            output: c,
            dims: [1, 1, 2, 3],
            first_steps: [0, 0, 3, 1],
            second_steps: [0, 0, 0, 1],
            zeros: [-1, 2, 3],
            multipliers: [0, 0, 1 << 30],
            shifts: [0, 0, -8],
            clamp: [-128, 127],
        }
        .into(),
        QuantizedSum {
            input: a,
            output: b,
            multiplier: 1 << 30,
            shift: -8,
            input_zero: -1,
            output_zero: 2,
        }
        .into(),
        QuantizedLstm {
            input_weight: weight,
            recurrent_weight: weight,
            sigmoids: weight,
            input: a,
            before: b,
            cell: c,
            output: a,
            input_zero: -1,
            output_zero: 2,
            cell_bits: 12,
            clip: 300,
            multiplier: 1 << 30,
            shift: -22,
        }
        .into(),
        Recall { state: weight, output: a, initial: -1.0 }.into(),
        Keep { input: a, state: weight }.into(),
    ]
}

fn hex(record: &Record) -> String {
    let mut buffer = [0; 256];
    let length = record.write(&mut buffer).unwrap();
    buffer[..length].iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn operations_are_encoded_as_in_the_examples() {
    let examples = examples();
    assert_eq!(examples.iter().map(Op::code).collect::<Vec<_>>(), CODES, "one of each");
    let repeat = Record::Repeat { records: 1, layers: 300 };
    let rows = examples.iter().map(|op| (op.code(), op.name(), Record::Op(*op)));
    for (code, name, record) in rows.chain([(0, "Repeat", repeat)]) {
        let row = DOCUMENT.lines().find(|line| line.starts_with(&format!("| {code} | {name} |")));
        let row = row.unwrap_or_else(|| panic!("docs/format.md has no operation {code}, {name}"));
        let bytes = hex(&record);
        assert!(row.contains(&format!("`{bytes}`")), "{row}: {bytes}");
        let mut buffer = [0; 256];
        let length = record.write(&mut buffer).unwrap();
        let mut bytes = &buffer[..length];
        assert_eq!(Record::take(&mut bytes), Ok(record));
        assert!(bytes.is_empty());
    }
}

#[test]
fn program_tables_are_as_drawn() {
    let header = program::Header {
        vocab_size: 0x0001_0203,
        context_length: 0x0001_0204,
        record_bytes: 0x0001_0205,
        name_bytes: 0x0001_0206,
        records: 0x1107,
        slots: 0x1108,
        states: 0x1109,
        inputs: 0x110a,
        outputs: 0x110b,
        stop_tokens: 0x110c,
        parts: 0x110d,
    };
    let bytes = header.to_bytes();
    assert_says("header         32 bytes");
    assert_eq!(bytes.len(), 32);
    for (number, field) in [
        (header.vocab_size, "vocabulary"),
        (header.context_length, "trained context"),
        (header.record_bytes, "bytes of the operations"),
        (header.name_bytes, "bytes of the names"),
    ] {
        assert_row(&bytes, &number.to_le_bytes(), 4, field);
    }
    for (number, field) in [
        (header.records, "operations"),
        (header.slots, "slots"),
        (header.states, "states"),
        (header.inputs, "inputs"),
        (header.outputs, "outputs"),
        (header.stop_tokens, "stop tokens"),
        (header.parts, "parts"),
    ] {
        assert_row(&bytes, &number.to_le_bytes(), 2, field);
    }
    let slot = Slot {
        offset: 0x0102_0304,
        width: 0x0102_0305,
        dims: [0x1106, 0x1107, 0x1108, 0x1109],
        per: Per::Output,
        dtype: Dtype::I32,
    };
    let record = slot.to_record();
    assert_says(&format!("slots          {} bytes each", record.len()));
    assert_row(&record, &slot.offset.to_le_bytes(), 4, "bytes a column of what lies before it");
    assert_row(&record, &slot.width.to_le_bytes(), 4, "elements a column");
    assert_row(&record, slot.dims.map(u16::to_le_bytes).as_flattened(), 8, "dimensions");
    assert_row(
        &record,
        &[2, 3, 0],
        1,
        "columns: 0 one a pass, 1 one a token, 2 one a wanted output",
    );
    assert_row(&record, &[3, 0, 0], 1, "type: 0 f32, 1 i8, 2 i16, 3 i32");
    let state = State::Kv { heads: 0x0102_0306, width: 0x0102_0307, window: 0x0102_0308 };
    let record = state.to_record();
    assert_says(&format!("states         {} bytes each", record.len()));
    assert_row(
        &record,
        &0x0102_0306_u32.to_le_bytes(),
        4,
        "key and value heads; of bytes, their number",
    );
    assert_row(&record, &0x0102_0307_u32.to_le_bytes(), 4, "width of a head");
    assert_row(&record, &0x0102_0308_u32.to_le_bytes(), 4, "sliding window");
    let value = Value { slot: 0x1108, first: 0x0102_0309, width: 0x0102_030a };
    let port = Port { name: "four", value, scale: 1.5, zero_point: -7 };
    let record = port.to_record(0x0102_030b);
    assert_says(&format!("inputs         {PORT_BYTES} bytes each"));
    assert_row(&record, &0x0102_030b_u32.to_le_bytes(), 4, "first byte of its name in the names");
    assert_row(&record, &[4, 0, 8], 2, "length of its name");
    assert_row(&record, &value.slot.to_le_bytes(), 2, "slot");
    assert_row(&record, &value.first.to_le_bytes(), 4, "first element");
    assert_row(&record, &value.width.to_le_bytes(), 4, "elements");
    assert_row(&record, &1.5_f32.to_le_bytes(), 4, "what a step is worth");
    assert_row(&record, &(-7_i32).to_le_bytes(), 4, "zero point");
    let part = Part { name: "poet", kind: PartKind::Adapter };
    let record = part.to_record(0x0102_030c);
    assert_says(&format!("parts          {PART_BYTES} bytes each"));
    assert_row(&record, &0x0102_030c_u32.to_le_bytes(), 4, "first byte of its name in the names");
    assert_row(&record, &[4, 0, 1], 2, "length of its name");
    assert_row(&record, &[1, 0], 1, "kind: 0 correction, 1 adapter");
    assert_says(&format!(
        "At most {MAX_RECORDS} operations, {MAX_LAYERS} states and layers, {MAX_STOP_TOKENS} stop tokens"
    ));
}

#[test]
fn files_that_the_documents_name_are_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for document in ["ARCHITECTURE.md", "docs/format.md", "tests/fuzz/README.md"] {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        for name in text.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs")) {
            let folder = root.join(if name.starts_with("src/") { "tests/fuzz" } else { "." });
            assert!(folder.join(name).is_file(), "{document}: there is no {name}");
        }
    }
}
