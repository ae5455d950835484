#!/usr/bin/env python3
"""Writes small quantized ONNX graphs, and what ONNX Runtime makes of an input, for tests/tests/quantized_onnx.rs.

    python3 tests/peers/onnx_quantized.py tests/onnx

In files whose names begin with qdq_, floats lie between DequantizeLinear and QuantizeLinear; with qlinear_, operations
are over integers. quanta.npz holds for each what goes in, what comes out, and what a step of that is worth.
Needs the packages onnx, onnxruntime and numpy.
"""
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

IMAGE = (1, 4, 7, 6)
STEP, RESULT = 0.03, 0.05


class Graph:
    """A graph over a float, x, and what is stored in it."""

    def __init__(self, seed, unsigned):
        self.random = np.random.default_rng(seed)
        self.type = np.uint8 if unsigned else np.int8
        self.zero = 131 if unsigned else 3
        self.nodes, self.stored, self.count = [], [], 0

    def constant(self, array):
        self.stored.append(numpy_helper.from_array(np.asarray(array), f"c{len(self.stored)}"))
        return self.stored[-1].name

    def node(self, operation, inputs, domain="", **attributes):
        self.count += 1
        self.nodes.append(helper.make_node(operation, inputs, [f"v{self.count}"], domain=domain, **attributes))
        return f"v{self.count}"

    def scale(self, step=STEP, zero=None):
        return [self.constant(np.float32(step)), self.constant(self.type(self.zero if zero is None else zero))]

    def quantize(self, value, scale):
        return self.node("QuantizeLinear", [value, *scale])

    def dequantize(self, value, scale):
        return self.node("DequantizeLinear", [value, *scale])

    def rounded(self, value, step=STEP, zero=None):
        """Floats in steps, as floats."""
        scale = self.scale(step, zero)
        return self.dequantize(self.quantize(value, scale), scale)

    def weights(self, *shape):
        """Signed bytes, with a scale for each of the first axis, as floats."""
        bytes_, scale = self.bytes(*shape), self.random.uniform(0.0006, 0.003, shape[0]).astype(np.float32)
        zeros = self.constant(np.zeros(shape[0], np.int8))
        value = [self.constant(bytes_), self.constant(scale), zeros]
        return self.node("DequantizeLinear", value, axis=0)

    def bytes(self, *shape):
        return self.random.integers(-127, 128, shape, np.int8)

    def floats(self, *shape):
        return self.constant((0.5 * self.random.standard_normal(shape)).astype(np.float32))


def qdq(make):
    def graph(g):
        result = make(g, g.rounded("x"))
        return g.rounded(result, RESULT)
    return graph


def integers(make):
    """An operation over bytes; what comes out are floats again."""
    def graph(g):
        scale, result = g.scale(), g.scale(RESULT)
        return g.dequantize(make(g, [g.quantize("x", scale), *scale], result), result)
    return graph


def conv(outputs, kernel, group=1, relu=False, bias=True, **attributes):
    def make(g, x):
        inputs = [x, g.weights(outputs, 4 // group, *kernel)] + ([g.floats(outputs)] if bias else [])
        y = g.node("Conv", inputs, group=group, kernel_shape=kernel, **attributes)
        return g.node("Relu", [y]) if relu else y
    return qdq(make)


def gemm(g, x):
    flat = g.node("Flatten", [x])
    return g.node("Gemm", [flat, g.weights(9, 4 * 7 * 6), g.floats(9)], transB=1)


def matmul(g, x):
    rows = [g.constant(g.bytes(6, 5)), g.constant(np.float32(0.01)), g.constant(np.int8(0))]
    return g.node("MatMul", [x, g.node("DequantizeLinear", rows)])


def joined(g, x):
    """Parts of other steps, turned and put together."""
    half = g.rounded(g.node("Mul", [x, g.constant(np.float32(0.5))]), 0.017)
    return g.node("Transpose", [g.node("Concat", [half, x], axis=1)], perm=[0, 2, 3, 1])


def branch(g, x):
    """A value that two operations use."""
    y = g.rounded(g.node("Conv", [x, g.weights(4, 4, 1, 1)], kernel_shape=[1, 1]), 0.04)
    z = g.rounded(g.node("Conv", [y, g.weights(4, 1, 3, 3)], group=4, kernel_shape=[3, 3], pads=[1] * 4), 0.04)
    return g.node("Add", [y, z])


def qlinear_conv(g, x, to):
    weights = [g.constant(g.bytes(5, 4, 3, 3)), g.constant(np.float32(0.003)), g.constant(np.int8(0))]
    bias = g.constant(g.random.integers(-2000, 2000, 5, np.int32))
    return g.node("QLinearConv", [*x, *weights, *to, bias], kernel_shape=[3, 3], strides=[2, 1], pads=[1, 0, 0, 1])


def qlinear_conv_offset(g, x, to):
    """Weights whose zero is not 0."""
    weights = [g.constant(g.random.integers(0, 256, (5, 4, 2, 2), np.uint8)), g.constant(np.float32(0.004)), g.constant(np.uint8(120))]
    return g.node("QLinearConv", [*x, *weights, *to], kernel_shape=[2, 2])


def qlinear_matmul(g, x, to):
    weights = [g.constant(g.bytes(6, 5)), g.constant(np.float32(0.01)), g.constant(np.int8(0))]
    return g.node("QLinearMatMul", [*x, *weights, *to])


def qlinear(operation, **attributes):
    def make(g, x, to):
        second = [g.constant(g.random.integers(0, 120, (4, 1, 1)).astype(g.type)), *g.scale(0.021, 40)]
        pair = operation in ("QLinearAdd", "QLinearMul")
        return g.node(operation, [*x, *(second if pair else []), *to], "com.microsoft", **attributes)
    return integers(make)


def dynamic(operation, weights, **attributes):
    """A result in steps of its own, computed from a value whose steps are so, too."""
    def graph(g):
        g.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]))
        wide = g.constant(g.random.integers(0, 256, weights, np.uint8))
        count = g.node(operation, ["q", wide, "z", g.constant(np.uint8(120))], **attributes)
        scale = g.node("Mul", ["s", g.constant(np.float32(0.002))])
        return g.node("Mul", [g.node("Cast", [count], to=1), scale])
    return graph


CASES = {
    "qdq_conv": conv(5, [3, 3], pads=[1, 0, 2, 1], strides=[2, 1]),
    "qdq_conv_relu": conv(6, [3, 2], relu=True),
    "qdq_conv_depthwise": conv(8, [3, 3], group=4, pads=[1] * 4, bias=False),
    "qdq_conv_dilated": conv(3, [2, 2], dilations=[2, 3]),
    "qdq_gemm": qdq(gemm),
    "qdq_matmul": qdq(matmul),
    "qdq_add": qdq(lambda g, x: g.node("Add", [x, g.rounded(g.node("Relu", [x]), 0.02)])),
    "qdq_sub": qdq(lambda g, x: g.node("Sub", [x, g.floats(4, 1, 1)])),
    "qdq_mul": qdq(lambda g, x: g.node("Mul", [x, x])),
    "qdq_sigmoid": qdq(lambda g, x: g.node("Sigmoid", [x])),
    "qdq_max_pool": qdq(lambda g, x: g.node("MaxPool", [x], kernel_shape=[3, 2], strides=[2, 2], pads=[1, 1, 1, 0])),
    "qdq_average_pool": qdq(lambda g, x: g.node("AveragePool", [x], kernel_shape=[3, 3], strides=[2, 2])),
    "qdq_joined": qdq(joined),
    "qdq_branch": qdq(branch),
    "qdq_softmax": qdq(lambda g, x: g.node("Softmax", [x], axis=-1)),
    "qlinear_conv": integers(qlinear_conv),
    "qlinear_conv_offset": integers(qlinear_conv_offset),
    "qlinear_matmul": integers(qlinear_matmul),
    "qlinear_add": qlinear("QLinearAdd"),
    "qlinear_mul": qlinear("QLinearMul"),
    "qlinear_sigmoid": qlinear("QLinearSigmoid"),
    "qlinear_leaky_relu": qlinear("QLinearLeakyRelu", alpha=0.2),
    "dynamic_conv": dynamic("ConvInteger", (5, 4, 3, 3), pads=[1] * 4),
    "dynamic_matmul": dynamic("MatMulInteger", (6, 5)),
}


def made(name, number):
    g = Graph(number, unsigned=number % 2 == 1 or name.startswith("qlinear"))
    result = CASES[name](g)
    info = [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE)]
    results = [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)]
    graph = helper.make_graph(g.nodes, name, info, results, g.stored)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = (1.5 * g.random.standard_normal(IMAGE)).astype(np.float32)
    return model, x, session.run(None, {"x": x})[0]


def main(folder):
    arrays = {}
    for number, name in enumerate(CASES):
        model, x, y = made(name, number)
        onnx.save(model, folder / f"{name}.onnx")
        # A step of a dynamic activation is a 255th of its range, and moves a sum by as much as all of them may.
        quantum = RESULT if not name.startswith("dynamic") else float(np.abs(y).max()) / 50
        arrays |= {f"{name}/in": x, f"{name}/out": y, f"{name}/quantum": np.float32([quantum])}
    np.savez_compressed(folder / "quanta.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
