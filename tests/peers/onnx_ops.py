#!/usr/bin/env python3
"""Converts one small ONNX graph for each operation, and compares what omex infer gives with ONNX Runtime.

    python3 tests/peers/onnx_ops.py [--omex target/debug/omex] [NAME ...]

Needs the packages onnx, onnxruntime and numpy.
"""
import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

RANDOM = np.random.default_rng(7)


def floats(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def whole(*numbers):
    return np.array(numbers, np.int64)


def case(operation, shapes, constants=(), outputs=1, positive=False, **attributes):
    """A graph of one node: inputs of these shapes, then constants; None leaves one out."""
    return operation, shapes, constants, outputs, positive, attributes


IMAGE = (1, 6, 9, 7)
CASES = {
    "conv": case("Conv", [IMAGE], [floats(5, 6, 3, 3), floats(5)], pads=[1, 0, 2, 1], strides=[2, 1]),
    "conv_dilated": case("Conv", [IMAGE], [floats(4, 6, 3, 2)], dilations=[2, 3]),
    "conv_depthwise": case("Conv", [IMAGE], [floats(12, 1, 3, 3), floats(12)], group=6, pads=[1] * 4),
    "conv_groups": case("Conv", [IMAGE], [floats(4, 3, 2, 2)], group=2),
    "conv_same": case("Conv", [IMAGE], [floats(4, 6, 4, 2)], auto_pad="SAME_LOWER", strides=[2, 2]),
    "conv_1d": case("Conv", [(1, 6, 11)], [floats(4, 6, 3), floats(4)], pads=[1, 1], strides=[2]),
    "conv_transpose": case("ConvTranspose", [IMAGE], [floats(6, 5, 3, 2), floats(5)], strides=[2, 3], pads=[1, 0, 0, 1]),
    "conv_transpose_more": case("ConvTranspose", [IMAGE], [floats(6, 2, 2, 2)], strides=[2, 2], output_padding=[1, 1]),
    "max_pool": case("MaxPool", [IMAGE], kernel_shape=[3, 2], strides=[2, 2], pads=[1, 1, 1, 0]),
    "max_pool_ceil": case("MaxPool", [IMAGE], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    "average_pool": case("AveragePool", [IMAGE], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average_pool_padded": case("AveragePool", [IMAGE], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "global_average_pool": case("GlobalAveragePool", [IMAGE]),
    "global_max_pool": case("GlobalMaxPool", [IMAGE]),
    "batch_norm": case("BatchNormalization", [IMAGE], [floats(6), floats(6), floats(6), np.abs(floats(6)) + 1]),
    "gemm": case("Gemm", [(3, 5)], [floats(5, 4), floats(4)], alpha=0.5, beta=2.0),
    "gemm_turned": case("Gemm", [(5, 3)], [floats(4, 5), floats(3, 4)], transA=1, transB=1),
    "matmul": case("MatMul", [(2, 3, 5)], [floats(5, 4)]),
    "add": case("Add", [(2, 3, 4), (3, 1)]),
    "sub": case("Sub", [(4,), (2, 3, 4)]),
    "mul": case("Mul", [(1, 6, 1, 1), IMAGE]),
    "div": case("Div", [(2, 3), (2, 3)], positive=True),
    "pow": case("Pow", [(2, 3), (2, 3)], positive=True),
    "max": case("Max", [(2, 3), (3,), (2, 1)]),
    "min": case("Min", [(2, 3), (3,)]),
    "prelu": case("PRelu", [IMAGE], [floats(6, 1, 1)]),
    "leaky_relu": case("LeakyRelu", [(3, 4)], alpha=0.2),
    "clip": case("Clip", [(3, 4)], [np.float32(-0.5), np.float32(0.25)]),
    "hard_sigmoid": case("HardSigmoid", [(3, 4)], alpha=0.3, beta=0.4),
    "softmax": case("Softmax", [(2, 3, 5)], axis=-1),
    "softmax_inner": case("Softmax", [(2, 3, 5)], axis=1),
    "log_softmax": case("LogSoftmax", [(2, 7)], axis=1),
    "reduce_mean": case("ReduceMean", [IMAGE], [whole(2, 3)], keepdims=0),
    "reduce_mean_inner": case("ReduceMean", [IMAGE], [whole(1)]),
    "reduce_sum": case("ReduceSum", [(2, 3, 4)], [whole(0, 2)], keepdims=0),
    "reduce_max": case("ReduceMax", [(2, 3, 4)], [whole(-1)]),
    "reduce_min": case("ReduceMin", [(2, 3, 4)]),
    "concat": case("Concat", [(2, 3, 4), (2, 1, 4)], axis=1),
    "split": case("Split", [(2, 6, 3)], [whole(1, 2, 3)], outputs=3, axis=1),
    "slice": case("Slice", [(5, 6, 7)], [whole(1, -2), whole(5, -9), whole(0, 2), whole(2, -2)]),
    "transpose": case("Transpose", [(2, 3, 4, 5)], perm=[2, 0, 3, 1]),
    "reshape": case("Reshape", [(2, 3, 4)], [whole(0, -1)]),
    "flatten": case("Flatten", [(1, 3, 4, 2)], axis=2),
    "squeeze": case("Squeeze", [(1, 3, 1, 2)], [whole(0, 2)]),
    "unsqueeze": case("Unsqueeze", [(3, 2)], [whole(0, -1)]),
    "expand": case("Expand", [(3, 1)], [whole(2, 1, 4)]),
    "tile": case("Tile", [(2, 3)], [whole(2, 3)]),
    "gather": case("Gather", [(4, 5, 2)], [whole(3, 0, -1)], axis=1),
    "pad": case("Pad", [(2, 3, 4)], [whole(0, 1, 2, 1, 0, -1), np.float32(1.5)]),
    "pad_reflect": case("Pad", [(2, 5, 4)], [whole(0, 2, 1, 1, 3, 2)], mode="reflect"),
    "pad_edge": case("Pad", [(2, 5, 4)], [whole(0, 2, 1, 1, 3, 2)], mode="edge"),
    "depth_to_space": case("DepthToSpace", [(1, 12, 2, 3)], blocksize=2, mode="DCR"),
    "depth_to_space_crd": case("DepthToSpace", [(1, 12, 2, 3)], blocksize=2, mode="CRD"),
    "space_to_depth": case("SpaceToDepth", [(1, 3, 4, 6)], blocksize=2),
    "resize_nearest": case("Resize", [(1, 2, 5, 4)], [None, None, whole(1, 2, 7, 9)], mode="nearest"),
    "resize_up": case("Resize", [(1, 2, 3, 4)], [None, np.float32([1, 1, 2, 2])], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    "resize_linear": case("Resize", [(1, 2, 5, 4)], [None, None, whole(1, 2, 7, 9)], mode="linear"),
    "resize_ends": case("Resize", [(1, 2, 5, 4)], [None, None, whole(1, 2, 3, 8)], mode="linear", coordinate_transformation_mode="align_corners"),
    "lstm": case("LSTM", [(5, 1, 3)], [floats(1, 16, 3), floats(1, 16, 4), floats(1, 32)], outputs=3, hidden_size=4),
    "lstm_both": case("LSTM", [(5, 1, 3)], [floats(2, 16, 3), floats(2, 16, 4), floats(2, 32), None, floats(2, 1, 4), floats(2, 1, 4)], outputs=3, hidden_size=4, direction="bidirectional"),
    "gru": case("GRU", [(5, 1, 3)], [floats(1, 12, 3), floats(1, 12, 4), floats(1, 24)], outputs=2, hidden_size=4),
    "gru_after": case("GRU", [(5, 1, 3)], [floats(1, 12, 3), floats(1, 12, 4), floats(1, 24)], outputs=2, hidden_size=4, linear_before_reset=1, direction="reverse"),
}
for name in ["Relu", "Sigmoid", "Tanh", "Exp", "Abs", "Neg", "HardSwish", "Erf", "Softplus", "Floor", "Ceil", "Round", "Elu", "Sin", "Cos", "Identity"]:
    CASES[name.lower()] = case(name, [(3, 5)])
for name in ["Log", "Sqrt", "Reciprocal"]:
    CASES[name.lower()] = case(name, [(3, 5)], positive=True)


def model_of(operation, shapes, constants, outputs, attributes):
    inputs = [f"x{n}" for n in range(len(shapes))]
    names = inputs + ["" if c is None else f"c{n}" for n, c in enumerate(constants)]
    stored = [numpy_helper.from_array(np.asarray(c), f"c{n}") for n, c in enumerate(constants) if c is not None]
    given = [f"y{n}" for n in range(outputs)]
    node = helper.make_node(operation, names, given, **attributes)
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(inputs, shapes)]
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in given]
    graph = helper.make_graph([node], "g", info, results, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def check(name, omex, folder):
    operation, shapes, constants, outputs, positive, attributes = CASES[name]
    file = folder / f"{name}.onnx"
    onnx.save(model_of(operation, shapes, constants, outputs, attributes), file)
    inputs = [floats(*shape) for shape in shapes]
    if positive:
        inputs = [np.abs(x) + 0.5 for x in inputs]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    expected = session.run(None, {f"x{n}": x for n, x in enumerate(inputs)})
    package, result = folder / f"{name}.omex", folder / f"{name}.npy"
    arguments = []
    for n, x in enumerate(inputs):
        np.save(folder / f"x{n}.npy", x)
        arguments += ["--input", f"x{n}={folder / f'x{n}.npy'}"]
    for command in (
        ["convert", file, "--output-dir", package, "--force"],
        ["infer", package, *arguments, "-o", result],
    ):
        done = subprocess.run([omex, *map(str, command)], capture_output=True, text=True)
        if done.returncode:
            return done.stderr.strip().splitlines()[-1]
    for n, y in enumerate(expected):
        path = result if outputs == 1 else folder / f"{name}.y{n}.npy"
        found = np.load(path)
        if found.shape != y.shape:
            return f"y{n}: shape {found.shape}, ONNX Runtime {y.shape}"
        worst = np.abs(found - y).max() / max(1.0, np.abs(y).max())
        if not worst <= 1e-5:
            return f"y{n}: apart by {worst}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--omex", default="target/debug/omex")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names or CASES:
            problem = check(name, arguments.omex, Path(folder))
            wrong += problem is not None
            print(f"{name}: {problem or 'equal'}")
    print(f"{wrong} of {len(arguments.names or CASES)} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
