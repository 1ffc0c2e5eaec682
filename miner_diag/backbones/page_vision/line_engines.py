"""The line reader as it is computed: batch norms folded away, by ONNX Runtime where it is installed, else by torch.

Both give the same classes (``python -m tests.benchmarks.lines`` times them).
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from miner_diag.backbones.page_vision.line_reader import BestClasses, LineReader
from miner_diag.backbones.page_vision.lines import HEIGHT

OPSET = 20
"""The edition of the ONNX operators: the first that has Gelu."""

IR_VERSION = 10
"""The edition of the file format, which ONNX Runtime must know."""


def line_engine(reader: LineReader) -> BestClasses:
    """Return what computes a trained line reader on this machine."""
    folded = FoldedReader(reader)
    if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime"):
        return onnx_engine(folded)
    return torch_engine(folded)


class FoldedReader(nn.Module):
    """A trained line reader for reading only: each batch norm is a part of the convolution before it.

    Parameters
    ----------
    reader : LineReader
        In evaluation mode; it is left as it is.
    """

    def __init__(self, reader: LineReader) -> None:
        super().__init__()
        layers: list[Any] = list(reader.fold)
        first = [(block[0], block[1], pool) for block, pool in zip(layers[0:6:2], layers[1:6:2], strict=True)]
        self.pools = [pool.kernel_size if isinstance(pool.kernel_size, tuple) else (2, 2) for _, _, pool in first]
        self.convolutions = nn.ModuleList(fuse_conv_bn_eval(conv, norm) for conv, norm, _ in first)
        self.convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.all_rows = fuse_conv_bn_eval(layers[6], layers[7])
        mixes: list[Any] = [block.mix for block in reader.along]
        self.along = nn.ModuleList(fuse_conv_bn_eval(mix[0], mix[1]) for mix in mixes)
        self.widen = nn.ModuleList(_linear(mix[2]) for mix in mixes)
        self.narrow = nn.ModuleList(_linear(mix[4]) for mix in mixes)
        self.head = _linear(reader.head)
        self.requires_grad_(False)

    def forward(self, lines: Tensor) -> Tensor:
        """Return class scores [B, W / 2, N_CLASSES] of lines [B, 1, HEIGHT, W]."""
        x = lines.contiguous(memory_format=torch.channels_last)
        for convolution, pool in zip(self.convolutions, self.pools, strict=True):
            x = functional.max_pool2d(convolution(x).relu_(), pool)
        states = self.all_rows(x).relu_().squeeze(2).transpose(1, 2)  # [B, T, width]
        for along, widen, narrow in zip(self.along, self.widen, self.narrow, strict=True):
            mixed = along(states.transpose(1, 2)).transpose(1, 2)
            states = states + narrow(functional.gelu(widen(mixed)))
        return self.head(states)


def torch_engine(folded: FoldedReader) -> BestClasses:
    """Return a reader that torch computes."""

    def best_classes(lines: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            best: np.ndarray = folded(torch.from_numpy(lines)).argmax(2).numpy()
        return best

    return best_classes


def onnx_engine(folded: FoldedReader) -> BestClasses:
    """Return a reader that ONNX Runtime computes, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other threads have work to do
    session = onnxruntime.InferenceSession(onnx_file(folded), sess_options=options, providers=["CPUExecutionProvider"])

    def best_classes(lines: np.ndarray) -> np.ndarray:
        (best,) = session.run(["best"], {"lines": lines})
        return np.asarray(best)

    return best_classes


def onnx_file(folded: FoldedReader) -> bytes:
    """Return the reader as the bytes of an ONNX file: lines [B, 1, HEIGHT, W] -> best [B, W / 2] int64."""
    from onnx import TensorProto, checker, helper

    graph = _Graph()
    state = "lines"
    for number, (convolution, pool) in enumerate(zip(folded.convolutions, folded.pools, strict=True)):
        state = graph.add("Relu", f"relu {number}", graph.convolution(f"convolution {number}", state, convolution))
        state = graph.add("MaxPool", f"pool {number}", state, kernel_shape=list(pool), strides=list(pool))
    state = graph.add("Relu", "relu", graph.convolution("all rows", state, folded.all_rows))
    state = graph.add("Squeeze", "squeeze", state, graph.constant("row axis", np.array([2])))
    blocks = zip(folded.along, folded.widen, folded.narrow, strict=True)
    for number, (along, widen, narrow) in enumerate(blocks):
        mixed = graph.convolution(f"along {number}", state, along)
        mixed = graph.add("Gelu", f"gelu {number}", graph.linear(f"widen {number}", mixed, widen))
        state = graph.add("Add", f"add {number}", state, graph.linear(f"narrow {number}", mixed, narrow))
    graph.add("ArgMax", "best", graph.linear("scores", state, folded.head), axis=1, keepdims=0)
    inputs = [helper.make_tensor_value_info("lines", TensorProto.FLOAT, ["B", 1, HEIGHT, "W"])]
    outputs = [helper.make_tensor_value_info("best", TensorProto.INT64, ["B", "T"])]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "line reader", inputs, outputs, graph.tensors),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


class _Graph:
    """The nodes and tensors of an ONNX graph; what a node gives out bears the node's name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def add(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, name: str, values: np.ndarray) -> str:
        from onnx import numpy_helper

        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def convolution(self, name: str, state: str, convolution: Any) -> str:
        weight = self.constant(f"{name}, weight", convolution.weight.numpy())
        bias = self.constant(f"{name}, bias", convolution.bias.numpy())
        return self.add(
            "Conv",
            name,
            state,
            weight,
            bias,
            group=convolution.groups,
            pads=[*convolution.padding, *convolution.padding],
        )

    def linear(self, name: str, state: str, linear: Any) -> str:
        """Add a product over the channels of a state [B, channels, T]: a convolution of reach 1."""
        weight = self.constant(f"{name}, weight", linear.weight.numpy()[:, :, None])
        return self.add("Conv", name, state, weight, self.constant(f"{name}, bias", linear.bias.numpy()))


def _linear(convolution: nn.Conv1d) -> nn.Linear:
    """Return a convolution of reach 1 as the product that it is."""
    linear = nn.Linear(convolution.in_channels, convolution.out_channels)
    assert convolution.bias is not None
    with torch.no_grad():
        linear.weight.copy_(convolution.weight[:, :, 0])
        linear.bias.copy_(convolution.bias)
    return linear
