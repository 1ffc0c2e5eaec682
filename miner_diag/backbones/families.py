"""Which family a checkpoint belongs to, read from its own files; each family has a file of its own."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miner_diag.backbones.base import BackboneError, CheckpointError
from miner_diag.backbones.pipeline import is_adapter, read_json

if TYPE_CHECKING:
    from miner_diag.backbones.asked import Asked
    from miner_diag.backbones.base import Backbone


@dataclass(frozen=True)
class Family:
    """Checkpoints that are loaded, prompted and pooled alike."""

    name: str
    """What ``--model-family`` takes."""
    model_types: tuple[str, ...]
    """``model_type`` of their config.json."""
    sign: str
    """Pattern in what such a checkpoint says of itself; "" where the model type alone decides."""
    place: str
    """Module and class."""
    what: str
    """Which models these are."""

    def load(self, asked: Asked) -> Backbone:
        """Return the loaded backbone; the family's module is imported here."""
        module, _, name = self.place.partition(":")
        return getattr(importlib.import_module(f"miner_diag.backbones.{module}"), name)(asked)


FAMILIES = (
    Family("qwen3_vl", ("qwen3_vl",), "", "qwen3_vl:Qwen3VLEmbedding", "Qwen3-VL-Embedding"),
    Family("gme", ("qwen2_vl",), "gme", "gme:GMEQwen2VL", "GME-Qwen2-VL"),
    Family("dse", ("qwen2_vl",), r"(^|[^a-z])dse([^a-z]|$)", "dse:DSEQwen2", "DSE-Qwen2"),
    Family(
        "biqwen2_5",
        ("qwen2_5_vl",),
        r"nomic-embed-multimodal|biqwen2",
        "biqwen2_5:BiQwen25",
        "nomic-embed-multimodal and other BiQwen2.5 adapters",
    ),
    Family(
        "jina_v4",
        ("qwen2_5_vl", "jina_embeddings_v4"),
        r"jina[-_]?embeddings[-_]?v4",
        "jina_v4:JinaEmbeddingsV4",
        "jina-embeddings-v4, single vector",
    ),
    Family("nemotron_vl", ("llama_nemotron_vl",), "", "nemotron_vl:NemotronEmbedVL", "llama-nemotron-embed-vl"),
    Family("modernvbert", ("modernvbert",), "", "modernvbert:BiModernVBERT", "ModernVBERT bi-encoders"),
    Family("clip", ("clip",), "", "clip:CLIPDualEncoder", "CLIP: two towers"),
    Family("siglip", ("siglip",), "", "siglip:SiglipDualEncoder", "SigLIP and fixed-size SigLIP 2: two towers"),
    Family("siglip2", ("siglip2",), "", "siglip:Siglip2DualEncoder", "SigLIP 2 of any proportion: two towers"),
)
"""Every family of retrievers that look at pages."""

BASE_TYPES = {"qwen2.5-vl": "qwen2_5_vl", "qwen2-vl": "qwen2_vl", "qwen3-vl": "qwen3_vl"}
"""In the name of an adapter's base model -> its model type."""

LATE = re.compile(r"^col(pali|qwen|modernvbert|idefics|smol|gemma)")
"""Model types of late-interaction retrievers."""


def family_named(name: str) -> Family:
    """Return the family of that name.

    Raises
    ------
    BackboneError
        If there is none.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise BackboneError(f"model_family must be one of {known}; got {name!r}")


def find_family(folder: Path, *, name: str = "", base_model: Path | None = None) -> Family | None:
    """Return a checkpoint's family; None for a text encoder.

    Parameters
    ----------
    folder : path
        The checkpoint, or an adapter (then the model type is its base model's).
    name : str
        Its hub id, where it has one.
    base_model : path, optional
        Folder of an adapter's base model.

    Raises
    ------
    CheckpointError
        If several families share the model type and nothing tells which it is, or it has many vectors a page.
    """
    said = [name, folder.resolve().name]
    adapter = folder / "adapter_config.json"
    config_file = (base_model or folder) / "config.json"
    model_type = ""
    if config_file.exists():
        config = read_json(config_file, dict)
        model_type = str(config.get("model_type", ""))
        if config_file.parent == folder:
            said += _says(config)
    if is_adapter(folder):
        base = str(read_json(adapter, dict).get("base_model_name_or_path", ""))
        said.append(base)
        model_type = model_type or next((kind for part, kind in BASE_TYPES.items() if part in base.lower()), "")
        if model_type == "qwen2_5_vl":
            said.append("biqwen2_5")  # what a bare adapter of Qwen2.5-VL is, unless it says otherwise
    if LATE.match(model_type):
        raise CheckpointError(f"{folder} is a {model_type}: many vectors a page; expected one vector a page")
    candidates = [family for family in FAMILIES if model_type in family.model_types]
    text = " ".join(said).lower()
    signed = [family for family in candidates if family.sign and re.search(family.sign, text)]
    chosen = signed or [family for family in candidates if not family.sign]
    if len(chosen) == 1:
        return chosen[0]
    if candidates:
        either = "; ".join(f"--model-family {family.name} ({family.what})" for family in candidates)
        raise CheckpointError(
            f"{folder} is a {model_type} checkpoint, which several retrievers are made of, and its files do not say "
            f"which it is; say it: {either}"
        )
    return None


def _says(config: dict[str, Any]) -> list[str]:
    """Return the places where a configuration may name its model."""
    architectures = config.get("architectures") or []
    auto_map = config.get("auto_map") or {}
    return [str(config.get("_name_or_path", "")), *map(str, architectures), *map(str, auto_map.values())]
