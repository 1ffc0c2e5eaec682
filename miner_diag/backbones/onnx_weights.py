"""Float weights out of an int8 ONNX file: what a transformer's parameters were before they were quantised.

Such a file (``onnxruntime.quantization``, dynamic) keeps a matrix as whole numbers of one byte, with a scale and a zero
point for each output channel or for the whole matrix. Activations are quantised while it runs; here they are not, so
outputs differ a little.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from miner_diag.backbones.errors import CheckpointError

EXTRA = 'reading them needs the extra "bge" once: pip install "miner-diag[bge]"'
"""What to do where the parser of ONNX files is not installed."""

_PARAMETER = re.compile(r"\w+(\.\w+)+")
"""The name of a parameter, as ``encoder.layer.0.output.dense.bias``."""
_PRODUCT = re.compile(r"((?:/[\w.]+)+)/(?:MatMul|Gemm_MatMul)_quant")
"""The name of the node that multiplies by a matrix: the path of the linear layer that it was exported from."""


def read_weights(content: bytes, what: str) -> dict[str, np.ndarray]:
    """Return the float parameters of a quantised ONNX file by the names that they had when it was exported.

    A matrix that the graph multiplies by is turned, because PyTorch keeps it as [outputs, inputs]. Where the exporter
    has lost a matrix's name, it is that of the linear layer that uses it.

    Parameters
    ----------
    content : bytes
        The file.
    what : str
        What messages call it.

    Returns
    -------
    dict
        Parameter's name -> ndarray float32.

    Raises
    ------
    CheckpointError
        If the package onnx is not installed, it is no such file, or the name of a matrix cannot be told.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise CheckpointError(f"the weights in {what} are kept as ONNX; {EXTRA}") from error
    try:
        graph = onnx.load_model_from_string(content).graph
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    except Exception as error:  # the parser raises what its library does
        raise CheckpointError(f"{what} is no ONNX file that can be read ({type(error).__name__}: {error})") from error
    factors = {node.input[1]: node.name for node in graph.node if node.op_type == "MatMulInteger"}
    weights: dict[str, np.ndarray] = {}
    for name, array in stored.items():
        stem, _, part = name.rpartition("_")
        if part == "quantized":
            matrix = _floats(stored, stem, what)
            parameter = _parameter(stem, factors.get(name, ""), what)
            _add(weights, parameter, matrix.T if name in factors else matrix, what)
        elif _PARAMETER.fullmatch(name) and not name.endswith(("_scale", "_zero_point")):
            _add(weights, name, array, what)
    if not weights:
        raise CheckpointError(f"{what} holds no parameters; expected an ONNX file of a quantised transformer")
    return weights


def _floats(stored: dict[str, np.ndarray], stem: str, what: str) -> np.ndarray:
    """Return (whole numbers - zero point) * scale; the last axis is that of the channels."""
    try:
        whole, scale, zero = (stored[f"{stem}_{part}"] for part in ("quantized", "scale", "zero_point"))
    except KeyError as error:
        raise CheckpointError(f"{what} lacks {error}, without which {stem} cannot be rebuilt") from None
    for array in (scale, zero):
        if array.size != 1 and array.shape != whole.shape[-1:]:
            raise CheckpointError(
                f"{what}: scale and zero point of {stem} must be one number or one a column, of {whole.shape[-1]}; got "
                f"shape {array.shape}"
            )
    return (whole.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)


def _parameter(stem: str, node: str, what: str) -> str:
    """Return a matrix's parameter name: its own, or that of the layer whose node uses it."""
    if _PARAMETER.fullmatch(stem):
        return stem
    path = _PRODUCT.fullmatch(node)
    if path is None:
        raise CheckpointError(f"{what}: the matrix {stem} has no parameter's name, and neither has its node {node!r}")
    return path[1].strip("/").replace("/", ".") + ".weight"


def _add(weights: dict[str, Any], name: str, array: np.ndarray, what: str) -> None:
    if name in weights:
        raise CheckpointError(f"{what} holds {name} twice")
    weights[name] = np.ascontiguousarray(array, dtype=np.float32)
