"""Folders that sentence-transformers reads: our own module, or its plain modules where these say exactly the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save as save_safetensors

from miner_diag.backbones.checkpoint_copy import save_lower_layers
from miner_diag.backbones.text_encoder import TextEncoder
from miner_diag.files import write_atomic
from miner_diag.fusion.baselines import OneLayer, SingleProbe
from miner_diag.fusion.miner import MinerFusion
from miner_diag.fusion.model import Fusion, projection_map
from miner_diag.fusion.system import System
from miner_diag.probes.probe_stack import Probe
from miner_diag.serving.errors import ServingError
from miner_diag.serving.retriever import FusedRetriever

MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
MODULE_CLASS = "miner_diag.serving.sentence_module.FusedModule"
"""Our module, as ``modules.json`` names it."""
POOLING_NAMES = {"mean": "mean", "cls": "cls", "last": "lasttoken"}
"""Our names of poolings -> those of sentence-transformers."""


class Linear(NamedTuple):
    """A linear step of a plain pipeline; what comes out is brought to unit length."""

    matrix: np.ndarray
    """[D, D]"""
    bias: np.ndarray | None
    """[D]; None for none."""


def write_module_form(retriever: FusedRetriever, folder: Path, *, with_backbone: bool | None = None) -> None:
    """Write a folder that ``SentenceTransformer(folder, trust_remote_code=True)`` and `load_sentence_transformer` read.

    The flag makes sentence-transformers import our class from the installed package; the folder holds no code.
    """
    backbone = text_backbone(retriever)
    retriever.save_pretrained(folder, with_backbone=with_backbone)
    write_settings(folder, [{"idx": 0, "name": "0", "path": "", "type": MODULE_CLASS}], prompts_of(backbone))


def write_plain_form(retriever: FusedRetriever, folder: Path) -> None:
    """Write a folder of Transformer, Pooling, Dense and Normalize modules, which needs neither us nor any flag.

    It gives the same vectors for texts within the backbone's limit; a longer text is cut there, not read in windows. Of
    an inner layer the transformer is cut behind it.

    Raises
    ------
    ServingError
        If these modules cannot say exactly what the system computes, or the transformer cannot be cut.
    """
    backbone = text_backbone(retriever)
    steps = plain_steps(retriever.system)
    if steps is None:
        raise ServingError(
            f"{retriever.name} has no plain form: that needs one layer, and linear maps that queries and pages share; "
            "leave plain out for the form with a module of ours"
        )
    (layer,) = set(retriever.layers)
    save_lower_layers(backbone, layer, folder)
    limit = {"max_seq_length": min(backbone.max_tokens("query"), backbone.max_tokens("page")), "do_lower_case": False}
    write_atomic(folder / "sentence_bert_config.json", json.dumps(limit, indent=2) + "\n")
    pooling = {
        "word_embedding_dimension": backbone.width,
        "pooling_mode": POOLING_NAMES[backbone.pooling if layer == backbone.n_layers else _inner_pooling(backbone)],
        "include_prompt": backbone.pipeline.include_prompt,
    }
    modules = [
        _module(0, "", "Transformer"),
        _module(1, "1_Pooling", "Pooling"),
        _module(2, "2_Normalize", "Normalize"),
    ]
    write_atomic(folder / "1_Pooling" / "config.json", json.dumps(pooling, indent=2) + "\n")
    (folder / "2_Normalize").mkdir(exist_ok=True)
    for step in steps:
        number = len(modules)
        modules += [
            _module(number, f"{number}_Dense", "Dense"),
            _module(number + 1, f"{number + 1}_Normalize", "Normalize"),
        ]
        _write_dense(folder / f"{number}_Dense", step)
        (folder / f"{number + 1}_Normalize").mkdir(exist_ok=True)
    write_settings(folder, modules, prompts_of(backbone))


def plain_steps(system: System) -> list[Linear] | None:
    """Return the linear steps on one layer's unit vector that a system is; None if it is more than that.

    What comes out of each step is brought to unit length.
    """
    if isinstance(system, OneLayer):
        return []
    if isinstance(system, SingleProbe) and len(system.weight) == 1:
        weight = system.weight.cpu().double().numpy()
        if system.kind == "base":
            return [Linear(np.diag(weight[0]), None)]
        return [Linear(projection_map(Probe(system.layers[0], system.kind, weight))[0], None)]
    if isinstance(system, MinerFusion):
        return _steps_of_miner(system)
    return _steps_of_fusion(system) if isinstance(system, Fusion) else None


def _steps_of_fusion(fusion: Fusion) -> list[Linear] | None:
    """``normalize(a normalize(m * M h) + b)`` of a fusion whose other layers weigh nothing."""
    weights = fusion.layer_weights.detach().cpu().double().numpy()
    read = np.flatnonzero(weights)
    if len(read) != 1 or fusion.query_map is not None or len(fusion.maps[read[0]]) != 1:
        return None
    place = int(read[0])
    matrix = fusion.maps[place][0].detach().cpu().double().numpy()
    mask = fusion.masks[place].cpu().double().numpy()
    bias = fusion.bias.detach().cpu().double().numpy()
    kept = mask[:, None] * (np.diag(matrix) if matrix.ndim == 1 else matrix)
    if not bias.any():
        return [Linear(np.sign(weights[place]) * kept, None)]
    return [Linear(kept, None), Linear(weights[place] * np.eye(len(bias)), bias)]


def _steps_of_miner(fusion: MinerFusion) -> list[Linear] | None:
    """``normalize(u * W (m * p * x) + b)`` of a fusion of one layer."""
    if len(fusion.layers) != 1 or fusion.pages_only or not fusion.unit_input or fusion.gates.shape[1] != 1:
        return None
    gate = (fusion.gates[0, 0] * fusion.masks[0]).cpu().double().numpy()
    u = np.broadcast_to(fusion.layer_vectors[0].detach().cpu().double().numpy(), gate.shape)
    w = np.eye(len(gate)) if fusion.kinds[0] == "base" else fusion.maps[0, 0].detach().cpu().double().numpy()
    bias = fusion.bias.detach().cpu().double().numpy()
    return [Linear(u[:, None] * w * gate, bias if bias.any() else None)]


def _inner_pooling(backbone: TextEncoder) -> str:
    return "mean" if backbone.layer_pooling == "mean" else backbone.pooling


def _module(number: int, path: str, kind: str) -> dict[str, Any]:
    return {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}


def _write_dense(folder: Path, step: Linear) -> None:
    width = len(step.matrix)
    settings = {
        "in_features": width,
        "out_features": width,
        "bias": step.bias is not None,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    tensors = {"linear.weight": step.matrix} | ({} if step.bias is None else {"linear.bias": step.bias})
    arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in tensors.items()}
    write_atomic(folder / "model.safetensors", save_safetensors(arrays))
    write_atomic(folder / "config.json", json.dumps(settings, indent=2) + "\n")


def write_settings(folder: Path, modules: Sequence[Mapping[str, Any]], prompts: Mapping[str, str]) -> None:
    """Write ``modules.json`` and ``config_sentence_transformers.json``."""
    settings = {"prompts": dict(prompts), "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_atomic(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")
    write_atomic(folder / MODULES, json.dumps(list(modules), indent=2) + "\n")


def prompts_of(backbone: TextEncoder) -> dict[str, str]:
    """Return the prompts of ``encode_query`` and ``encode_document``."""
    return {"query": backbone.query_prompt, "document": backbone.page_prompt}


def text_backbone(retriever: FusedRetriever) -> TextEncoder:
    """Return the backbone of a retriever that reads texts.

    Raises
    ------
    ServingError
        If it looks at pictures.
    """
    backbone = retriever.backbone
    if not isinstance(backbone, TextEncoder) or not retriever.reads.texts:
        raise ServingError(f"{backbone.name} reads pictures of pages; this export is for backbones that read texts")
    return backbone
