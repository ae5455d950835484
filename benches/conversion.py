#!/usr/bin/env python3
"""Converts a Llama of 1.1 billion random weights, and says how fast and in how much memory.

    cargo build --release
    python3 benches/conversion.py --folder /tmp/conversion [--quantization int8] [--turns 3] [--memory 256MB]

The model is a Hugging Face folder in bfloat16 (2.2 GB), which is made at the first call. A turn reads the
source once, so that the page cache holds it as far as it can, then converts it without the comparison
at the end and with it, which is what that takes. Bytes a second are the source's; the peak is that of
the process, mapped files included.
"""

import argparse
import json
import os
import shutil
import statistics
import time
from pathlib import Path

OMEX = Path(__file__).resolve().parent.parent / "target/release/omex"
HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, VOCABULARY = 2048, 5632, 22, 32, 4, 32000
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# The high byte of numbers between 2^-7 and 2^-5, with either sign.
HIGH = bytes((byte & 0x80) | 0x3C for byte in range(256))


def tensors():
    """Names and shapes."""
    yield "model.embed_tokens.weight", [VOCABULARY, HIDDEN]
    keys = HIDDEN // HEADS * KV_HEADS
    for layer in range(LAYERS):
        start = f"model.layers.{layer}."
        yield start + "input_layernorm.weight", [HIDDEN]
        yield start + "self_attn.q_proj.weight", [HIDDEN, HIDDEN]
        yield start + "self_attn.k_proj.weight", [keys, HIDDEN]
        yield start + "self_attn.v_proj.weight", [keys, HIDDEN]
        yield start + "self_attn.o_proj.weight", [HIDDEN, HIDDEN]
        yield start + "post_attention_layernorm.weight", [HIDDEN]
        yield start + "mlp.gate_proj.weight", [INNER, HIDDEN]
        yield start + "mlp.up_proj.weight", [INNER, HIDDEN]
        yield start + "mlp.down_proj.weight", [HIDDEN, INNER]
    yield "model.norm.weight", [HIDDEN]
    yield "lm_head.weight", [VOCABULARY, HIDDEN]


def write_numbers(file, count):
    while count > 0:
        part = min(count, 1 << 22)
        numbers = bytearray(2 * part)
        numbers[0::2] = os.urandom(part)
        numbers[1::2] = os.urandom(part).translate(HIGH)
        file.write(numbers)
        count -= part


def make_model(folder):
    folder.mkdir(parents=True)
    header, end = {}, 0
    for name, shape in tensors():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in header.values():
            write_numbers(file, (entry["data_offsets"][1] - entry["data_offsets"][0]) // 2)
    # Last: a folder that has it is whole.
    (folder / "config.json").write_text(json.dumps(CONFIG))


def run(command):
    """Seconds, seconds of all cores, and the peak in bytes."""
    start = time.perf_counter()
    process = os.posix_spawn(command[0], command, os.environ, file_actions=[
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ])
    _, status, used = os.wait4(process, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(command)}: ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the model and packages go")
    parser.add_argument("--omex", type=Path, default=OMEX)
    parser.add_argument("--quantization", default="int8")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--memory", help="what converting may take")
    args = parser.parse_args()
    model, package = args.folder / "model", args.folder / "package.omex"
    if not (model / "config.json").exists():
        shutil.rmtree(model, ignore_errors=True)
        make_model(model)
    source = model / "model.safetensors"
    size = source.stat().st_size
    command = [str(args.omex), "convert", str(model), "--output-dir", str(package), "--no-tokenizer",
               "--no-calibration", "--force", "--quantization", args.quantization]
    if args.memory:
        command += ["--memory", args.memory]
    speeds, checks = [], []
    for turn in range(args.turns):
        with open(source, "rb") as file:
            while file.read(1 << 24):
                pass
        seconds, busy, peak = run([*command, "--no-check"])
        whole, _, whole_peak = run(command)
        speeds.append(size / seconds / 1e6)
        checks.append(whole - seconds)
        print(f"{turn + 1}: {speeds[-1]:.0f} MB/s in {seconds:.1f} s ({busy:.1f} s of cores), {peak / 1e6:.0f} MB; "
              f"with the comparison {whole:.1f} s, {whole_peak / 1e6:.0f} MB", flush=True)
    print(f"{size / 1e6:.0f} MB to {args.quantization}: {statistics.median(speeds):.0f} MB/s; the comparison takes "
          f"{statistics.median(checks):.1f} s")


main()
