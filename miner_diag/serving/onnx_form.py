"""ONNX graphs of a served retriever: backbone and system from token ids to vector, or the system alone from states.

Every graph is held against the retriever with ONNX Runtime, on batches of several sizes and lengths, before it is kept.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from miner_diag.backbones.base import SIDES, Side
from miner_diag.backbones.options import Pooling
from miner_diag.backbones.text_encoder import TextEncoder
from miner_diag.files import atomic_path, write_atomic
from miner_diag.fusion.served import tells_sides_apart
from miner_diag.fusion.system import System
from miner_diag.serving.errors import ServingError
from miner_diag.serving.retriever import FusedRetriever
from miner_diag.serving.sentence_folder import text_backbone

FACTS = "onnx.json"
EXTRA = 'the export to ONNX needs the extra "onnx": pip install "miner-diag[onnx]"'
TOLERANCE = 1e-5
"""How far a coordinate of a unit vector may be from ours."""
TOGETHER = 1 << 30
"""Bytes of weights up to which they lie in the graph's own file; a file of the format ends at 2 GB."""
LENGTHS = ((1, 4), (2, 9), (3, 33))
"""Batch sizes and lengths in tokens on which a graph of the backbone is held against it."""
SIZES = (1, 3, 40)
"""Batch sizes on which a graph of the system alone is held against it."""


def write_onnx(retriever: FusedRetriever, folder: Path, *, system_alone: bool = False) -> list[Path]:
    """Write graphs, their tokenizer, and ``onnx.json``, which says what goes in.

    Parameters
    ----------
    retriever : FusedRetriever
        What is written.
    folder : path
        Where to; it is made.
    system_alone : bool
        Write the system alone, which takes the pooled states of its layers; possible for any backbone. Else its
        backbone must be a text encoder, and a text is one input: windows of long texts are not joined in the graph.

    Returns
    -------
    list of path
        ``model.onnx`` or ``system.onnx``; where queries and pages have maps of their own, one for each side.

    Raises
    ------
    ServingError
        If the extra is missing, the backbone cannot be written, or a graph gives other vectors.
    """
    _need_extra()
    backbone = None if system_alone else text_backbone(retriever)
    if backbone is not None and not backbone.pipeline.include_prompt:
        raise ServingError(
            f"{backbone.name} leaves the prompt out of its pooling, which no graph does; export the system alone"
        )
    folder.mkdir(parents=True, exist_ok=True)
    stem = "system" if backbone is None else "model"
    sides: Sequence[Side] = SIDES if tells_sides_apart(retriever.system) else ("page",)
    written = []
    for side in sides:
        path = folder / (f"{stem}.onnx" if len(sides) == 1 else f"{stem}-{side}.onnx")
        if backbone is None:
            _write_system(retriever, side, path)
        else:
            _write_model(retriever, backbone, side, path)
        written.append(path)
    facts: dict[str, Any] = {
        "graphs": {side: written[-1 if len(sides) == 1 else sides.index(side)].name for side in SIDES},
        "layers": list(retriever.layers),
        "width": retriever.width,
        "fingerprint": retriever.fingerprint,
    }
    if backbone is not None:
        backbone.tokenizer.save_pretrained(folder)
        facts |= {
            "prompts": {"query": backbone.query_prompt, "page": backbone.page_prompt},
            "max_tokens": {side: backbone.max_tokens(side) for side in SIDES},
        }
    write_atomic(folder / FACTS, json.dumps(facts, indent=2) + "\n")
    return written


class ModelGraph(nn.Module):
    """Token ids to vector: the backbone, pooling of the layers that are read, and the system."""

    def __init__(self, backbone: TextEncoder, system: System, side: Side) -> None:
        super().__init__()
        self.model, self.system, self.side = backbone.model, system, side
        self.last = backbone.n_layers
        inner: Pooling = "mean" if backbone.layer_pooling == "mean" else backbone.pooling
        self.poolings = [backbone.pooling if layer == self.last else inner for layer in system.layers]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return [B, D] for a padded batch [B, T]."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True, **types)
        states = [
            _pooled(
                output.last_hidden_state if layer == self.last else output.hidden_states[layer], attention_mask, how
            )
            for layer, how in zip(self.system.layers, self.poolings, strict=True)
        ]
        return self.system(torch.stack(states, dim=1), self.side)


class SystemGraph(nn.Module):
    """Pooled states of the layers that are read, [N, K, D], to vectors [N, D]."""

    def __init__(self, system: System, side: Side) -> None:
        super().__init__()
        self.system, self.side = system, side

    def forward(self, states: Tensor) -> Tensor:
        """Return [N, D] for the states [N, K, D]."""
        return self.system(states, self.side)


def _pooled(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Pool [B, T, D] under a mask [B, T], as :class:`~miner_diag.backbones.pooling.Pooler` does, in traceable steps."""
    states, kept = states.float(), mask.float()
    if pooling == "mean":
        return (states * kept[:, :, None]).sum(dim=1) / kept.sum(dim=1, keepdim=True)
    places = torch.arange(mask.shape[1], device=mask.device)
    # rises with the place for the last kept token, falls for the first one
    ranked = kept * (places + 1 if pooling == "last" else mask.shape[1] - places)
    index = ranked.argmax(dim=1)
    return states.gather(1, index[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]


def _write_model(retriever: FusedRetriever, backbone: TextEncoder, side: Side, path: Path) -> None:
    names = [name for name in backbone.tokenizer.model_input_names if name in ("input_ids", "token_type_ids")]
    names = ["input_ids", "attention_mask", *names[1:]]
    graph = ModelGraph(backbone, retriever.served, side).eval()
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    _export(graph, _batch(backbone, names, 2, 9), {name: {0: batch, 1: length} for name in names}, path)
    for size, tokens in LENGTHS:
        _compare(graph, _batch(backbone, names, size, tokens), path)


def _write_system(retriever: FusedRetriever, side: Side, path: Path) -> None:
    graph = SystemGraph(retriever.served, side).eval()
    shape = (len(retriever.layers), retriever.backbone.layer_shape(side)[1])
    rng = np.random.default_rng(0)

    def states(size: int) -> dict[str, Tensor]:
        return {"states": torch.from_numpy(rng.normal(size=(size, *shape)).astype(np.float32))}

    _export(graph, states(2), {"states": {0: torch.export.Dim("batch")}}, path)
    for size in SIZES:
        _compare(graph, states(size), path)


def _batch(backbone: TextEncoder, names: Sequence[str], size: int, tokens: int) -> dict[str, Tensor]:
    """Return a batch of drawn tokens; every item but the first is shorter than the one before it."""
    rng = np.random.default_rng(tokens)
    mask = np.arange(tokens)[None] < np.maximum(tokens - np.arange(size)[:, None] * (tokens // size), 1)
    ids = rng.integers(0, backbone.model.config.get_text_config().vocab_size, (size, tokens)) * mask
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: torch.from_numpy(arrays[name].astype(np.int64)) for name in names}


def _export(graph: nn.Module, inputs: Mapping[str, Tensor], shapes: Mapping[str, Any], path: Path) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in graph.state_dict().values())
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(), atomic_path(path) as temporary:
        warnings.simplefilter("ignore")  # about the insides of the exporter; what it wrote is held against ours
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            torch.onnx.export(
                graph,
                kwargs=dict(inputs),
                f=str(temporary),
                input_names=list(inputs),
                output_names=["vectors"],
                dynamic_shapes=dict(shapes),
                dynamo=True,
                external_data=size > TOGETHER,
                verbose=False,
            )
        except Exception as error:  # the exporter raises what it likes
            raise ServingError(
                f"torch cannot write {path.name} as ONNX: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            ) from error
        finally:
            logging.getLogger("torch.onnx").setLevel(level)


def _compare(graph: nn.Module, inputs: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a graph that gives other vectors than we do."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = graph(**inputs).numpy()
    shapes = {name: list(tensor.shape) for name, tensor in inputs.items()}
    try:
        (found,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    except Exception as error:  # the runtime has no class of its own for it
        path.unlink()
        raise ServingError(
            f"{path.name} does not take {shapes} and was deleted: {' '.join(str(error).split())[:300]}"
        ) from error
    apart = float(np.abs(found - expected).max())
    if not apart <= TOLERANCE:  # NaN, too
        path.unlink()
        raise ServingError(
            f"{path.name} gave vectors that are {apart:.1e} from ours on {shapes} and was deleted; at most {TOLERANCE} "
            "is rounding"
        )


def _need_extra() -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        try:
            __import__(name)
        except ImportError as error:
            raise ServingError(f"{EXTRA} ({name} is not installed)") from error
