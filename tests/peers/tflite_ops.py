#!/usr/bin/env python3
"""Converts small int8 graphs, several for each operator, and compares the bytes that omex infer gives with those of
TensorFlow Lite Micro's reference kernels.

    python3 tests/peers/tflite_ops.py [--omex target/debug/omex] [NAME ...]
    python3 tests/peers/tflite_ops.py --write tests/tflite

The second writes one graph for each, and what goes in and comes out, for tests/tests/tflite_ops.rs. Needs the packages tflite-micro, flatbuffers and numpy.
"""
import argparse
import subprocess
import tempfile
import zlib
from pathlib import Path

import flatbuffers
import numpy as np
from tflite_micro.python.tflite_micro import runtime
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

RANDOM = np.random.default_rng()
ROUNDS = 3
# Inferences of a graph that keeps something from one to the next.
STEPS = 5


def quantization(times=1.0):
    """A scale, and a zero point."""
    return float(np.float32(times * RANDOM.uniform(0.02, 0.1))), int(RANDOM.integers(-60, 60))


def bytes_of(*shape):
    return RANDOM.integers(-128, 128, shape, np.int8)


class Graph:
    """A graph of one operator."""

    def __init__(self):
        self.buffers = [schema.BufferT()]
        self.tensors, self.inputs = [], []
        self.codes, self.operators = [], []

    def tensor(self, kind, shape, scale=None, data=None, axis=0):
        tensor = schema.TensorT()
        tensor.name = f"t{len(self.tensors)}"
        tensor.type, tensor.shape = kind, list(shape)
        if scale is not None:
            scales, zeros = scale
            q = tensor.quantization = schema.QuantizationParametersT()
            q.scale, q.zeroPoint = np.atleast_1d(scales).tolist(), np.atleast_1d(zeros).tolist()
            q.quantizedDimension = axis
        buffer = schema.BufferT()
        if data is not None:
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        self.buffers.append(buffer)
        tensor.buffer = len(self.buffers) - 1
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def input(self, shape, scale=None):
        index = self.tensor(schema.TensorType.INT8, shape, scale or quantization())
        self.inputs.append(index)
        return index

    def whole(self, *numbers):
        return self.tensor(schema.TensorType.INT32, [len(numbers)], data=np.array(numbers, np.int32))

    def weights(self, shape, axis=0):
        count = shape[axis]
        scales = RANDOM.uniform(0.002, 0.02, count).astype(np.float32)
        data = RANDOM.integers(-127, 128, shape, np.int8)
        return self.tensor(schema.TensorType.INT8, shape, (scales, [0] * count), data, axis)

    def bias(self, count):
        data = RANDOM.integers(-3000, 3000, count, np.int32)
        return self.tensor(schema.TensorType.INT32, [count], (0.001, 0), data)

    def scale(self, index):
        q = self.tensors[index].quantization
        return q.scale[0], q.zeroPoint[0]

    def operator(self, code, options, inputs, outputs):
        if code not in self.codes:
            self.codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = self.codes.index(code), inputs, outputs
        if options is not None:
            operator.builtinOptions = options
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        self.operators.append(operator)

    def build(self, code, options, inputs, shape, scale=None):
        output = self.tensor(schema.TensorType.INT8, shape, scale or quantization())
        self.operator(code, options, inputs, [output])
        return self.finish(output)

    def before(self, number):
        """What is done before the first inference: a variable gets this number."""
        first = Graph()
        first.buffers, first.codes = self.buffers, self.codes
        variable = handle(first, "rows")
        data = np.full((1, 3, 4, 3), number, np.int8)
        constant = first.tensor(schema.TensorType.INT8, data.shape, (0.1, 0), data)
        first.operator(OP.ASSIGN_VARIABLE, options("AssignVariable"), [variable, constant], [])
        return first.subgraph("before", [])

    def subgraph(self, name, outputs):
        subgraph = schema.SubGraphT()
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs, subgraph.outputs, subgraph.name = self.inputs, outputs, name
        return subgraph

    def finish(self, output, others=()):
        kinds = []
        for code in self.codes:
            kind = schema.OperatorCodeT()
            kind.builtinCode, kind.version = code, 1
            kind.deprecatedBuiltinCode = min(code, 127)
            kinds.append(kind)
        model = schema.ModelT()
        model.version, model.description = 3, "one operator"
        model.operatorCodes, model.buffers = kinds, self.buffers
        model.subgraphs = [self.subgraph("main", [output]), *others]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def options(name, **fields):
    made = getattr(schema, f"{name}OptionsT")()
    for field, value in fields.items():
        assert hasattr(made, field), f"{name} has no {field}"
        setattr(made, field, value)
    return made


OP = schema.BuiltinOperator
IMAGE = (1, 7, 6, 4)
WINDOW = {"strideW": 1, "strideH": 1, "padding": 0, "fusedActivationFunction": 0}


def pair(code, name, first=IMAGE, second=IMAGE, **fields):
    def make(graph):
        ends = [graph.input(first), graph.input(second)]
        shape = np.broadcast_shapes(first, second)
        return graph.build(code, options(name, fusedActivationFunction=0, **fields), ends, shape, quantization(2))
    return make


def extreme(code):
    def make(graph):
        scale = quantization()
        ends = [graph.input(IMAGE, scale), graph.input((1, 1, 1, 4), scale)]
        return graph.build(code, options("MaximumMinimum"), ends, IMAGE, scale)
    return make


def function(code, scale=None, option=None, small=False, same=False):
    def make(graph):
        own = quantization()
        own = (own[0] * 0.2, own[1]) if small else own
        end = graph.input((1, 256), own)
        to = own if same else scale or ((own[0], own[1] // 2) if small else quantization())
        return graph.build(code, option, [end], (1, 256), to)
    return make


def reduced(code, axes, shape, keep=True, times=1.2):
    def make(graph):
        ends = [graph.input(IMAGE), graph.whole(*axes)]
        return graph.build(code, options("Reducer", keepDims=keep), ends, shape, quantization(times))
    return make


def conv(kernel, shape, **fields):
    def make(graph):
        weights = graph.weights((5, *kernel, 4))
        ends = [graph.input(IMAGE), weights, graph.bias(5)]
        return graph.build(OP.CONV_2D, options("Conv2D", **{**WINDOW, **fields}), ends, shape, (0.1, -5))
    return make


def depthwise(kernel, shape, **fields):
    def make(graph):
        ends = [graph.input(IMAGE), graph.weights((1, *kernel, 4), 3), graph.bias(4)]
        fields_of = {**WINDOW, "depthMultiplier": 1, **fields}
        return graph.build(OP.DEPTHWISE_CONV_2D, options("DepthwiseConv2D", **fields_of), ends, shape, (0.1, 3))
    return make


def transposed(kernel, shape, **fields):
    def make(graph):
        weights = graph.weights((3, *kernel, 4))
        ends = [graph.whole(*shape), weights, graph.input(IMAGE), graph.bias(3)]
        return graph.build(OP.TRANSPOSE_CONV, options("TransposeConv", **{**WINDOW, **fields}), ends, shape, (0.1, 7))
    return make


def matrix(rows):
    def make(graph):
        ends = [graph.input((rows, 24)), graph.weights((9, 24)), graph.bias(9)]
        graph.tensors[ends[1]].quantization.scale = [0.01]
        graph.tensors[ends[1]].quantization.zeroPoint = [0]
        fields = options("FullyConnected", fusedActivationFunction=1)
        return graph.build(OP.FULLY_CONNECTED, fields, ends, (rows, 9), (0.15, 0))
    return make


def softmax(rows):
    def make(graph):
        end = graph.input((rows, 11))
        return graph.build(OP.SOFTMAX, options("Softmax", beta=1.0), [end], (rows, 11), (1 / 256, -128))
    return make


def resized(code, name, sides, **fields):
    def make(graph):
        scale = quantization()
        ends = [graph.input(IMAGE, scale), graph.whole(*sides)]
        return graph.build(code, options(name, **fields), ends, (1, *sides, 4), scale)
    return make


def moved(code, name, constants, shape, **fields):
    def make(graph):
        scale = quantization()
        ends = [graph.input(IMAGE, scale)]
        ends += [graph.tensor(schema.TensorType.INT32, np.shape(c), data=np.array(c, np.int32)) for c in constants]
        return graph.build(code, options(name, **fields), ends, shape, scale)
    return make


def pooled(graph):
    scale = quantization()
    fields = {**WINDOW, "filterHeight": 3, "filterWidth": 2, "strideH": 2, "fusedActivationFunction": 1}
    return graph.build(OP.MAX_POOL_2D, options("Pool2D", **fields), [graph.input(IMAGE, scale)], (1, 4, 6, 4), scale)


def handle(graph, name):
    resource = graph.tensor(schema.TensorType.RESOURCE, [])
    graph.operator(OP.VAR_HANDLE, options("VarHandle", container="", sharedName=name), [], [resource])
    return resource


def windows(begins, twice=False):
    """A convolution over the last three rows, which a variable keeps."""

    def make(graph):
        scale = quantization()
        row = graph.input((1, 1, 4, 3), scale)
        others = []
        if begins:
            others = [graph.before(scale[1])]
            graph.operator(OP.CALL_ONCE, options("CallOnce", initSubgraphIndex=1), [], [])
        rows = graph.tensor(schema.TensorType.INT8, (1, 3, 4, 3), scale)
        variable = handle(graph, "rows")
        graph.operator(OP.READ_VARIABLE, options("ReadVariable"), [variable], [rows])
        last = graph.tensor(schema.TensorType.INT8, (1, 2, 4, 3), scale)
        ends = [graph.whole(*ends) for ends in ((0, 1, 0, 0), (1, 3, 4, 3), (1, 1, 1, 1))]
        graph.operator(OP.STRIDED_SLICE, options("StridedSlice"), [rows, *ends], [last])
        new = graph.tensor(schema.TensorType.INT8, (1, 3, 4, 3), scale)
        graph.operator(OP.CONCATENATION, options("Concatenation", axis=1), [last, row], [new])
        graph.operator(OP.ASSIGN_VARIABLE, options("AssignVariable"), [variable, new], [])
        if twice:
            new = graph.tensor(schema.TensorType.INT8, (1, 3, 4, 3), scale)
            graph.operator(OP.READ_VARIABLE, options("ReadVariable"), [variable], [new])
        output = graph.tensor(schema.TensorType.INT8, (1, 1, 1, 5), quantization(4))
        window = options("Conv2D", padding=1, strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
        graph.operator(OP.CONV_2D, window, [new, graph.weights((5, 3, 4, 3)), graph.bias(5)], [output])
        return graph.finish(output, others)

    return make


CASES = {
    "add": pair(OP.ADD, "Add"),
    "add_repeated": pair(OP.ADD, "Add", second=(1, 1, 1, 4)),
    "sub": pair(OP.SUB, "Sub"),
    "sub_repeated": pair(OP.SUB, "Sub", first=(1, 7, 1, 4)),
    "mul": pair(OP.MUL, "Mul"),
    "mul_repeated": pair(OP.MUL, "Mul", second=(1, 1, 1, 4)),
    "maximum": extreme(OP.MAXIMUM),
    "minimum": extreme(OP.MINIMUM),
    "mean": reduced(OP.MEAN, (1, 2), (1, 1, 1, 4)),
    "mean_inner": reduced(OP.MEAN, (3,), (1, 7, 6), keep=False, times=0.8),
    "sum": reduced(OP.SUM, (1, 2), (1, 1, 1, 4), times=50),
    "logistic": function(OP.LOGISTIC, (1 / 256, -128)),
    "tanh": function(OP.TANH, (1 / 128, 0)),
    "hard_swish": function(OP.HARD_SWISH),
    "hard_swish_fine": function(OP.HARD_SWISH, small=True),
    "leaky_relu": function(OP.LEAKY_RELU, option=options("LeakyRelu", alpha=0.3)),
    "relu": function(OP.RELU),
    "relu6": function(OP.RELU6, same=True),
    "elu": function(OP.ELU),
    "quantize": function(OP.QUANTIZE, option=options("Quantize")),
    "conv": conv((3, 2), (1, 4, 6, 5), strideH=2),
    "conv_dilated": conv((3, 3), IMAGE[:3] + (5,), dilationHFactor=2, dilationWFactor=3),
    "conv_dilated_valid": conv((2, 2), (1, 4, 4, 5), padding=1, dilationHFactor=3, dilationWFactor=2),
    "conv_dilated_far": conv((3, 3), IMAGE[:3] + (5,), dilationHFactor=9, dilationWFactor=8),
    "depthwise_dilated": depthwise((3, 3), IMAGE, dilationHFactor=2, dilationWFactor=2),
    "transposed": transposed((3, 3), (1, 14, 12, 3), strideH=2, strideW=2),
    "transposed_valid": transposed((2, 3), (1, 14, 13, 3), strideH=2, strideW=2, padding=1),
    "matrix": matrix(1),
    "matrix_rows": matrix(6),
    "softmax": softmax(1),
    "softmax_rows": softmax(4),
    "max_pool": pooled,
    "resize_nearest": resized(OP.RESIZE_NEAREST_NEIGHBOR, "ResizeNearestNeighbor", (11, 4)),
    "resize_nearest_middle": resized(OP.RESIZE_NEAREST_NEIGHBOR, "ResizeNearestNeighbor", (9, 12), halfPixelCenters=True),
    "resize_bilinear": resized(OP.RESIZE_BILINEAR, "ResizeBilinear", (11, 4)),
    "resize_bilinear_middle": resized(OP.RESIZE_BILINEAR, "ResizeBilinear", (10, 13), halfPixelCenters=True),
    "resize_bilinear_ends": resized(OP.RESIZE_BILINEAR, "ResizeBilinear", (10, 13), alignCorners=True),
    "variable": windows(begins=True),
    "variable_unset": windows(begins=False),
    "variable_twice": windows(begins=True, twice=True),
    "pad": moved(OP.PAD, "Pad", [[[0, 0], [1, 2], [0, 1], [2, 0]]], (1, 10, 7, 6)),
    "transpose": moved(OP.TRANSPOSE, "Transpose", [[0, 3, 1, 2]], (1, 4, 7, 6)),
    "strided_slice": moved(OP.STRIDED_SLICE, "StridedSlice", [[0, 1, 0, 3], [1, 7, 5, 1], [1, 2, 3, -1]], (1, 3, 2, 2)),
}


def peer(model, inputs, steps):
    interpreter = runtime.Interpreter.from_bytes(model)
    outputs = []
    for step in range(steps):
        for place, data in enumerate(inputs):
            interpreter.set_input(data if steps == 1 else data[step], place)
        interpreter.invoke()
        outputs.append(np.array(interpreter.get_output(0)))
    return outputs[0] if steps == 1 else np.stack(outputs)


def made(name, number=0):
    """A graph, what goes in by the tensors' names, and what the reference makes of it; each number has others."""
    global RANDOM
    RANDOM = np.random.default_rng([number, zlib.crc32(name.encode())])
    graph = Graph()
    model = CASES[name](graph)
    steps = STEPS if name.startswith("variable") else 1
    several = (steps,) if steps > 1 else ()
    inputs = [bytes_of(*several, *graph.tensors[index].shape) for index in graph.inputs]
    if len(inputs) == 1 and inputs[0].size == 256:
        inputs = [np.arange(-128, 128, dtype=np.int8).reshape(inputs[0].shape)]
    names = [graph.tensors[index].name for index in graph.inputs]
    return model, dict(zip(names, inputs)), peer(model, inputs, steps)


def check(name, omex, folder, number):
    model, inputs, expected = made(name, number)
    (folder / "m.tflite").write_bytes(model)
    given = []
    for tensor, data in inputs.items():
        np.save(folder / f"{tensor}.npy", data)
        given += ["--input", f"{tensor}={folder}/{tensor}.npy"]
    for command in (
        ["convert", folder / "m.tflite", "--output-dir", folder / "m.omex", "--force"],
        ["infer", folder / "m.omex", *given, "-o", folder / "y.npy"],
    ):
        done = subprocess.run([omex, *map(str, command)], capture_output=True, text=True)
        if done.returncode:
            return " ".join(done.stderr.split())
    found = np.load(folder / "y.npy")
    if found.size != expected.size:
        return f"shape {found.shape}, the reference {expected.shape}"
    differ = found.reshape(-1) != expected.reshape(-1)
    return f"{differ.sum()} of {differ.size} bytes differ" if differ.any() else None


def write(folder):
    arrays = {}
    for name in CASES:
        model, inputs, expected = made(name)
        (folder / f"{name}.tflite").write_bytes(model)
        arrays |= {f"{name}/in/{tensor}": data for tensor, data in inputs.items()}
        arrays[f"{name}/out"] = expected
    np.savez_compressed(folder / "cases.npz", **arrays)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--omex", default="target/debug/omex")
    parser.add_argument("--write", type=Path)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    if arguments.write:
        return write(arguments.write)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names or CASES:
            problems = (check(name, arguments.omex, Path(folder), number) for number in range(ROUNDS))
            problem = next(filter(None, problems), None)
            wrong += problem is not None
            print(f"{name}: {problem or 'equal'}")
    print(f"{wrong} of {len(arguments.names or CASES)} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
