//! Which files of a repository make the model: its texts and tables, and its weights in one form.

use super::listing::File;
use super::name::is_plain_path;
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Beside the weights, where a repository has them.
const TABLES: [&str; 18] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "quantize_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "LICENSE",
];

/// Weights in one file, and the file that says which of several holds what, best first.
const WEIGHTS: [(&str, &str, &str); 2] = [
    ("model.safetensors", "model.safetensors.index.json", ".safetensors"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json", ".bin"),
];

/// Exported graphs, which are got where there are no weights of another kind, best first.
const GRAPHS: [&str; 2] = ["onnx/model.onnx", "model.onnx"];

/// The most names that an error lists.
const LISTED: usize = 30;

/// The index of a model whose weights are in several files.
pub(super) fn index(files: &[File]) -> Option<&File> {
    let find = |name: &str| files.iter().find(|file| file.name == name);
    let mut kinds = WEIGHTS.iter();
    kinds
        .find_map(|(single, index, _)| match (find(single), find(index)) {
            (Some(file), _) | (None, Some(file)) => Some(file),
            (None, None) => None,
        })
        .filter(|file| file.name.ends_with(".index.json"))
}

/// The files of the model, or the one that is asked for with what belongs to it.
pub(super) fn chosen(
    files: &[File],
    asked: Option<&str>,
    shards: Option<Vec<String>>,
    repository: &str,
) -> Result<Vec<File>> {
    let find = |name: &str| files.iter().find(|file| file.name == name).cloned();
    if let Some(asked) = asked {
        return match find(asked) {
            Some(file) if file.name.ends_with(".onnx") => Ok(graph(files, &file)),
            Some(file) => Ok(parts(files, &file)),
            None => gguf(files, asked, repository),
        };
    }
    let mut all: Vec<_> = TABLES.iter().filter_map(|name| find(name)).collect();
    all.extend(index(files).cloned());
    let weights = match shards {
        Some(shards) => {
            let found =
                shards.iter().map(|shard| find(shard).ok_or_else(|| absent(shard, repository)));
            found.collect::<Result<Vec<_>>>()?
        }
        None => single(files),
    };
    // A model whose weights nothing reads here is worth nothing without them, too.
    if weights.is_empty() || find("config.json").is_none() {
        return gguf(files, "", repository);
    }
    weights.into_iter().for_each(|file| {
        if !all.contains(&file) {
            all.push(file);
        }
    });
    Ok(all)
}

fn absent(shard: &str, repository: &str) -> Error {
    let remedy = "ask whoever published it, or get the model elsewhere";
    Error::Usage(format!("{repository}: {shard}: named by the index, but not there; {remedy}"))
}

/// The weights of a model without an index.
fn single(files: &[File]) -> Vec<File> {
    for (single, _, ending) in WEIGHTS {
        if let Some(file) = files.iter().find(|file| file.name == single) {
            return vec![file.clone()];
        }
        let top = files.iter().filter(|f| !f.name.contains('/') && f.name.ends_with(ending));
        if ending == ".safetensors" && top.clone().next().is_some() {
            return top.cloned().collect();
        }
    }
    let exported = GRAPHS.iter().find_map(|name| files.iter().find(|file| file.name == *name));
    exported.map_or(vec![], |file| graph(files, file))
}

/// An exported graph, the files that its numbers may lie in, and what is told of the model beside it.
fn graph(files: &[File], file: &File) -> Vec<File> {
    let data = |other: &&File| {
        let more = other.name.strip_prefix(&file.name);
        more.is_some_and(|more| more.starts_with("_data") || more == ".data")
    };
    let tables = files.iter().filter(|file| TABLES.contains(&&*file.name));
    tables.chain([file]).chain(files.iter().filter(data)).cloned().collect()
}

/// The GGUF model whose name has this text in it: all parts of it.
fn gguf(files: &[File], text: &str, repository: &str) -> Result<Vec<File>> {
    let lower = text.to_lowercase();
    let is_wanted = |name: &str| name.ends_with(".gguf") && name.to_lowercase().contains(&lower);
    let mut models = BTreeMap::<&str, Vec<&File>>::new();
    for file in files.iter().filter(|file| is_wanted(&file.name)) {
        models.entry(model_of(&file.name)).or_default().push(file);
    }
    // A projector of pictures beside a model is none.
    models.retain(|name, _| !name.contains("mmproj"));
    match models.len() {
        1 => Ok(models.into_values().flatten().cloned().collect()),
        0 if text.is_empty() => Err(Error::Usage(format!(
            "{repository}: no model: expected config.json with safetensors, PyTorch's weights or onnx/model.onnx, \
             or a GGUF file; get the model in another repository"
        ))),
        0 => Err(Error::Usage(format!("{repository}: no file {text}: {}", list(files)))),
        _ => {
            let several = models.into_values().flat_map(|parts| parts.first().copied().cloned());
            let several: Vec<_> = several.collect();
            Err(Error::Usage(format!(
                "{repository}: several models: name one as {repository}:FILE, or by a part of its \
                 name: {}",
                list(&several)
            )))
        }
    }
}

fn list(files: &[File]) -> String {
    let more = files.len().saturating_sub(LISTED);
    let names: Vec<_> =
        files.iter().take(LISTED).map(|file| file.name.escape_debug().to_string()).collect();
    let more = if more > 0 { format!(" and {more} others") } else { String::new() };
    format!("there are {}{more}", names.join(", "))
}

/// A GGUF file's name without the number of a part.
fn model_of(name: &str) -> &str {
    let part = name.strip_suffix(".gguf").and_then(|stem| stem.rsplit_once("-of-"));
    match part.and_then(|(stem, count)| Some((stem.rsplit_once('-')?, count))) {
        Some(((stem, number), count)) if is_number(number) && is_number(count) => stem,
        _ => name,
    }
}

fn is_number(text: &str) -> bool {
    text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A file and, if it is a part of a model, the others.
fn parts(files: &[File], file: &File) -> Vec<File> {
    let model = model_of(&file.name);
    if model == file.name {
        return vec![file.clone()];
    }
    files.iter().filter(|other| model_of(&other.name) == model).cloned().collect()
}

/// The files that an index names.
pub(super) fn shards(index: &std::path::Path, text: &[u8]) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let malformed = |field: String, found: String, expected: &str| {
        Err(Error::malformed(index, field, found, expected, "get the model elsewhere"))
    };
    let Index { weight_map } = match serde_json::from_slice(text) {
        Ok(index) => index,
        Err(e) => return malformed("JSON".into(), e.to_string(), "an object with weight_map"),
    };
    let bad = |shard: &&String| !is_plain_path(shard) || shard.contains('/');
    if let Some((tensor, shard)) = weight_map.iter().find(|(_, shard)| bad(shard)) {
        let field = format!("weight_map.{tensor}");
        return malformed(field, shard.clone(), "the name of a file beside it");
    }
    let mut shards: Vec<_> = weight_map.into_values().collect();
    shards.sort_unstable();
    shards.dedup();
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use super::super::listing::Digest;
    use super::*;

    fn files(names: &[&str]) -> Vec<File> {
        let digest = || Digest::GitBlob(String::new());
        names.iter().map(|n| File { name: (*n).into(), size: 1, digest: digest() }).collect()
    }

    fn of(names: &[&str], asked: Option<&str>) -> Result<Vec<String>, String> {
        let chosen = chosen(&files(names), asked, None, "a/b").map_err(|e| e.to_string())?;
        Ok(chosen.into_iter().map(|file| file.name).collect())
    }

    #[test]
    fn a_models_weights_are_got_in_one_form() {
        let both = ["README.md", "config.json", "model.safetensors", "pytorch_model.bin", "x.png"];
        assert_eq!(of(&both, None).unwrap(), ["config.json", "model.safetensors"]);
        let old = ["config.json", "pytorch_model.bin", "vocab.txt", "onnx/model.onnx"];
        assert_eq!(of(&old, None).unwrap(), ["config.json", "vocab.txt", "pytorch_model.bin"]);
        let odd = ["config.json", "consolidated.safetensors"];
        assert_eq!(of(&odd, None).unwrap(), odd);
        assert_eq!(of(&both, Some("x.png")).unwrap(), ["x.png"]);
        assert!(of(&["README.md"], None).unwrap_err().contains("no model"));
    }

    #[test]
    fn exported_graphs_are_got_with_their_numbers_where_there_are_no_other_weights() {
        let names = [
            "config.json",
            "onnx/model.onnx",
            "onnx/model.onnx_data",
            "onnx/model_q4.onnx",
            "tokenizer.json",
        ];
        let whole = ["config.json", "tokenizer.json", "onnx/model.onnx", "onnx/model.onnx_data"];
        assert_eq!(of(&names, None).unwrap(), whole);
        let asked = of(&names, Some("onnx/model_q4.onnx")).unwrap();
        assert_eq!(asked, ["config.json", "tokenizer.json", "onnx/model_q4.onnx"]);
    }

    #[test]
    fn of_several_gguf_models_one_is_named() {
        let names = [
            "m-Q4_K_M.gguf",
            "m-Q8_0-00001-of-00002.gguf",
            "m-Q8_0-00002-of-00002.gguf",
            "mmproj-m.gguf",
        ];
        let parts = &names[1..3];
        assert!(of(&names, None).unwrap_err().contains("there are m-Q4_K_M.gguf, m-Q8_0-00001"));
        assert_eq!(of(&names, Some("q8_0")).unwrap(), parts);
        assert_eq!(of(&names, Some("m-Q8_0-00002-of-00002.gguf")).unwrap(), parts);
        assert_eq!(of(&names[..1], None).unwrap(), names[..1]);
        assert!(of(&names, Some("q5")).unwrap_err().contains("no file q5: there are m-Q4"));
    }
}
