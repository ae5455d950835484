#!/usr/bin/env python3
"""Compares how fast OMEX, LiteRT (XNNPACK) and ONNX Runtime compute int8 graphs, on one core.

    cargo build --release && cargo build --release -p omex-benches --example graph
    pip install ai-edge-litert onnxruntime onnx numpy flatbuffers
    python3 benches/graphs.py                          # MobileNetV2 1.0 224, with random weights
    python3 benches/graphs.py resnet8.tflite --json

A graph is a file of TensorFlow Lite; for ONNX Runtime it is written anew, with QuantizeLinear and DequantizeLinear
around each operation, bytes as inputs and as outputs. What counts is CPU time; programs take turns, and the median of
each turn's median is compared. All bytes of OMEX's output have to be those of LiteRT's reference kernels.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

ROOT = Path(__file__).resolve().parent.parent
OMEX = ROOT / "target/release/omex"
GRAPH = ROOT / "target/release/examples/graph"
CODE = schema.BuiltinOperator
BYTE, WORD = schema.TensorType.INT8, schema.TensorType.INT32


class Writer:
    """A graph of TensorFlow Lite with random weights."""

    def __init__(self, height, width, channels):
        self.random = np.random.default_rng(1)
        self.buffers, self.tensors, self.operators, self.codes = [schema.BufferT()], [], [], []
        self.shape = [1, height, width, channels]
        self.last = self.tensor(BYTE, self.shape, 1 / 128, -1)
        self.inputs = [self.last]

    def tensor(self, kind, shape, scales, zero=0, data=None, axis=0):
        tensor, buffer = schema.TensorT(), schema.BufferT()
        tensor.name, tensor.type, tensor.shape = f"t{len(self.tensors)}", kind, list(shape)
        q = tensor.quantization = schema.QuantizationParametersT()
        q.scale = np.atleast_1d(np.float32(scales)).tolist()
        q.zeroPoint, q.quantizedDimension = [zero] * len(q.scale), axis
        if data is not None:
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        tensor.buffer = len(self.buffers)
        self.buffers.append(buffer)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def scale(self, tensor):
        return self.tensors[tensor].quantization.scale[0]

    def operator(self, code, kind, options, inputs, shape, scale, zero):
        if code not in self.codes:
            self.codes.append(code)
        output = self.tensor(BYTE, shape, scale, zero)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = self.codes.index(code), inputs, [output]
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        self.operators.append(operator)
        self.last, self.shape = output, shape
        return output

    def convolve(self, outputs, kernel, stride=1, relu=True, depthwise=False):
        _, height, width, channels = self.shape
        outputs = channels if depthwise else outputs
        taps = [kernel, kernel, 1 if depthwise else channels]
        scales = self.random.uniform(0.5, 2, outputs) * 2 / np.sqrt(np.prod(taps)) / 127
        weights = self.random.normal(0, 42, [outputs, *taps]).round().clip(-127, 127).astype(np.int8)
        if depthwise:
            weights = weights.transpose(3, 1, 2, 0)
        weights = self.tensor(BYTE, weights.shape, scales, data=weights, axis=3 if depthwise else 0)
        bias = self.random.integers(-2000, 2000, outputs, np.int32)
        bias = self.tensor(WORD, [outputs], scales * self.scale(self.last), data=bias)
        options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
        options.strideW = options.strideH = stride
        if depthwise:
            options.depthMultiplier = 1
        options.fusedActivationFunction = 3 if relu else 0  # RELU6
        code, kind = (CODE.DEPTHWISE_CONV_2D, "DepthwiseConv2DOptions") if depthwise else (CODE.CONV_2D, "Conv2DOptions")
        shape = [1, -(-height // stride), -(-width // stride), outputs]
        scale, zero = (6 / 255, -128) if relu else (8 / 255, 3)
        return self.operator(code, kind, options, [self.last, weights, bias], shape, scale, zero)

    def add(self, other):
        return self.operator(CODE.ADD, "AddOptions", schema.AddOptionsT(), [other, self.last], self.shape, 10 / 255, 1)

    def average(self):
        _, height, width, channels = self.shape
        options = schema.Pool2DOptionsT()
        options.filterHeight, options.filterWidth, options.strideH, options.strideW, options.padding = height, width, 1, 1, 1
        scale, zero = self.scale(self.last), self.tensors[self.last].quantization.zeroPoint[0]
        return self.operator(CODE.AVERAGE_POOL_2D, "Pool2DOptions", options, [self.last], [1, 1, 1, channels], scale, zero)

    def write(self, path):
        import flatbuffers

        model, graph = schema.ModelT(), schema.SubGraphT()
        model.version, model.buffers, model.subgraphs, model.operatorCodes = 3, self.buffers, [graph], []
        for code in self.codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode = entry.deprecatedBuiltinCode = code
            entry.version = 3
            model.operatorCodes.append(entry)
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = self.inputs, [self.last]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(builder.Output())


def mobilenet_v2(path):
    """Sandler et al., arXiv:1801.04381, table 2."""
    graph = Writer(224, 224, 3)
    graph.convolve(32, 3, 2)
    for times, outputs, count, stride in [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]:
        for number in range(count):
            before, channels = graph.last, graph.shape[3]
            if times > 1:
                graph.convolve(times * channels, 1)
            graph.convolve(0, 3, stride if number == 0 else 1, depthwise=True)
            graph.convolve(outputs, 1, relu=False)
            if number > 0:
                graph.add(before)
    graph.convolve(1280, 1)
    graph.average()
    graph.convolve(1000, 1, relu=False)
    graph.write(path)


class Translator:
    """The same graph for ONNX Runtime: images by channels, floats between DequantizeLinear and QuantizeLinear."""

    def __init__(self, path):
        from onnx import helper, numpy_helper

        self.make, self.array = helper, numpy_helper.from_array
        self.model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
        self.graph = self.model.subgraphs[0]
        self.nodes, self.constants = [], []

    def constant(self, name, array):
        self.constants.append(self.array(np.asarray(array, order="C"), name))
        return name

    def node(self, kind, inputs, output, **attributes):
        self.nodes.append(self.make.make_node(kind, inputs, [output], **attributes))
        return output

    def data(self, index, kind):
        tensor = self.graph.tensors[index]
        return np.frombuffer(bytes(self.model.buffers[tensor.buffer].data), kind).reshape(tensor.shape)

    def scale(self, name, index, kind=np.int8):
        q = self.graph.tensors[index].quantization
        scales, zeros = np.float32(q.scale), np.array(q.zeroPoint, kind)
        if len(scales) == 1:
            scales, zeros = scales[0], zeros[0]
        return [self.constant(f"{name}_scale", np.array(scales)), self.constant(f"{name}_zero", np.array(zeros))]

    def floats(self, index):
        name = f"f{index}_{len(self.nodes)}"
        return self.node("DequantizeLinear", [f"t{index}", *self.scale(name, index)], name)

    def bytes(self, name, index):
        return self.node("QuantizeLinear", [name, *self.scale(f"q{index}", index)], f"t{index}")

    def weights(self, index, depthwise):
        name = f"w{index}"
        data = self.data(index, np.int8)
        if data.ndim == 4:
            data = data.transpose(3, 0, 1, 2) if depthwise else data.transpose(0, 3, 1, 2)
        return self.node("DequantizeLinear", [self.constant(name, data), *self.scale(name, index)], f"{name}_f", axis=0)

    def bias(self, index):
        name = f"b{index}"
        return self.node("DequantizeLinear", [self.constant(name, self.data(index, np.int32)), *self.scale(name, index, np.int32)], f"{name}_f", axis=0)

    def operator(self, operator):
        codes = self.model.operatorCodes[operator.opcodeIndex]
        code, options = max(codes.builtinCode, codes.deprecatedBuiltinCode), operator.builtinOptions
        inputs, output = operator.inputs, operator.outputs[0]
        shape, end = self.graph.tensors[inputs[0]].shape, f"r{output}"
        if code in (CODE.CONV_2D, CODE.DEPTHWISE_CONV_2D):
            depthwise = code == CODE.DEPTHWISE_CONV_2D
            weights = self.graph.tensors[inputs[1]].shape
            kernel, strides = list(weights[1:3]), [options.strideH, options.strideW]
            pads = [0] * 4
            if options.padding == 0:  # SAME
                for side in range(2):
                    steps = -(-shape[1 + side] // strides[side])
                    total = max((steps - 1) * strides[side] + kernel[side] - shape[1 + side], 0)
                    pads[side], pads[2 + side] = total // 2, total - total // 2
            group = shape[3] if depthwise else 1
            values = [self.floats(inputs[0]), self.weights(inputs[1], depthwise), self.bias(inputs[2])]
            self.node("Conv", values, end, kernel_shape=kernel, strides=strides, pads=pads, group=group)
            end = self.activation(end, options.fusedActivationFunction)
        elif code == CODE.ADD:
            self.node("Add", [self.floats(inputs[0]), self.floats(inputs[1])], end)
            end = self.activation(end, options.fusedActivationFunction)
        elif code == CODE.AVERAGE_POOL_2D:
            kernel, strides = [options.filterHeight, options.filterWidth], [options.strideH, options.strideW]
            self.node("AveragePool", [self.floats(inputs[0])], end, kernel_shape=kernel, strides=strides)
        elif code == CODE.RESHAPE:
            target = self.constant(f"s{output}", np.array(self.graph.tensors[output].shape, np.int64))
            self.node("Reshape", [self.floats(inputs[0]), target], end)
        elif code == CODE.FULLY_CONNECTED:
            self.node("Gemm", [self.floats(inputs[0]), self.weights(inputs[1], False), self.bias(inputs[2])], end, transB=1)
        elif code == CODE.SOFTMAX:
            self.node("Softmax", [self.floats(inputs[0])], end)
        else:
            sys.exit(f"operator {code} can't be written for ONNX Runtime")
        self.bytes(end, output)

    def activation(self, name, function):
        # What saturates at the ends of a byte needs no node.
        return self.node("Relu", [name], f"{name}_relu") if function in (1, 3) else name

    def write(self, path):
        from onnx import TensorProto, save

        for operator in self.graph.operators:
            self.operator(operator)
        ports = []
        for index in [self.graph.inputs[0], self.graph.outputs[0]]:
            shape = [int(n) for n in self.graph.tensors[index].shape]
            if len(shape) == 4:
                shape = [shape[0], shape[3], *shape[1:3]]
            ports.append(self.make.make_tensor_value_info(f"t{index}", TensorProto.INT8, shape))
        graph = self.make.make_graph(self.nodes, "graph", ports[:1], ports[1:], self.constants)
        save(self.make.make_model(graph, opset_imports=[self.make.make_opsetid("", 17)], ir_version=8), str(path))


def literally(path, x, resolver=OpResolverType.AUTO):
    interpreter = Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    place, out = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run():
        interpreter.set_tensor(place, x)
        start = time.process_time()
        interpreter.invoke()
        return time.process_time() - start

    return run, lambda: interpreter.get_tensor(out)


def onnx(path, x):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    image = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x

    def run():
        start = time.process_time()
        session.run(None, {name: image})
        return time.process_time() - start

    return run, lambda: session.run(None, {name: image})[0]


def median(run, count):
    return statistics.median(run() for _ in range(count)) * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", nargs="?", type=Path, help="a graph of TensorFlow Lite in int8")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        graph = arguments.graph or folder / "mobilenet_v2.tflite"
        if arguments.graph is None:
            mobilenet_v2(graph)
        compare(graph, folder, arguments)


def compare(graph, folder, arguments):
    package, image, out = folder / "graph.omex", folder / "x.npy", folder / "y.npy"
    subprocess.run([OMEX, "convert", graph, "--output-dir", package], check=True, stdout=subprocess.DEVNULL)
    Translator(graph).write(folder / "graph.onnx")
    details = Interpreter(model_path=str(graph)).get_input_details()[0]
    x = np.random.default_rng(2).integers(-128, 128, details["shape"], np.int8)
    np.save(image, x)
    subprocess.run([OMEX, "infer", package, "--input", image, "-o", out], check=True, stdout=subprocess.DEVNULL)
    run, result = literally(graph, x, OpResolverType.BUILTIN_REF)
    run()
    different = int((np.load(out).ravel() != result().ravel()).sum())
    lite, near = literally(graph, x)
    onnx_run, onnx_result = onnx(folder / "graph.onnx", x)
    count = max(5, int(0.5 / max(lite(), lite())))

    def omex():
        printed = subprocess.run([GRAPH, package, str(count)], check=True, capture_output=True, text=True)
        return float(printed.stdout)

    runs = {"omex": omex, "litert": lambda: median(lite, count), "onnxruntime": lambda: median(onnx_run, count)}
    times = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            times[name].append(run())
    medians = {name: statistics.median(all) for name, all in times.items()}
    found = {"graph": graph.name, "microseconds": medians, "different_from_reference": different}
    found["bytes_off_the_reference"] = {
        "litert": int((near().ravel() != result().ravel()).sum()),
        "onnxruntime": int((onnx_result().ravel() != result().ravel()).sum()),
    }
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"{graph.name}: {different} bytes of OMEX's output are not the reference kernels'")
    for name, time_ in medians.items():
        print(f"  {name:<12} {time_:10.1f} us   {time_ / medians['omex']:.2f} of OMEX's")


if __name__ == "__main__":
    main()
