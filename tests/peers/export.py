#!/usr/bin/env python3
"""Runs what `omex export` writes in the programs that it is for, and compares them with the reference.

    cargo build && python3 tests/peers/export.py              # needs `pip install transformers torch llama-cpp-python`
    python3 tests/peers/export.py --format gguf --omex target/release/omex qwen3 gpt2

Each model of ../shared/golden, of tests/made_models.json and of tests/rerankers is converted to f32 and exported.
transformers loads the folder, llama.cpp the GGUF file; for each, the largest difference of a logit, as a part of the
largest logit of its row (of a reranker's score, of the largest of all), and whether the greedy tokens are those of the
reference. What is not installed is skipped, and said.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
# What transformers itself differs by between f32 and f64, or a little more; llama.cpp's sums are in another order,
# its keys and values are in f16 unless it is told otherwise, and its GELU is from a table of f16.
TOLERANCE = {"safetensors": 2e-5, "gguf": 4e-3}
# llama.cpp has BERT's GELU as its approximation by tanh, too, and scores of the models here are small.
SCORE_TOLERANCE = {"safetensors": 2e-5, "gguf": 1e-2}


def installed(*modules):
    for module in modules:
        try:
            __import__(module)
        except ImportError:
            print(f"{module} is not installed: skipped")
            return False
    return True


def export(omex, model, kind, folder):
    """Converts and exports a model; why it is not exported, or where it is."""
    package, output = folder / "model.omex", folder / kind
    notes = ""
    for args in (
        ["convert", model, "--quantization", "f32", "--no-check", "--output-dir", package],
        ["export", package, "--format", kind, "-o", output],
    ):
        done = subprocess.run([omex, *map(str, args)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return done.stderr.strip().splitlines()[-1], None
        notes = done.stderr
    for note in ("see all of a text", "into the first segment"):
        if note in notes:
            return f"llama.cpp computes something else: {note}", None
    return None, output


def in_transformers(folder, reference):
    import torch
    import transformers

    config = json.loads((folder / "config.json").read_text())
    if "pairs" in reference:
        return scores_in_transformers(folder, reference), None
    masked = config["architectures"][0].endswith("ForMaskedLM")
    kind = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
    model, info = kind.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    lost = [name for name in info["missing_keys"] if "pooler" not in name]
    assert not lost and not info["unexpected_keys"], info
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([reference["input_ids"]])).logits[0].numpy()
        if "greedy_ids" not in reference:
            return logits, None
        ids = list(reference["input_ids"])
        for _ in reference["greedy_ids"]:
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return logits, ids[len(reference["input_ids"]) :]


def scores_in_transformers(folder, reference):
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    rows = []
    for pair in reference["pairs"]:
        kinds = {} if pair["segments"] is None else {"token_type_ids": torch.tensor([pair["segments"]])}
        with torch.no_grad():
            rows.append(model(torch.tensor([pair["ids"]]), **kinds).logits[0].numpy())
    return np.array(rows)


def scores_in_llama_cpp(file, reference):
    import llama_cpp

    model = llama_cpp.Llama(
        str(file), n_ctx=64, embedding=True, verbose=False, n_threads=2, flash_attn=False,
        pooling_type=llama_cpp.LLAMA_POOLING_TYPE_RANK,
    )
    classes = llama_cpp.llama_model_n_cls_out(model.model)
    batch = llama_cpp.llama_batch_init(64, 0, 1)
    rows = []
    for pair in reference["pairs"]:
        batch.n_tokens = len(pair["ids"])
        for place, token in enumerate(pair["ids"]):
            batch.token[place], batch.pos[place], batch.n_seq_id[place] = token, place, 1
            batch.seq_id[place][0], batch.logits[place] = 0, True
        assert llama_cpp.llama_encode(model.ctx, batch) == 0
        rows.append(llama_cpp.llama_get_embeddings_seq(model.ctx, 0)[:classes])
    return np.array(rows)


def in_llama_cpp(file, reference):
    import llama_cpp

    if "pairs" in reference:
        return scores_in_llama_cpp(file, reference), None
    model = llama_cpp.Llama(
        str(file), n_ctx=64, logits_all=True, verbose=False, n_threads=2,
        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, flash_attn=False,
    )
    ids = list(reference["input_ids"])
    model.eval(ids)
    logits = np.array(model.scores[: len(ids)])
    if "greedy_ids" not in reference:
        return logits, None
    greedy, row = [], logits[-1]
    for _ in reference["greedy_ids"]:
        greedy.append(int(row.argmax()))
        model.eval(greedy[-1:])
        row = np.array(model.scores[model.n_tokens - 1])
    model.close()
    return logits, greedy


def make_models(folder):
    """Writes the models whose weights follow from their tensors' names, with their references."""
    from safetensors.numpy import save_file

    sys.path.insert(0, str(TESTS))
    from made_models import weights

    models = json.loads((TESTS / "made_models.json").read_text())
    ids = models.pop("ids")
    for name, model in models.items():
        place = folder / name
        place.mkdir()
        tensors = {tensor: weights(tensor, shape) for tensor, shape in model["tensors"].items()}
        save_file(tensors, place / "model.safetensors", {"format": "pt"})
        (place / "config.json").write_text(json.dumps(model["config"]))
        (place / "ref.json").write_text(json.dumps({"input_ids": ids}))
        np.save(place / "logits.npy", np.array(model["logits"], dtype=np.float32))
        yield place


def check(omex, model, kind):
    """One line about a model; whether all is well, none if it is not exported."""
    reference = json.loads((model / "ref.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        refused, output = export(omex, model, kind, Path(folder))
        if refused:
            print(f"{model.name:20} {kind:12} not exported: {refused[:150]}", flush=True)
            return None
        try:
            run = in_transformers if kind == "safetensors" else in_llama_cpp
            logits, greedy = run(output, reference)
        except Exception as error:
            print(f"{model.name:20} {kind:12} not loaded: {str(error)[:300]}", flush=True)
            return False
    tolerance = TOLERANCE[kind]
    if "pairs" in reference:
        tolerance = SCORE_TOLERANCE[kind]
        expected = np.array([pair["logits"] for pair in reference["pairs"]])
        worst = np.abs(logits - expected).max() / np.abs(expected).max()
    else:
        expected = np.load(model / "logits.npy")
        worst = (np.abs(logits - expected).max(-1) / np.abs(expected).max(-1)).max()
    same = greedy is None or greedy == reference["greedy_ids"]
    said = "no greedy tokens" if greedy is None else f"greedy {'equal' if same else 'DIFFER'}"
    print(f"{model.name:20} {kind:12} largest relative difference {worst:.1e}, {said}", flush=True)
    return bool(worst <= tolerance and same)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="models of the folder [default: all]")
    parser.add_argument("--omex", default=ROOT / "target/debug/omex", type=Path)
    parser.add_argument("--golden", default=ROOT.parent / "shared/golden", type=Path)
    parser.add_argument("--format", choices=TOLERANCE, help="[default: both]")
    args = parser.parse_args()
    modules = {"safetensors": ("torch", "transformers"), "gguf": ("llama_cpp",)}
    kinds = [args.format] if args.format else list(TOLERANCE)
    kinds = [kind for kind in kinds if installed(*modules[kind])]
    models = sorted(file.parent for file in args.golden.glob("*/logits.npy"))
    models = [model for model in models if (model / "config.json").exists()]
    models += sorted(file.parent for file in (TESTS / "rerankers").glob("*/ref.json"))
    with tempfile.TemporaryDirectory() as folder:
        if installed("torch", "transformers", "safetensors"):
            models += make_models(Path(folder))
        if args.names:
            models = [model for model in models if model.name in args.names]
        results = [check(args.omex, model, kind) for kind in kinds for model in models]
    failed = results.count(False)
    print(f"{results.count(True)} agree, {failed} do not, {results.count(None)} are not exported")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
