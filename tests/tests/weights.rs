//! Weights that a format can't hold are refused while converting, by tensor, row and column.

use half::f16;
use omex::Result;
use omex::convert::{Calibration, ConvertOptions, convert};
use omex::import::{Container, Fields, SourceFormat, TensorInfo, TokenizerSource};
use omex::quantize::Precision;
use omex_tests::Synthetic;
use std::path::Path;

/// A model with one weight changed.
#[derive(Debug)]
struct Changed {
    model: Synthetic,
    tensor: &'static str,
    row: u32,
    column: usize,
    value: f32,
}

impl Container for Changed {
    fn format(&self) -> SourceFormat {
        self.model.format()
    }

    fn path(&self) -> &Path {
        self.model.path()
    }

    fn config(&self) -> &Fields {
        self.model.config()
    }

    fn names(&self) -> Vec<String> {
        self.model.names()
    }

    fn tensor_path(&self, name: &str) -> &Path {
        self.model.tensor_path(name)
    }

    fn tensor(&self, name: &str) -> Option<TensorInfo> {
        self.model.tensor(name)
    }

    fn read_row(&self, name: &str, row: u32, out: &mut [f32]) -> Result<()> {
        self.model.read_row(name, row, out)?;
        if (name, row) == (self.tensor, self.row) {
            out[self.column] = self.value;
        }
        Ok(())
    }

    fn read_row_bytes(&self, name: &str, row: u32, out: &mut Vec<u8>) -> Result<()> {
        self.model.read_row_bytes(name, row, out)?;
        if (name, row) == (self.tensor, self.row) {
            let scale = self.column / 32 * 34;
            out[scale..scale + 2].copy_from_slice(&f16::from_f32(self.value).to_le_bytes());
        }
        Ok(())
    }

    fn tokenizer(&self) -> Option<&TokenizerSource> {
        self.model.tokenizer()
    }
}

const DOWN: &str = "model.layers.1.mlp.down_proj.weight";
const NORM: &str = "model.layers.2.input_layernorm.weight";

/// What converting says, or nothing where it goes well.
fn said(source: &Changed, options: &ConvertOptions<'_>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("m.omex");
    let converted = convert(source, "test", "test", &output, options, &mut |_, _| {});
    assert_eq!(converted.is_ok(), output.exists());
    converted.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn numbers_that_are_none_or_infinite() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (tensor, row, column) in [(DOWN, 7, 40), (NORM, 0, 35)] {
            let source = Changed { model: Synthetic::odd(), tensor, row, column, value };
            let place = format!("synthetic: {tensor}: row {row}, column {column}: found {value}");
            for precision in [Precision::F32, Precision::F16, Precision::Int8, Precision::Int4] {
                let options =
                    ConvertOptions { precision: Some(precision), ..ConvertOptions::default() };
                let said = said(&source, &options);
                assert!(said.contains(&place), "{precision:?}: {said}");
            }
            let precision = Some(Precision::Int4);
            let said = said(
                &source,
                &ConvertOptions { precision, residual: true, ..ConvertOptions::default() },
            );
            assert!(said.contains(&place), "in planes: {said}");
        }
    }
}

#[test]
fn numbers_beyond_the_range_of_their_format() {
    use Precision::{F16, F32, Int4, Int8};
    let most = f16::MAX.to_f32();
    for (value, holds) in [
        (most, &[F32, F16, Int8, Int4][..]),
        (1.01 * most, &[F32, Int8, Int4]),
        (-7.9 * most, &[F32, Int8, Int4]),
        (7.9 * most, &[F32, Int8]),
        (130.0 * most, &[F32]),
        (3e38, &[F32]),
    ] {
        let source = Changed { model: Synthetic::odd(), tensor: DOWN, row: 7, column: 40, value };
        for precision in [F32, F16, Int8, Int4] {
            let (calibration, precision) = (Calibration::Off, Some(precision));
            let options = ConvertOptions { precision, calibration, ..ConvertOptions::default() };
            let said = said(&source, &options);
            assert_eq!(
                said.is_empty(),
                holds.contains(&precision.unwrap()),
                "{value} as {precision:?}: {said}"
            );
            let place = "row 7, column 40: found";
            assert!(
                said.is_empty() || said.contains(place) && said.contains("--quantization"),
                "{said}"
            );
        }
    }
}

#[test]
fn scales_that_are_no_numbers() {
    for value in [f32::NAN, f32::INFINITY] {
        let model = Synthetic::new(128, 352, 2, 4, 2, 300, 64).in_q8_0();
        let source = Changed { model, tensor: DOWN, row: 7, column: 64, value };
        let said = said(&source, &ConvertOptions::default());
        assert!(said.contains(&format!("{DOWN}: row 7, column 64: found {value}")), "{said}");
    }
}
