#!/usr/bin/env python3
"""Compares OMEX with llama.cpp on models with random weights, in the shapes that `omex synth` knows.

    cargo build --release
    python3 benches/llama_cpp.py                          # installs llama.cpp under target/ (15 min)
    python3 benches/llama_cpp.py --python VENV/bin/python # uses one that has llama_cpp, gguf, numpy
    python3 benches/llama_cpp.py --shape qwen3-0.6b --shape gemma3-1b --format Q8_0 --json

Writes a model as GGUF, converts it (`omex convert` takes the blocks over as they are), and runs
the two programs in turn: decode of 64 tokens behind a prompt of 8, and prefill of 128 tokens. Then
it compares what they computed: the greedy tokens that both chose, and the prompt's logits. Where
`omex convert` doesn't read the architecture from GGUF, OMEX runs other random weights of the same
shape, and only the times are compared.

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
SHAPES = Path(__file__).resolve().parent.parent / "host/src/synth/shapes"
ARCHITECTURES = {
    "llama": "llama",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "qwen3_5_text": "qwen35",
    "gemma3_text": "gemma3",
}
SEED = 1
DECODE, PROMPT, PREFILL = 64, 8, 128


def ids(count):
    """A fixed text of random tokens."""
    numbers = random.Random(SEED)
    return [numbers.randrange(300, 32000) for _ in range(count)]


class Shape:
    """A model's hyperparameters, and the tensors that it has in GGUF."""

    def __init__(self, name):
        self.name, self.config = name, json.loads((SHAPES / f"{name}.json").read_text())
        self.architecture = ARCHITECTURES[self["model_type"]]
        self.hidden, self.heads, self.kv_heads = map(
            self.__getitem__, ["hidden_size", "num_attention_heads", "num_key_value_heads"]
        )
        self.head = self.config.get("head_dim", self.hidden // self.heads)
        self.layers, self.vocab = self["num_hidden_layers"], self["vocab_size"]
        self.rotated = int(self.head * self.config.get("partial_rotary_factor", 1))

    def __getitem__(self, field):
        return self.config[field]

    def attends(self, layer):
        return (layer + 1) % self.config.get("full_attention_interval", 1) == 0

    def layer(self, layer):
        """Names and shapes, rows before columns."""
        hidden, head = self.hidden, self.head
        yield "attn_norm.weight", [hidden]
        if self.attends(layer):
            gates = 2 if self.architecture == "qwen35" else 1
            yield "attn_q.weight", [gates * self.heads * head, hidden]
            yield "attn_k.weight", [self.kv_heads * head, hidden]
            yield "attn_v.weight", [self.kv_heads * head, hidden]
            yield "attn_output.weight", [hidden, self.heads * head]
            if self.architecture != "llama":
                yield "attn_q_norm.weight", [head]
                yield "attn_k_norm.weight", [head]
        else:
            yield from self.delta_net()
        if self.architecture in ("gemma3", "qwen35"):
            yield "post_attention_norm.weight", [hidden]
        if self.architecture != "qwen35":
            yield "ffn_norm.weight", [hidden]
        if self.architecture == "gemma3":
            yield "post_ffw_norm.weight", [hidden]
        wide, end = self["intermediate_size"], ""
        experts = []
        if self.architecture == "qwen3moe":
            experts, wide, end = [self["num_experts"]], self["moe_intermediate_size"], "_exps"
            yield "ffn_gate_inp.weight", [*experts, hidden]
        yield f"ffn_gate{end}.weight", [*experts, wide, hidden]
        yield f"ffn_up{end}.weight", [*experts, wide, hidden]
        yield f"ffn_down{end}.weight", [*experts, hidden, wide]

    def delta_net(self):
        heads, taps = self["linear_num_value_heads"], self["linear_conv_kernel_dim"]
        keys = self["linear_num_key_heads"] * self["linear_key_head_dim"]
        values = heads * self["linear_value_head_dim"]
        yield "attn_qkv.weight", [2 * keys + values, self.hidden]
        yield "attn_gate.weight", [values, self.hidden]
        yield "ssm_conv1d.weight", [2 * keys + values, taps]
        yield "ssm_dt.bias", [heads]
        yield "ssm_a", [heads]
        yield "ssm_alpha.weight", [heads, self.hidden]
        yield "ssm_beta.weight", [heads, self.hidden]
        yield "ssm_norm.weight", [self["linear_value_head_dim"]]
        yield "ssm_out.weight", [self.hidden, values]

    def tensors(self):
        yield "token_embd.weight", [self.vocab, self.hidden]
        for layer in range(self.layers):
            for name, shape in self.layer(layer):
                yield f"blk.{layer}.{name}", shape
        yield "output_norm.weight", [self.hidden]
        if not self["tie_word_embeddings"]:
            yield "output.weight", [self.vocab, self.hidden]

    def add_to(self, writer):
        """The metadata."""
        writer.add_name(f"random {self.name}")
        writer.add_context_length(self["max_position_embeddings"])
        writer.add_embedding_length(self.hidden)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(self["intermediate_size"])
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_key_length(self.head)
        writer.add_value_length(self.head)
        writer.add_rope_dimension_count(self.rotated)
        writer.add_rope_freq_base(self["rope_theta"])
        writer.add_layer_norm_rms_eps(self["rms_norm_eps"])
        writer.add_vocab_size(self.vocab)
        if self.architecture == "gemma3":
            writer.add_sliding_window(self["sliding_window"])
        if self.architecture == "qwen3moe":
            writer.add_expert_count(self["num_experts"])
            writer.add_expert_used_count(self["num_experts_per_tok"])
            writer.add_expert_feed_forward_length(self["moe_intermediate_size"])
        if self.architecture == "qwen35":
            values = self["linear_num_value_heads"] * self["linear_value_head_dim"]
            writer.add_ssm_conv_kernel(self["linear_conv_kernel_dim"])
            writer.add_ssm_inner_size(values)
            writer.add_ssm_state_size(self["linear_key_head_dim"])
            writer.add_ssm_time_step_rank(self["linear_num_value_heads"])
            writer.add_ssm_group_count(self["linear_num_key_heads"])
            writer.add_rope_dimension_sections([11, 11, 10, 0])
            writer.add_uint32("qwen35.full_attention_interval", self["full_attention_interval"])


# Below: run by the interpreter that has llama_cpp, gguf and numpy.


def is_quantized(shape):
    return len(shape) > 1 and shape[-1] % 32 == 0 and shape[0] >= 32 or len(shape) == 3


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


def write_gguf(shape, path, format):
    """Writes the model, one tensor in memory at a time."""
    import gguf
    import numpy

    writer = gguf.GGUFWriter(path, shape.architecture)
    shape.add_to(writer)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{format}"])
    # No end token, so that every run gives as many tokens as it is asked for.
    special, bytes_ = ["<unk>", "<s>", "</s>"], [f"<0x{byte:02X}>" for byte in range(256)]
    words = [f"w{i}" for i in range(shape.vocab - len(special) - len(bytes_))]
    kind = gguf.TokenType
    types = [kind.UNKNOWN, kind.CONTROL, kind.CONTROL] + [kind.BYTE] * 256
    writer.add_tokenizer_model("llama")
    writer.add_token_list(special + bytes_ + words)
    writer.add_token_scores([-float(i) for i in range(shape.vocab)])
    writer.add_token_types(types + [kind.NORMAL] * len(words))
    writer.add_bos_token_id(1)

    quantized, numbers = gguf.GGMLQuantizationType[format], numpy.random.default_rng(SEED)
    block = 18 if format == "Q4_0" else 34
    for name, sides in shape.tensors():
        if is_quantized(sides):
            stored = [*sides[:-1], sides[-1] // 32 * block]
            writer.add_tensor_info(name, stored, numpy.dtype("u1"), math.prod(stored), quantized)
        else:
            writer.add_tensor_info(name, sides, numpy.dtype("f4"), 4 * math.prod(sides))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, sides in shape.tensors():
        if is_quantized(sides):
            writer.write_tensor_data(random_blocks(numbers, math.prod(sides[:-1]), sides[-1], format))
        elif len(sides) > 1:
            spread = 1 / math.sqrt(sides[-1])
            writer.write_tensor_data(numbers.normal(0, spread, sides).astype("f4"))
        else:
            writer.write_tensor_data(numpy.full(sides, -1 if name.endswith("ssm_a") else 1, "f4"))
    writer.close()


def run_llama_cpp(shape, path, threads):
    """Prints what llama.cpp needs for decode and prefill, its tokens, and the prompt's logits."""
    import llama_cpp
    import numpy

    model = llama_cpp.Llama(
        path, n_threads=threads, n_threads_batch=threads, n_ctx=256, verbose=False
    )

    def logits():
        pointer = llama_cpp.llama_get_logits_ith(model.ctx, -1)
        return numpy.ctypeslib.as_array(pointer, (shape.vocab,))

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
        command = [omex, "run", model, "--ids", text, "--max-tokens", tokens, "--draft", "none", "--json"]
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


def packaged(args, shape, gguf):
    """The same model as a package; or one of the same shape, where GGUF of it is not read."""
    package, said = gguf.with_suffix(".omex"), subprocess.DEVNULL
    if not package.exists():
        convert = [args.omex, "convert", "--model-path", gguf, "--output-dir", package]
        if subprocess.run(convert, stdout=said, stderr=said).returncode:
            precision = "int4" if args.format == "Q4_0" else "int8"
            synth = ["synth", "--shape", shape.name, "--quantization", precision, "--output-dir", package]
            subprocess.run([args.omex, *synth], stdout=said, check=True)
    return package


def is_random(package):
    return json.loads((package / "metadata.json").read_text())["source_format"] == "random"


def compare(args, shape):
    """Makes the model, runs both programs in turn, and says what they need."""
    # Isolated (-I), since this folder has a file called llama_cpp.
    helper = [args.python or interpreter(), "-I", __file__, "--shape", shape.name]
    gguf = args.folder / f"random-{shape.name}-{args.format}.gguf"
    args.folder.mkdir(parents=True, exist_ok=True)
    if not gguf.exists():
        part = gguf.with_suffix(".part")
        command = [*helper, "--format", args.format, "--write", part]
        subprocess.run([str(word) for word in command], check=True)
        part.rename(gguf)
    package = packaged(args, shape, gguf)

    report = {"shape": shape.name, "format": args.format, "runs": args.runs, "threads": {}}
    for threads in args.threads:
        pairs = []
        for i in range(args.runs):
            theirs = output([*helper, "--llama-cpp", gguf, "--threads", threads])
            pairs.append((run_omex(args.omex, package, threads), theirs))
            print(f"{shape.name}: threads {threads}, run {i + 1} of {args.runs}", file=sys.stderr)
        ours, theirs = (summary(side) for side in zip(*pairs))
        ratios = {
            name: figure["median"] / theirs[name.split()[0]]["median"] for name, figure in ours.items()
        }
        report["threads"][threads] = {"omex": ours, "llama_cpp": theirs, "ratios": ratios}
    if not is_random(package):
        prompt = ",".join(map(str, ids(PROMPT)))
        logits = output([args.omex, "logits", package, "--ids", prompt, "--json"])["logits"][-1]
        ours, theirs = pairs[-1]
        report["same_greedy_tokens"] = agreeing(ours["ids"], theirs["ids"])
        report["different_tokens"] = len(set(theirs["ids"]))
        report["logit_difference"] = compare_logits(logits, theirs["logits"])
    return report


def table(report):
    """The report as text."""
    lines = [f"{report['shape']} {report['format']}, tok/s: median of {report['runs']} runs (least - largest)"]

    def shown(figure):
        return f"{figure['median']:6.1f} ({figure['min']:5.1f} - {figure['max']:5.1f})"

    for threads, figures in report["threads"].items():
        lines.append(f"\n{threads} threads       omex                    llama.cpp               ratio")
        for name, ours in figures["omex"].items():
            theirs = figures["llama_cpp"][name.split()[0]]
            lines.append(f"{name:13} {shown(ours)}  {shown(theirs)}  {figures['ratios'][name]:5.2f}")
    if "logit_difference" not in report:
        return "\n".join([*lines, "\nother random weights on either side"])
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
    parser.add_argument("--shape", action="append", choices=sorted(path.stem for path in SHAPES.glob("*.json")))
    parser.add_argument("--format", default="Q4_0", choices=["Q4_0", "Q8_0"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=TARGET / "bench-models", help="for the model")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--llama-cpp", help=argparse.SUPPRESS)
    args = parser.parse_args()
    shapes = [Shape(name) for name in args.shape or ["tinyllama-1.1b"]]
    if args.write:
        write_gguf(shapes[0], args.write, args.format)
    elif args.llama_cpp:
        run_llama_cpp(shapes[0], args.llama_cpp, args.threads[0])
    else:
        for shape in shapes:
            report = compare(args, shape)
            print(json.dumps(report) if args.json else table(report) + "\n")


if __name__ == "__main__":
    main()
