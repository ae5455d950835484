//! Architectures compute what transformers does, with weights that follow from their tensors' names.

use omex::Result;
use omex::convert::ConvertOptions;
use omex::import::{Container, Fields, SourceFormat, TensorInfo, TokenizerSource, open};
use omex::quantize::Precision;
use omex_tests::{
    Converted, MadeModel, Setting, json, json_of, logits, made_models, run_in, worst_error,
};
use std::path::Path;

/// Its package, for texts of any length.
fn converted(model: &Path, long_context: bool) -> Converted {
    let precision = Some(Precision::F32);
    let options = ConvertOptions { precision, long_context, ..ConvertOptions::default() };
    Converted::with(&*open(model, None).unwrap(), &options)
}

/// The model that has other factors for long texts.
fn of_long_texts() -> MadeModel {
    made_models().find(|model| model.short.is_some()).unwrap()
}

#[test]
fn logits_are_those_of_transformers() {
    for model in made_models() {
        let (kind, ids) = (&model.name, &model.ids);
        let package = converted(model.folder.path(), model.short.is_some());
        let whole = logits(&package.path, ids, &Setting::default());
        let worst = worst_error(&whole, &model.logits);
        println!("{kind}: largest relative error {worst:.2e}");
        assert!(worst < 1e-4, "{kind}: {worst:e}");
        for chunks in [&[1][..], &[4, 2]] {
            let setting = Setting { chunks, ..Setting::default() };
            assert!(
                logits(&package.path, ids, &setting) == whole,
                "{kind} in passes of {chunks:?}"
            );
        }
    }
}

#[test]
fn short_texts_have_factors_of_their_own_unless_long_ones_are_wanted() {
    let model = of_long_texts();
    let (source, short) = (model.folder.path(), model.short.as_ref().unwrap());
    let package = converted(source, false);
    assert_eq!(json(&package.path.join("graph.json"))["context_length"], short.len());
    let found = logits(&package.path, &model.ids[..short.len()], &Setting::default());
    assert!(worst_error(&found, short) < 1e-4, "{}", worst_error(&found, short));

    let here = |args: &[&str]| run_in(source, args);
    let options = ["convert", ".", "--output-dir", "m.omex", "--quantization", "f32", "--force"];
    let plain = here(&[&options[..], &["--dry-run"]].concat());
    assert!(plain.out.contains("context    6 tokens; --long-context takes 64"), "{plain:?}");
    assert!(plain.out.contains("with 6 tokens at most"), "{plain:?}");
    let said = json_of(&here(&[&options[..], &["--long-context", "--json"]].concat()));
    assert_eq!(said["planned"]["context"], 64);
    assert_eq!(json(&source.join("m.omex/graph.json"))["context_length"], 64);
    // The model with its weights as they are stored takes the same factors.
    assert!(said["check"]["compared"]["kl_divergence"].as_f64().unwrap() < 1e-9, "{said}");
    let found = logits(&source.join("m.omex"), &model.ids, &Setting::default());
    assert!(worst_error(&found, &model.logits) < 1e-4);
}

#[test]
fn both_kinds_of_factors_go_into_a_gguf_file_and_come_back() {
    let model = of_long_texts();
    let folder = model.folder.path();
    let packages = [false, true].map(|long| converted(folder, long));
    let texts = [&model.ids[..model.short.as_ref().unwrap().len()], &model.ids[..]];
    for package in &packages {
        let path = package.path.to_str().unwrap();
        let export = ["export", path, "--format", "gguf", "--output", "m.gguf"];
        let said = run_in(folder, &export);
        assert!(said.code == Some(0), "{said:?}");
        for long in [false, true] {
            let again = converted(&folder.join("m.gguf"), long);
            let [found, expected] = [&again, &packages[usize::from(long)]].map(|package| {
                logits(&package.path, texts[usize::from(long)], &Setting::default())
            });
            assert!(found == expected, "long {long}: {}", worst_error(&found, &expected));
        }
    }
}

#[test]
fn a_model_without_factors_for_long_texts_is_not_made_for_them() {
    let model = made_models().find(|model| model.short.is_none()).unwrap();
    let said = run_in(model.folder.path(), &["convert", ".", "--long-context"]);
    assert!(said.code == Some(1) && said.err.contains("without --long-context"), "{said:?}");
    let dry = run_in(model.folder.path(), &["convert", ".", "--long-context", "--dry-run"]);
    assert!(dry.code == Some(1) && dry.err.contains("rope_scaling"), "{dry:?}");
}

/// DeepSeek-V2 as converters to GGUF wrote it before llama.cpp multiplied queries with what makes keys of
/// latents: that and what makes values of them are one tensor, as in the checkpoint.
#[derive(Debug)]
struct Older {
    file: Box<dyn Container>,
    checkpoint: Box<dyn Container>,
    fields: Fields,
}

impl Older {
    fn new(file: &Path, checkpoint: &Path) -> Self {
        let [file, checkpoint] = [file, checkpoint].map(|path| open(path, None).unwrap());
        let mut fields = file.config().clone();
        let key = |name: &str| format!("deepseek2.{name}");
        for name in ["attention.key_length", "attention.value_length"] {
            let width = fields.remove(&key(&format!("{name}_mla"))).unwrap();
            fields.insert(key(name), width);
        }
        let heads = fields[&key("attention.head_count")].clone();
        fields.insert(key("attention.head_count_kv"), heads);
        fields.remove(&key("expert_gating_func")).unwrap();
        Self { file, checkpoint, fields }
    }

    /// Which of both has a tensor, and under what name.
    fn of(&self, name: &str) -> (&dyn Container, String) {
        match name.strip_prefix("blk.").and_then(|rest| rest.strip_suffix(".attn_kv_b.weight")) {
            Some(layer) => {
                (&*self.checkpoint, format!("model.layers.{layer}.self_attn.kv_b_proj.weight"))
            }
            None => (&*self.file, name.to_owned()),
        }
    }
}

impl Container for Older {
    fn format(&self) -> SourceFormat {
        SourceFormat::Gguf
    }

    fn path(&self) -> &Path {
        self.file.path()
    }

    fn config(&self) -> &Fields {
        &self.fields
    }

    fn names(&self) -> Vec<String> {
        let names = self.file.names().into_iter().filter(|name| !name.contains(".attn_v_b."));
        names.map(|name| name.replace(".attn_k_b.", ".attn_kv_b.")).collect()
    }

    fn tensor_path(&self, name: &str) -> &Path {
        let (of, name) = self.of(name);
        of.tensor_path(&name)
    }

    fn tensor(&self, name: &str) -> Option<TensorInfo> {
        let (of, name) = self.of(name);
        of.tensor(&name).filter(|_| !name.contains(".attn_k_b."))
    }

    fn read_row(&self, name: &str, row: u32, out: &mut [f32]) -> Result<()> {
        let (of, name) = self.of(name);
        of.read_row(&name, row, out)
    }

    fn read_row_bytes(&self, name: &str, row: u32, out: &mut Vec<u8>) -> Result<()> {
        let (of, name) = self.of(name);
        of.read_row_bytes(&name, row, out)
    }

    fn tokenizer(&self) -> Option<&TokenizerSource> {
        self.file.tokenizer()
    }
}

#[test]
fn older_gguf_files_of_deepseek_v2_are_the_same_model() {
    let model = made_models().find(|model| model.name == "deepseek_v2").unwrap();
    let package = converted(model.folder.path(), false);
    let (path, file) = (package.path.to_str().unwrap(), model.folder.path().join("m.gguf"));
    let export = ["export", path, "--format", "gguf", "--output", "m.gguf"];
    let said = run_in(model.folder.path(), &export);
    assert!(said.code == Some(0), "{said:?}");
    let options = ConvertOptions { precision: Some(Precision::F32), ..Default::default() };
    let older = Converted::with(&Older::new(&file, model.folder.path()), &options);
    let [found, expected] =
        [&older, &package].map(|it| logits(&it.path, &model.ids, &Setting::default()));
    assert!(found == expected, "{}", worst_error(&found, &expected));
}
