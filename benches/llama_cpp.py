#!/usr/bin/env python3
"""Compares OMEX with llama.cpp on one model of TinyLlama's shape (1.1 B random weights).

    cargo build --release
    python3 benches/llama_cpp.py                          # installs llama.cpp under target/ (15 min)
    python3 benches/llama_cpp.py --python VENV/bin/python # uses one that has llama_cpp, gguf, numpy
    python3 benches/llama_cpp.py --format Q8_0 --json

Writes the model as GGUF, converts it (`omex convert` takes the blocks over as they are), and runs
the two programs in turn: decode of 64 tokens behind a prompt of 8, and prefill of 128 tokens. Then
it compares what they computed: the greedy tokens that both chose, and the prompt's logits.

Prefill of OMEX is given twice. "cold" is the first pass of a process, which also maps and checks
every page of the weights. "warm" is what the second 128 of 256 tokens take longer than the first
128: no pages to check, but a longer text to attend to. llama.cpp loads and rearranges its weights
before the clock starts: compare it with "warm".
"""

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "target"
HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, HEAD, VOCAB, CONTEXT = 2048, 5632, 22, 32, 4, 64, 32000, 2048
EPSILON, SEED = 1e-5, 1
DECODE, PROMPT, PREFILL = 64, 8, 128


def ids(count):
    """A fixed text of random tokens."""
    numbers = random.Random(SEED)
    return [numbers.randrange(300, VOCAB) for _ in range(count)]


# Below: run by the interpreter that has llama_cpp, gguf and numpy.


def matrices():
    """Names and shapes (rows, columns) of the matrices."""
    yield "token_embd", VOCAB, HIDDEN
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        yield f"{block}.attn_q", HEADS * HEAD, HIDDEN
        yield f"{block}.attn_k", KV_HEADS * HEAD, HIDDEN
        yield f"{block}.attn_v", KV_HEADS * HEAD, HIDDEN
        yield f"{block}.attn_output", HIDDEN, HEADS * HEAD
        yield f"{block}.ffn_gate", FFN, HIDDEN
        yield f"{block}.ffn_up", FFN, HIDDEN
        yield f"{block}.ffn_down", HIDDEN, FFN
    yield "output", VOCAB, HIDDEN


def norms():
    """Names of the norm weights."""
    yield "output_norm"
    for layer in range(LAYERS):
        yield f"blk.{layer}.attn_norm"
        yield f"blk.{layer}.ffn_norm"


def random_blocks(numbers, rows, columns, format):
    """Rows of random blocks whose weights have a variance of 1 / columns."""
    import numpy

    integers, spread = (16, 4.2) if format == "Q4_0" else (32, 74.0)
    raw = numbers.integers(0, 256, (rows, columns // 32, 2 + integers), dtype=numpy.uint8)
    scales = numbers.uniform(0.8, 1.2, raw.shape[:2]) / (spread * math.sqrt(columns))
    raw[..., :2] = scales.astype("<f2")[..., None].view(numpy.uint8)
    # The lowest integer becomes 0, for a mean of 0: without, every text ends in one token for ever.
    weights = raw[..., 2:]
    if format == "Q4_0":
        weights[weights < 16] |= 0x80
        weights[weights & 15 == 0] |= 0x08
    else:
        weights[weights == 128] = 0
    return raw.reshape(rows, -1)


def write_gguf(path, format):
    """Writes the model, one matrix in memory at a time."""
    import gguf
    import numpy

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random 1.1B")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(VOCAB)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{format}"])
    # No end token, so that every run gives as many tokens as it is asked for.
    special, bytes_ = ["<unk>", "<s>", "</s>"], [f"<0x{byte:02X}>" for byte in range(256)]
    words = [f"w{i}" for i in range(VOCAB - len(special) - len(bytes_))]
    kind = gguf.TokenType
    types = [kind.UNKNOWN, kind.CONTROL, kind.CONTROL] + [kind.BYTE] * 256
    writer.add_tokenizer_model("llama")
    writer.add_token_list(special + bytes_ + words)
    writer.add_token_scores([-float(i) for i in range(VOCAB)])
    writer.add_token_types(types + [kind.NORMAL] * len(words))
    writer.add_bos_token_id(1)

    quantized, numbers = gguf.GGMLQuantizationType[format], numpy.random.default_rng(SEED)
    for name in norms():
        writer.add_tensor_info(f"{name}.weight", [HIDDEN], numpy.dtype("f4"), 4 * HIDDEN)
    block = 18 if format == "Q4_0" else 34
    for name, rows, columns in matrices():
        shape = [rows, columns // 32 * block]
        size = math.prod(shape)
        writer.add_tensor_info(f"{name}.weight", shape, numpy.dtype("u1"), size, quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _ in norms():
        writer.write_tensor_data(numpy.ones(HIDDEN, "f4"))
    for _, rows, columns in matrices():
        writer.write_tensor_data(random_blocks(numbers, rows, columns, format))
    writer.close()


def run_llama_cpp(path, threads):
    """Prints what llama.cpp needs for decode and prefill, its tokens, and the prompt's logits."""
    import llama_cpp
    import numpy

    model = llama_cpp.Llama(
        path, n_threads=threads, n_threads_batch=threads, n_ctx=256, verbose=False
    )

    def logits():
        pointer = llama_cpp.llama_get_logits_ith(model.ctx, -1)
        return numpy.ctypeslib.as_array(pointer, (VOCAB,))

    model.eval(ids(PROMPT))
    prompt_logits, tokens = logits().tolist(), []
    start = time.perf_counter()
    for _ in range(DECODE):
        tokens.append(int(logits().argmax()))
        model.eval(tokens[-1:])
    decode = DECODE / (time.perf_counter() - start)
    model.reset()
    start = time.perf_counter()
    model.eval(ids(PREFILL))
    logits()
    prefill = PREFILL / (time.perf_counter() - start)
    figures = {"decode": decode, "prefill": prefill}
    print(json.dumps({"figures": figures, "ids": tokens, "logits": prompt_logits}))


# Below: run by any Python.


def run_omex(omex, model, threads):
    """The same for OMEX."""

    def run(prompt, tokens):
        text = ",".join(map(str, ids(prompt)))
        command = [omex, "run", model, "--ids", text, "--max-tokens", tokens, "--json"]
        return output([*command, "--threads", threads])

    decode, cold, twice = run(PROMPT, DECODE), run(PREFILL, 1), run(2 * PREFILL, 1)
    assert len(decode["ids"]) == DECODE, "the model ended the text"
    seconds = [PREFILL / cold["stats"]["prefill_tok_s"], 2 * PREFILL / twice["stats"]["prefill_tok_s"]]
    figures = {
        "decode": decode["stats"]["decode_tok_s"],
        "prefill cold": cold["stats"]["prefill_tok_s"],
        "prefill warm": PREFILL / max(seconds[1] - seconds[0], 1e-9),
    }
    return {"figures": figures, "ids": decode["ids"]}


def output(command):
    """The JSON object that a command prints."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def interpreter():
    """A virtual environment's Python with what llama.cpp's side needs, made if missing."""
    home = TARGET / "llama_cpp"
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        packages = ["numpy", "gguf", "llama-cpp-python"]
        subprocess.run([python, "-m", "pip", "install", *packages], check=True)
    return python


def summary(runs):
    """Median, least and largest of each figure."""
    figures = {name: [run["figures"][name] for run in runs] for name in runs[0]["figures"]}
    return {
        name: {"median": statistics.median(x), "min": min(x), "max": max(x)}
        for name, x in figures.items()
    }


def agreeing(a, b):
    """How many tokens at the front are the same."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def compare_logits(ours, theirs):
    """The largest difference, relative to the spread of the reference's logits."""
    return max(abs(a - b) for a, b in zip(ours, theirs)) / statistics.pstdev(theirs)


def compare(args):
    """Makes the model, runs both programs in turn, and prints what they need."""
    # Isolated (-I), since this folder has a file called llama_cpp.
    helper = [args.python or interpreter(), "-I", __file__]
    gguf = args.folder / f"random-1.1b-{args.format}.gguf"
    package = gguf.with_suffix(".omex")
    args.folder.mkdir(parents=True, exist_ok=True)
    if not gguf.exists():
        part = gguf.with_suffix(".part")
        command = [*helper, "--format", args.format, "--write", part]
        subprocess.run([str(word) for word in command], check=True)
        part.rename(gguf)
    if not package.exists():
        command = [args.omex, "convert", "--model-path", gguf, "--output-dir", package]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    report = {"format": args.format, "runs": args.runs, "threads": {}}
    for threads in args.threads:
        pairs = []
        for i in range(args.runs):
            theirs = output([*helper, "--llama-cpp", gguf, "--threads", threads])
            pairs.append((run_omex(args.omex, package, threads), theirs))
            print(f"threads {threads}, run {i + 1} of {args.runs}", file=sys.stderr)
        ours, theirs = (summary(side) for side in zip(*pairs))
        ratios = {
            name: figure["median"] / theirs[name.split()[0]]["median"] for name, figure in ours.items()
        }
        report["threads"][threads] = {"omex": ours, "llama_cpp": theirs, "ratios": ratios}
    prompt = ",".join(map(str, ids(PROMPT)))
    logits = output([args.omex, "logits", package, "--ids", prompt, "--json"])["logits"][-1]
    ours, theirs = pairs[-1]
    report["same_greedy_tokens"] = agreeing(ours["ids"], theirs["ids"])
    report["different_tokens"] = len(set(theirs["ids"]))
    report["logit_difference"] = compare_logits(logits, theirs["logits"])
    print(json.dumps(report) if args.json else table(report))


def table(report):
    """The report as text."""
    lines = [f"1.1B {report['format']}, tok/s: median of {report['runs']} runs (least - largest)"]

    def shown(figure):
        return f"{figure['median']:6.1f} ({figure['min']:5.1f} - {figure['max']:5.1f})"

    for threads, figures in report["threads"].items():
        lines.append(f"\n{threads} threads       omex                    llama.cpp               ratio")
        for name, ours in figures["omex"].items():
            theirs = figures["llama_cpp"][name.split()[0]]
            lines.append(f"{name:13} {shown(ours)}  {shown(theirs)}  {figures['ratios'][name]:5.2f}")
    lines.append(
        f"\nthe first {report['same_greedy_tokens']} of {DECODE} greedy tokens are the same "
        f"({report['different_tokens']} different ones in all);\nthe prompt's logits differ by "
        f"{report['logit_difference']:.4f} standard deviations at most"
    )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", help="an interpreter with llama_cpp, gguf and numpy")
    parser.add_argument("--omex", default=TARGET / "release" / "omex", help="the command to measure")
    parser.add_argument("--format", default="Q4_0", choices=["Q4_0", "Q8_0"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=TARGET / "bench-models", help="for the model")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--llama-cpp", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        write_gguf(args.write, args.format)
    elif args.llama_cpp:
        run_llama_cpp(args.llama_cpp, args.threads[0])
    else:
        compare(args)


if __name__ == "__main__":
    main()
