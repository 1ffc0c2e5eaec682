"""Which family a checkpoint belongs to, read from its own files; each family has a file of its own."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miner_diag.backbones.base import BackboneError, CheckpointError
from miner_diag.backbones.checkpoint import Checkpoint
from miner_diag.backbones.pipeline import is_adapter, read_json

EVERY = frozenset({"model", "device", "dtype"})
"""Options that every retriever honours."""
FOLDERS = EVERY | {"model_family"}
"""Options that every single-vector checkpoint in a folder honours."""
WORDS = frozenset({"max_tokens", "query_prompt"})
"""Options of retrievers that read queries."""
SEES_PAGES = FOLDERS | WORDS | {"pooling", "max_pixels", "page_prompt", "base_model", "trust_remote_code"}
"""Options of vision-language models; a base model belongs to an adapter, remote code to a folder that brings some."""
TWO_ENCODERS = FOLDERS | WORDS | {"trust_remote_code"}
"""Options of dual encoders, whose heads pool and whose page encoder sees pages at one size and no text."""


@dataclass(frozen=True)
class Family:
    """Retrievers that are loaded, prompted and pooled alike, and honour the same options."""

    name: str
    """What ``--model-family`` takes."""
    model_types: tuple[str, ...]
    """The ``model_type`` of their config.json."""
    sign: str
    """A pattern in what such a checkpoint says of itself; "" where the model type alone decides."""
    place: str
    """Module and class or function that makes it from a `Checkpoint`."""
    what: str
    """Which models these are."""
    honours: frozenset[str]
    """The fields of `LoadOptions` that have an effect; all others are refused."""

    def load(self, checkpoint: Checkpoint) -> Any:
        """Return the loaded retriever; its module is imported here."""
        module, _, name = self.place.partition(":")
        return getattr(importlib.import_module(f"miner_diag.backbones.{module}"), name)(checkpoint)


FAMILIES = (
    Family("qwen3_vl", ("qwen3_vl",), "", "qwen3_vl:Qwen3VLEmbedding", "Qwen3-VL-Embedding", SEES_PAGES),
    Family("gme", ("qwen2_vl",), "gme", "gme:GMEQwen2VL", "GME-Qwen2-VL", SEES_PAGES),
    Family("dse", ("qwen2_vl",), r"(^|[^a-z])dse([^a-z]|$)", "dse:DSEQwen2", "DSE-Qwen2", SEES_PAGES),
    Family(
        "biqwen2_5",
        ("qwen2_5_vl",),
        r"nomic-embed-multimodal|biqwen2",
        "biqwen2_5:BiQwen25",
        "nomic-embed-multimodal and other BiQwen2.5 adapters",
        SEES_PAGES,
    ),
    Family(
        "jina_v4",
        ("qwen2_5_vl", "jina_embeddings_v4"),
        r"jina[-_]?embeddings[-_]?v4",
        "jina_v4:JinaEmbeddingsV4",
        "jina-embeddings-v4, single vector",
        SEES_PAGES,
    ),
    Family(
        "nemotron_vl", ("llama_nemotron_vl",), "", "nemotron_vl:NemotronEmbedVL", "llama-nemotron-embed-vl", SEES_PAGES
    ),
    Family("modernvbert", ("modernvbert",), "", "modernvbert:BiModernVBERT", "ModernVBERT bi-encoders", SEES_PAGES),
    Family("clip", ("clip",), "", "clip:CLIPDualEncoder", "CLIP: a dual encoder", TWO_ENCODERS),
    Family(
        "siglip",
        ("siglip",),
        "",
        "siglip:SiglipDualEncoder",
        "SigLIP and fixed-size SigLIP 2: dual encoders",
        TWO_ENCODERS,
    ),
    Family(
        "siglip2",
        ("siglip2",),
        "",
        "siglip:Siglip2DualEncoder",
        "SigLIP 2 of any proportion: a dual encoder",
        TWO_ENCODERS | {"max_pixels"},
    ),
)
"""Every family of retrievers that look at pages."""

TEXT = Family(
    "text",
    (),
    "",
    "page_text:load_text_encoder",
    "any transformers or sentence-transformers text encoder; it reads the page's text",
    FOLDERS | WORDS | {"pooling", "reader", "page_prompt", "trust_remote_code"},
)
"""Text encoders in a folder."""

LATE_TEXT = Family(
    "text, late interaction",
    (),
    "",
    "late:late_text_encoder",
    "the token states of any text encoder; it reads the page's text",
    EVERY | WORDS | {"kept_tokens", "reader", "page_prompt", "trust_remote_code"},
)
"""Late-interaction partners of text encoders in a folder."""

COL = Family(
    "Col…ForRetrieval",
    (),
    "",
    "col_vision:ColVision",
    "ColPali, ColQwen2, ColModernVBERT: a vector for every token of the page's picture",
    EVERY | WORDS | {"page_prompt"},
)
"""Late-interaction checkpoints that are run by transformers' own classes."""

PROCESSORS = {
    "ColPaliForRetrieval": "ColPaliProcessor",
    "ColQwen2ForRetrieval": "ColQwen2Processor",
    "ColModernVBertForRetrieval": "ColModernVBertProcessor",
}
"""Late-interaction classes by the name in a checkpoint's ``architectures``, and their processors."""

BASE_TYPES = {"qwen2.5-vl": "qwen2_5_vl", "qwen2-vl": "qwen2_vl", "qwen3-vl": "qwen3_vl"}
"""In the name of an adapter's base model -> its model type."""

LATE = re.compile(r"^col(pali|qwen|modernvbert|idefics|smol|gemma)")
"""Model types of late-interaction retrievers."""


def late_architecture(folder: Path) -> str | None:
    """Return which of `PROCESSORS` a checkpoint's config.json names; None if it names none of them.

    Raises
    ------
    CheckpointError
        If the file is no configuration.
    """
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        named = json.loads(path.read_text(encoding="utf-8")).get("architectures") or []
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is no configuration: {error}") from error
    return next((name for name in named if name in PROCESSORS), None)


def model_type(folder: Path, base_model: Path | None = None) -> str:
    """Return the ``model_type`` that a checkpoint's config.json (of an adapter, its base model's) names; "" if none."""
    path = (base_model or folder) / "config.json"
    return str(read_json(path, dict).get("model_type", "")) if path.exists() else ""


def brings_code(folder: Path) -> bool:
    """Tell whether a checkpoint brings Python code along that could be run."""
    return next(folder.glob("*.py"), None) is not None


def family_named(name: str) -> Family:
    """Return the family of that name; "text" is that of text encoders.

    Raises
    ------
    BackboneError
        If there is none.
    """
    for family in (*FAMILIES, TEXT):
        if family.name == name:
            return family
    known = ", ".join(family.name for family in (*FAMILIES, TEXT))
    raise BackboneError(f"model_family must be one of {known}; got {name!r}")


def find_family(folder: Path, *, name: str = "", base_model: Path | None = None) -> Family:
    """Return a checkpoint's family; that of text encoders where no other one knows its model type.

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
    kind = model_type(folder, base_model)
    if base_model in (None, folder) and (folder / "config.json").exists():
        said += _says(read_json(folder / "config.json", dict))
    if is_adapter(folder):
        base = str(read_json(adapter, dict).get("base_model_name_or_path", ""))
        said.append(base)
        kind = kind or next((one for part, one in BASE_TYPES.items() if part in base.lower()), "")
        if kind == "qwen2_5_vl":
            said.append("biqwen2_5")  # what a bare adapter of Qwen2.5-VL is, unless it says otherwise
    if LATE.match(kind):
        raise CheckpointError(f"{folder} is a {kind}: many vectors a page; expected one vector a page")
    candidates = [family for family in FAMILIES if kind in family.model_types]
    text = " ".join(said).lower()
    signed = [family for family in candidates if family.sign and re.search(family.sign, text)]
    chosen = signed or [family for family in candidates if not family.sign]
    if len(chosen) == 1:
        return chosen[0]
    if candidates:
        either = "; ".join(f"--model-family {family.name} ({family.what})" for family in candidates)
        raise CheckpointError(
            f"{folder} is a {kind} checkpoint, which several retrievers are made of, and its files do not say "
            f"which it is; say it: {either}"
        )
    return TEXT


def _says(config: dict[str, Any]) -> list[str]:
    """Return the places where a configuration may name its model."""
    architectures = config.get("architectures") or []
    auto_map = config.get("auto_map") or {}
    return [str(config.get("_name_or_path", "")), *map(str, architectures), *map(str, auto_map.values())]
