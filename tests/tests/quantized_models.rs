//! Quantized checkpoints stand for the floats that those who publish their formats say.

use omex::import::{Container, Encoding, open};
use omex::quantize::Precision;
use omex_tests::{
    Converted, Random, Setting, convert_from, json, logits, require_shared, shipped_model,
};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A stored tensor.
struct Tensor {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn tensor(name: &str, dtype: &'static str, shape: &[usize], bytes: Vec<u8>) -> Tensor {
    Tensor { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes }
}

fn f16s(name: &str, shape: &[usize], numbers: &[f32]) -> Tensor {
    let bytes = numbers.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes());
    tensor(name, "F16", shape, bytes.collect())
}

fn words(name: &str, shape: &[usize], words: &[u32]) -> Tensor {
    tensor(name, "I32", shape, words.iter().flat_map(|word| word.to_le_bytes()).collect())
}

fn write(folder: &Path, config: &Value, tensors: &[Tensor]) {
    let (mut header, mut data) = (serde_json::Map::new(), vec![]);
    for Tensor { name, dtype, shape, bytes } in tensors {
        let span = [data.len(), data.len() + bytes.len()];
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": span });
        header.insert(name.clone(), entry);
        data.extend(bytes);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let file = [&(header.len() as u64).to_le_bytes(), &header[..], &data].concat();
    fs::write(folder.join("model.safetensors"), file).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// A model with these tensors, quantized so.
fn model(quantization: &Value, tensors: &[Tensor]) -> Result<Box<dyn Container>, String> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &json!({ "quantization_config": quantization }), tensors);
    open(folder.path(), None).map_err(|error| error.to_string())
}

fn rows(model: &dyn Container, name: &str) -> Vec<Vec<f32>> {
    let info = model.tensor(name).unwrap_or_else(|| panic!("no {name}"));
    let row = |row| {
        let mut out = vec![0.0; info.columns as usize];
        model.read_row(name, row, &mut out).unwrap();
        let mut bytes = vec![];
        model.read_row_bytes(name, row, &mut bytes).unwrap();
        let floats = info.encoding == Encoding::F32;
        assert!(!floats || out.iter().flat_map(|x| x.to_le_bytes()).eq(bytes));
        out
    };
    (0..info.rows).map(row).collect()
}

/// Integers with their scales and zero points: what is to be stored.
struct Integers {
    rows: usize,
    columns: usize,
    bits: usize,
    /// Row by row.
    numbers: Vec<u32>,
    /// The group of each column.
    groups: Vec<usize>,
    /// Of each group, for each row.
    zeros: Vec<Vec<u32>>,
    scales: Vec<Vec<f32>>,
}

impl Integers {
    fn new(rows: usize, columns: usize, bits: usize, group: usize, mixed: bool) -> Self {
        let mut random = Random(7);
        let count = columns.div_ceil(group);
        let numbers = (0..rows * columns).map(|_| random.below(1 << bits) as u32).collect();
        let groups =
            (0..columns).map(|at| if mixed { random.below(count) } else { at / group }).collect();
        let mut of_groups = |most: usize| -> Vec<Vec<u32>> {
            let mut row = || (0..rows).map(|_| random.below(most) as u32).collect();
            (0..count).map(|_| row()).collect()
        };
        let mut zeros = of_groups(1 << bits);
        // Less one, they fill whole words with ones.
        zeros[0].fill(0);
        let scales = of_groups(1000);
        let scale = |n: &u32| half::f16::from_f32((*n + 1) as f32 / 4096.0).to_f32();
        let scales = scales.iter().map(|row| row.iter().map(scale).collect()).collect();
        Self { rows, columns, bits, numbers, groups, zeros, scales }
    }

    /// The definition: scale * (integer - zero point).
    fn floats(&self) -> Vec<Vec<f32>> {
        let at = |row: usize, column: usize| {
            let group = self.groups[column];
            let integer = self.numbers[row * self.columns + column] as f32;
            self.scales[group][row] * (integer - self.zeros[group][row] as f32)
        };
        (0..self.rows).map(|row| (0..self.columns).map(|c| at(row, c)).collect()).collect()
    }

    fn scales(&self, name: &str) -> Tensor {
        f16s(name, &[self.scales.len(), self.rows], &self.scales.concat())
    }

    /// As GPTQ packs it: integers along the inputs, zero points along the outputs, low bits first.
    fn gptq(&self, stem: &str, minus: u32) -> Vec<Tensor> {
        let (many, mask) = (32 / self.bits, (1u32 << self.bits) - 1);
        let mut weight = vec![0; self.columns / many * self.rows];
        for row in 0..self.rows {
            for column in 0..self.columns {
                let number = self.numbers[row * self.columns + column];
                weight[column / many * self.rows + row] |= number << (self.bits * (column % many));
            }
        }
        let width = self.rows / many;
        let mut zeros = vec![0; self.zeros.len() * width];
        for (group, points) in self.zeros.iter().enumerate() {
            for (row, zero) in points.iter().enumerate() {
                let stored = zero.wrapping_sub(minus) & mask;
                zeros[group * width + row / many] |= stored << (self.bits * (row % many));
            }
        }
        let groups: Vec<u32> = self.groups.iter().map(|group| *group as u32).collect();
        vec![
            words(&format!("{stem}.qweight"), &[self.columns / many, self.rows], &weight),
            words(&format!("{stem}.qzeros"), &[self.zeros.len(), width], &zeros),
            self.scales(&format!("{stem}.scales")),
            words(&format!("{stem}.g_idx"), &[self.columns], &groups),
        ]
    }

    /// As AWQ packs it: all along the outputs, eight at a time in the order 0, 2, 4, 6, 1, 3, 5, 7.
    fn awq(&self, stem: &str) -> Vec<Tensor> {
        let pack = |line: &[u32]| -> Vec<u32> {
            let order = [0, 2, 4, 6, 1, 3, 5, 7];
            let word = |eight: &[u32]| {
                (0..8).map(|place| eight[order[place]] << (4 * place)).fold(0, |a, b| a | b)
            };
            line.chunks_exact(8).map(word).collect()
        };
        let column = |column: usize| -> Vec<u32> {
            (0..self.rows).map(|row| self.numbers[row * self.columns + column]).collect()
        };
        let weight: Vec<u32> = (0..self.columns).flat_map(|c| pack(&column(c))).collect();
        let zeros: Vec<u32> = self.zeros.iter().flat_map(|zeros| pack(zeros)).collect();
        vec![
            words(&format!("{stem}.qweight"), &[self.columns, self.rows / 8], &weight),
            words(&format!("{stem}.qzeros"), &[self.zeros.len(), self.rows / 8], &zeros),
            self.scales(&format!("{stem}.scales")),
        ]
    }
}

#[test]
fn gptq_is_decoded_for_all_bits_versions_and_orders_of_columns() {
    for (bits, group, mixed) in [(4, 16, false), (4, 16, true), (8, 32, true), (4, 64, false)] {
        let integers = Integers::new(40, 64, bits, group, mixed);
        for (format, minus) in [("gptq", 1), ("gptq_v2", 0)] {
            let what = format!("{bits} bits, groups of {group}, {format}");
            let tensors = integers.gptq("a.b", minus);
            let group = if group == 64 { -1 } else { group as i64 };
            let mut settings = json!({
                "quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": mixed,
                "checkpoint_format": format,
            });
            let found = model(&settings, &tensors).unwrap();
            assert_eq!(found.names(), ["a.b.weight"], "{what}");
            assert!(rows(&*found, "a.b.weight") == integers.floats(), "{what}");
            assert!(!found.config().contains_key("quantization_config"));
            // Files of the first version do not say so, and where columns are in order they may not, too.
            if format == "gptq" && !mixed {
                settings.as_object_mut().unwrap().remove("checkpoint_format");
                let found = model(&settings, &tensors[..3]).unwrap();
                assert!(rows(&*found, "a.b.weight") == integers.floats(), "{what}");
            }
        }
    }
}

#[test]
fn awq_is_decoded_in_the_order_in_which_it_packs() {
    let integers = Integers::new(24, 48, 4, 16, false);
    let found = model(
        &json!({ "quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": true, "version": "gemm" }),
        &integers.awq("x"),
    );
    assert!(rows(&*found.unwrap(), "x.weight") == integers.floats());
}

/// What 8 bits stand for, by the table of E4M3 in "FP8 Formats for Deep Learning" (arXiv:2209.05433).
fn e4m3(bits: u8) -> f32 {
    let (sign, exponent) = (if bits > 127 { -1.0 } else { 1.0 }, i32::from(bits >> 3 & 15));
    let mantissa = f32::from(bits & 7) / 8.0;
    match exponent {
        0 => sign * mantissa * 2f32.powi(-6),
        _ => sign * (1.0 + mantissa) * 2f32.powi(exponent - 7),
    }
}

/// Bits of floats that are numbers.
fn float8(count: usize) -> Vec<u8> {
    let mut random = Random(3);
    (0..count).map(|_| (random.below(127) + 128 * random.below(2)) as u8).collect()
}

#[test]
fn floats_of_eight_bits_are_scaled_as_a_whole_by_rows_and_by_blocks() {
    let (height, width) = (20, 12);
    let bits = float8(height * width);
    let weight = || tensor("x.weight", "F8_E4M3", &[height, width], bits.clone());
    let scales: Vec<f32> = (1..=20u8).map(|n| f32::from(n) / 8.0).collect();
    let f32s = |name: &str, shape: &[usize]| {
        let count = shape.iter().product();
        tensor(name, "F32", shape, scales[..count].iter().flat_map(|x| x.to_le_bytes()).collect())
    };
    let compressed = |strategy: &str| {
        let weights = json!({ "type": "float", "num_bits": 8, "strategy": strategy });
        json!({ "quant_method": "compressed-tensors", "format": "float-quantized",
            "config_groups": { "group_0": { "weights": weights } } })
    };
    let fine = json!({ "quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [8, 5] });
    type Scale<'s> = &'s dyn Fn(usize, usize) -> usize;
    let kinds: [(Value, &str, &[usize], Scale<'_>); 5] = [
        (fine, "x.weight_scale_inv", &[3, 3], &|row, column| row / 8 * 3 + column / 5),
        (json!({ "quant_method": "fp8" }), "x.weight_scale_inv", &[], &|_, _| 0),
        (compressed("tensor"), "x.weight_scale", &[1], &|_, _| 0),
        (compressed("channel"), "x.weight_scale", &[20, 1], &|row, _| row),
        (compressed("channel"), "x.weight_scale", &[20], &|row, _| row),
    ];
    for (settings, name, shape, scale) in kinds {
        let input = f32s("x.input_scale", &[1]);
        let found = model(&settings, &[weight(), f32s(name, shape), input]).unwrap();
        assert_eq!(found.names(), ["x.weight"], "{settings}");
        for (row, numbers) in rows(&*found, "x.weight").iter().enumerate() {
            for (column, x) in numbers.iter().enumerate() {
                let expected = e4m3(bits[row * width + column]) * scales[scale(row, column)];
                assert_eq!(*x, expected, "{settings}: {row}, {column}");
            }
        }
    }
    let said = model(&compressed("tensor"), &[weight()]).unwrap_err();
    assert!(said.contains("x.weight_scale: found no tensor"), "{said}");
    let said = model(&compressed("tensor"), &[weight(), f32s("x.weight_scale", &[7])]).unwrap_err();
    assert!(said.contains("expected one scale, or one for each row"), "{said}");
    // Without a method, they are numbers as others are.
    let plain = model(&Value::Null, &[weight()]).unwrap();
    assert_eq!(plain.tensor("x.weight").unwrap().encoding, Encoding::F8E4m3);
    assert_eq!(rows(&*plain, "x.weight")[0][0], e4m3(bits[0]));
}

/// Random matrices of MXFP4 as gpt-oss stores them, with what they stand for by the table of the OCP
/// Microscaling Formats: numbers and exponents.
fn microscaled(sides: [usize; 3], seed: u64) -> ([Vec<u8>; 2], Vec<f32>) {
    let table = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let mut random = Random(seed);
    let blocks = sides.iter().product::<usize>();
    let numbers: Vec<u8> = (0..blocks * 16).map(|_| random.below(256) as u8).collect();
    let exponents: Vec<u8> = (0..blocks).map(|_| 120 + random.below(6) as u8).collect();
    let number = |at: usize| {
        let nibble = numbers[at / 2] >> (4 * (at % 2)) & 15;
        let sign = if nibble > 7 { -1.0 } else { 1.0 };
        sign * table[usize::from(nibble & 7)] * 2f32.powi(i32::from(exponents[at / 32]) - 127)
    };
    let floats = (0..blocks * 32).map(number).collect();
    ([numbers, exponents], floats)
}

#[test]
fn floats_of_four_bits_are_decoded_block_by_block() {
    let ([numbers, exponents], floats) = microscaled([2, 3, 2], 5);
    let settings = json!({ "quant_method": "mxfp4" });
    let stored = |sides: [usize; 4]| {
        let numbers = tensor("x_blocks", "U8", &sides, numbers.clone());
        model(&settings, &[numbers, tensor("x_scales", "U8", &[2, 3, 2], exponents.clone())])
    };
    let found = stored([2, 3, 2, 16]).unwrap();
    assert_eq!(found.names(), ["x_blocks"]);
    assert_eq!(rows(&*found, "x_blocks").concat(), floats);
    let said = stored([2, 3, 4, 8]).unwrap_err();
    assert!(said.contains("x_blocks: found") && said.contains("16 bytes for each"), "{said}");
    let alone = model(&settings, &[tensor("x_blocks", "U8", &[1, 16], numbers[..16].to_vec())]);
    let said = alone.unwrap_err();
    assert!(said.contains("x_scales: found no tensor"), "{said}");
}

#[test]
fn experts_of_four_bits_are_kept_exactly_in_int8() {
    let golden = require_shared!("golden/gpt_oss");
    let plain = open(&golden, None).unwrap();
    let (experts, width) = (4, 64);
    let [blocks, floats] = [true, false].map(|quantized| {
        let mut stored = vec![];
        for name in plain.names() {
            let seed = name.bytes().map(u64::from).sum();
            let rows_of = if name.ends_with("gate_up_proj") { 2 * width } else { width };
            if !name.ends_with("_proj") {
                let info = plain.tensor(&name).unwrap();
                let numbers = rows(&*plain, &name).concat();
                let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
                let sides = [info.rows as usize, info.columns as usize];
                let vector = info.rows == 1;
                stored.push(tensor(&name, "F32", if vector { &sides[1..] } else { &sides }, bytes));
                continue;
            }
            let ([numbers, exponents], floats) = microscaled([experts, rows_of, 2], seed);
            if quantized {
                let sides = [experts, rows_of, 2];
                stored.push(tensor(&format!("{name}_scales"), "U8", &sides, exponents));
                let sides = [experts, rows_of, 2, 16];
                stored.push(tensor(&format!("{name}_blocks"), "U8", &sides, numbers));
            } else {
                let at = |expert: usize, column: usize, row: usize| {
                    floats[(expert * rows_of + row) * width + column].to_le_bytes()
                };
                let turned = (0..experts).flat_map(|expert| {
                    (0..width)
                        .flat_map(move |column| (0..rows_of).map(move |row| (expert, column, row)))
                });
                let bytes = turned.flat_map(|(expert, column, row)| at(expert, column, row));
                let sides = [experts, width, rows_of];
                stored.push(tensor(&name, "F32", &sides, bytes.collect()));
            }
        }
        let mut config = json(&golden.join("config.json"));
        if quantized {
            config["quantization_config"] = json!({ "quant_method": "mxfp4" });
        }
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &config, &stored);
        folder
    });
    let prompt = [1, 5, 9, 200, 31];
    let [exact, same] = [&blocks, &floats].map(|folder| {
        let package = convert_from(folder.path(), Some(Precision::F32));
        logits(&package.path, &prompt, &Setting::default())
    });
    assert!(exact == same);
    let [exact, rounded] = [&blocks, &floats].map(|folder| {
        let package = convert_from(folder.path(), Some(Precision::Int8));
        let index = json(&package.path.join("weights/quantization.json"));
        let of_experts = |tensor: &&Value| tensor["name"].as_str().unwrap().contains("experts.");
        let tensors = index["tensors"].as_array().unwrap().iter().filter(of_experts);
        let matrices = tensors.filter(|tensor| tensor["format"] == "int8");
        matrices.map(|tensor| tensor["error"].as_f64().unwrap_or_default()).collect::<Vec<_>>()
    });
    assert_eq!(exact, [0.0; 4]);
    assert!(rounded.iter().all(|error| *error > 0.0), "{rounded:?}");
}

#[test]
fn other_methods_and_other_tensors_are_refused_by_name() {
    let settings = |fields: Value| {
        let mut all = json!({ "quant_method": "gptq", "bits": 4, "group_size": 16 });
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        all
    };
    let integers = Integers::new(40, 64, 4, 16, true);
    let whole = || integers.gptq("x", 1);
    let refused: Vec<(Value, Vec<Tensor>, &str)> = vec![
        (json!({ "quant_method": "bitsandbytes" }), vec![], "quant_method: found \"bitsandbytes\""),
        (json!({ "quant_method": "hqq" }), vec![], "quant_method: found \"hqq\""),
        (json!({ "bits": 4 }), vec![], "quant_method: found null"),
        (
            json!({ "quant_method": "compressed-tensors", "format": "pack-quantized" }),
            vec![],
            "format: found \"pack-quantized\"",
        ),
        (settings(json!({ "bits": 3 })), whole(), "bits: found 3, expected 4 or 8"),
        (settings(json!({ "group_size": 0 })), whole(), "group_size: found 0"),
        (settings(json!({ "checkpoint_format": "marlin" })), whole(), "found \"marlin\""),
        (settings(json!({ "dynamic": { "-:x": {} } })), whole(), "dynamic: found"),
        (
            json!({ "quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemv" }),
            vec![],
            "version: found \"gemv\"",
        ),
        (settings(json!({ "group_size": 8 })), whole(), "x.scales: found F16 of shape [4, 40]"),
        (settings(json!({})), whole().into_iter().take(2).collect(), "x.scales: found no tensor"),
        (
            settings(json!({})),
            whole().into_iter().chain([f16s("x.weight", &[1], &[0.0])]).collect(),
            "x.weight: found floats beside quantized numbers",
        ),
    ];
    for (settings, tensors, named) in refused {
        let said = model(&settings, &tensors).unwrap_err();
        let remedy = said.contains("original weights");
        assert!(said.contains(named) && remedy, "{settings}: {said}");
    }
    let mut wrong = whole();
    wrong[3] = words("x.g_idx", &[64], &[4; 64]);
    let model = model(&settings(json!({})), &wrong).unwrap();
    let error = model.read_row("x.weight", 0, &mut [0.0; 64]).unwrap_err().to_string();
    assert!(error.contains("x.g_idx: found group 4, expected a group below 4"), "{error}");
}

#[test]
fn a_model_converts_as_the_same_floats_do() {
    let shipped = open(&shipped_model(), None).unwrap();
    let name = "model.layers.1.self_attn.q_proj";
    let info = shipped.tensor(&format!("{name}.weight")).unwrap();
    let integers = Integers::new(info.rows as usize, info.columns as usize, 4, 32, false);
    let plain = shipped.names().into_iter().filter(|other| *other != format!("{name}.weight"));
    let plain: Vec<_> = plain.collect();
    let stored = |more: Vec<Tensor>| {
        let others = plain.iter().map(|name| {
            let info = shipped.tensor(name).unwrap();
            let numbers = rows(&*shipped, name).concat();
            let sides = match info.rows {
                1 => vec![info.columns as usize],
                rows => vec![rows as usize, info.columns as usize],
            };
            f16s(name, &sides, &numbers)
        });
        others.chain(more).collect::<Vec<_>>()
    };
    let index = |quantization: Value, more: Vec<Tensor>| {
        let folder = tempfile::tempdir().unwrap();
        let mut config = json(&shipped_model().join("config.json"));
        config["quantization_config"] = quantization;
        write(folder.path(), &config, &stored(more));
        let source = open(folder.path(), None).unwrap();
        let package = Converted::new(&*source, Some(Precision::F32));
        json(&package.path.join("weights/quantization.json"))
    };
    let floats = integers.floats().concat();
    let bytes = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
    let sides = [info.rows as usize, info.columns as usize];
    let whole = tensor(&format!("{name}.weight"), "F32", &sides, bytes);
    let expected = index(Value::Null, vec![whole]);
    let gptq = json!({ "quant_method": "gptq", "bits": 4, "group_size": 32 });
    assert_eq!(index(gptq, integers.gptq(name, 1)), expected);
    let awq = json!({ "quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm" });
    assert_eq!(index(awq, integers.awq(name)), expected);
}
