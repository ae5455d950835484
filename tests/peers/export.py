#!/usr/bin/env python3
"""Runs what `omex export` writes in the programs that it is for, and compares them with the reference.

    cargo build && python3 tests/peers/export.py              # needs `pip install transformers torch llama-cpp-python`
    python3 tests/peers/export.py --format gguf --omex target/release/omex qwen3 gpt2

Each model of ../shared/golden is converted to f32 and exported. transformers loads the folder, llama.cpp the GGUF file;
for each, the largest difference of a logit, as a part of the largest logit of its row, and whether the greedy tokens are
those of the reference. What is not installed is skipped, and said.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
# What transformers itself differs by between f32 and f64, or a little more; llama.cpp's sums are in another order,
# and its keys and values are in f16 unless it is told otherwise.
TOLERANCE = {"safetensors": 2e-5, "gguf": 2e-3}


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
    if "see all of a text" in notes:
        return "llama.cpp has no windows here", None
    return None, output


def in_transformers(folder, reference):
    import torch
    import transformers

    config = json.loads((folder / "config.json").read_text())
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


def in_llama_cpp(file, reference):
    import llama_cpp

    model = llama_cpp.Llama(
        str(file), n_ctx=64, logits_all=True, verbose=False, n_threads=2,
        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, flash_attn=False,
    )
    ids = list(reference["input_ids"])
    model.eval(ids)
    logits = np.array(model.scores[: len(ids)])
    greedy, row = [], logits[-1]
    for _ in reference["greedy_ids"]:
        greedy.append(int(row.argmax()))
        model.eval(greedy[-1:])
        row = np.array(model.scores[model.n_tokens - 1])
    model.close()
    return logits, greedy


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
    expected = np.load(model / "logits.npy")
    worst = (np.abs(logits - expected).max(-1) / np.abs(expected).max(-1)).max()
    same = greedy is None or greedy == reference["greedy_ids"]
    said = "no greedy tokens" if greedy is None else f"greedy {'equal' if same else 'DIFFER'}"
    print(f"{model.name:20} {kind:12} largest relative difference {worst:.1e}, {said}", flush=True)
    return bool(worst <= TOLERANCE[kind] and same)


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
    if args.names:
        models = [model for model in models if model.name in args.names]
    results = [check(args.omex, model, kind) for kind in kinds for model in models]
    failed = results.count(False)
    print(f"{results.count(True)} agree, {failed} do not, {results.count(None)} are not exported")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
