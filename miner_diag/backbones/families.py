"""Which family a checkpoint belongs to, read from its own files; each family has a file of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miner_diag.backbones.errors import BackboneError, CheckpointError
from miner_diag.backbones.options import Pooling
from miner_diag.backbones.pipeline import is_adapter, read_json
from miner_diag.backbones.retriever import EVERY, Retriever

CHECKPOINT = EVERY | {"revision", "max_tokens", "query_prompt"}
"""The options that every checkpoint in a folder or on a hub honours."""
ONE_VECTOR = CHECKPOINT | {"model_family"}
"""The options that every checkpoint with one vector a page honours."""
VISION_LANGUAGE = ONE_VECTOR | {"pooling", "layer_pooling", "max_pixels", "page_prompt", "protocol"}
"""The options of vision-language models."""
WINDOWS = frozenset({"long_pages", "window_overlap"})
"""The options of retrievers that can read a long text in windows."""
CODE = frozenset({"trust_remote_code"})
"""The option of retrievers that can run the Python code of a checkpoint."""


@dataclass(frozen=True)
class FamilyDefaults:
    """What the authors of a vision-language family do; the user can overrule all but the fewest pixels."""

    pooling: Pooling
    """How token states become one vector."""
    query_prompt: str
    """The instruction or prefix of a query."""
    page_prompt: str
    """The instruction or the words beside the picture of a page."""
    max_tokens: int
    """The largest number of tokens of a query, template included."""
    min_pixels: int
    """The smallest number of pixels of a page."""
    max_pixels: int
    """The largest number of pixels of a page."""
    query_closing: str | None = None
    """What closes a query's message, where that differs between protocols; None where the family fixes it."""
    page_closing: str | None = None
    """What closes a page's message, likewise."""


FAMILIES = (
    Retriever(
        "qwen3_vl",
        "Qwen3-VL-Embedding",
        "qwen3_vl:Qwen3VLEmbedding",
        VISION_LANGUAGE | CODE,
        model_types=("qwen3_vl",),
    ),
    Retriever(
        "eager",
        "eager-embed",
        "eager:EagerEmbed",
        VISION_LANGUAGE | CODE,
        model_types=("qwen3_vl",),
        sign=r"eager[-_]?embed",
    ),
    Retriever("gme", "GME-Qwen2-VL", "gme:GMEQwen2VL", VISION_LANGUAGE | CODE, model_types=("qwen2_vl",), sign="gme"),
    Retriever(
        "dse",
        "DSE-Qwen2",
        "dse:DSEQwen2",
        VISION_LANGUAGE | CODE,
        model_types=("qwen2_vl",),
        sign=r"(^|[^a-z])dse([^a-z]|$)",
    ),
    Retriever(
        "biqwen2_5",
        "nomic-embed-multimodal and other BiQwen2.5 adapters",
        "biqwen2_5:BiQwen25",
        VISION_LANGUAGE | CODE | {"base_model"},
        model_types=("qwen2_5_vl",),
        sign=r"nomic-embed-multimodal|biqwen2",
    ),
    Retriever(
        "jina_v4",
        "jina-embeddings-v4, single vector",
        "jina_v4:JinaEmbeddingsV4",
        VISION_LANGUAGE,
        model_types=("qwen2_5_vl", "jina_embeddings_v4"),
        sign=r"jina[-_]?embeddings[-_]?v4",
    ),
    Retriever(
        "moca",
        "MoCa: Qwen2.5-VL with bidirectional attention",
        "moca:MoCa",
        VISION_LANGUAGE | CODE,
        model_types=("qwen2_5_vl",),
        sign=r"(^|[^a-z])moca([^a-z]|$)",
    ),
    Retriever(
        "nemotron_vl",
        "llama-nemotron-embed-vl",
        "nemotron_vl:NemotronEmbedVL",
        VISION_LANGUAGE,
        model_types=("llama_nemotron_vl",),
    ),
    Retriever(
        "modernvbert",
        "ModernVBERT bi-encoders",
        "modernvbert:BiModernVBERT",
        VISION_LANGUAGE | CODE,
        model_types=("modernvbert",),
    ),
    Retriever("clip", "CLIP: a dual encoder", "clip:CLIPDualEncoder", ONE_VECTOR | CODE, model_types=("clip",)),
    Retriever(
        "siglip",
        "SigLIP and fixed-size SigLIP 2: dual encoders",
        "siglip:SiglipDualEncoder",
        ONE_VECTOR | CODE,
        model_types=("siglip",),
    ),
    Retriever(
        "siglip2",
        "SigLIP 2 of any proportion: a dual encoder",
        "siglip:Siglip2DualEncoder",
        ONE_VECTOR | CODE | {"max_pixels"},
        model_types=("siglip2",),
    ),
)
"""The families of retrievers that look at pages and give one vector a page."""

TEXT = Retriever(
    "text",
    "any transformers or sentence-transformers text encoder; it reads the page's text",
    "text_encoder:TextEncoder",
    ONE_VECTOR | CODE | WINDOWS | {"pooling", "layer_pooling", "reader", "page_prompt", "window_pooling"},
)
"""Text encoders."""

LATE_TEXT = Retriever(
    "text-late",
    "late interaction over the last layer of any text encoder",
    "late:late_text_encoder",
    CHECKPOINT | CODE | WINDOWS | {"kept_tokens", "reader", "page_prompt"},
    late=True,
)
"""Late-interaction partners of text encoders."""

LATE_CLASSES = (
    Retriever(
        "ColPaliForRetrieval",
        "ColPali, through transformers' own class",
        "col_vision:ColVision",
        CHECKPOINT | {"page_prompt", "protocol"},
        late=True,
        model_types=("colpali",),
    ),
    Retriever(
        "ColQwen2ForRetrieval",
        "ColQwen2, through transformers' own class",
        "col_vision:ColVision",
        CHECKPOINT | {"page_prompt"},
        late=True,
        model_types=("colqwen2",),
    ),
    Retriever(
        "ColModernVBertForRetrieval",
        "ColModernVBERT, through transformers' own class",
        "col_vision:ColVision",
        CHECKPOINT | {"page_prompt"},
        late=True,
        model_types=("colmodernvbert",),
    ),
)
"""Late-interaction models, each named as its class in a checkpoint's ``architectures``."""

BASE_TYPES = {"qwen2.5-vl": "qwen2_5_vl", "qwen2-vl": "qwen2_vl", "qwen3-vl": "qwen3_vl"}
"""A part of the name of an adapter's base model -> the base model's type."""

LATE_TYPES = re.compile(r"^col(pali|qwen|modernvbert|idefics|smol|gemma)")
"""The model types of late-interaction models, of classes that are not known here too."""

CODE_CLASSES = ("AutoConfig", "AutoModel", "AutoTokenizer")
"""What of a checkpoint's own Python code would be run."""


def family_named(name: str) -> Retriever:
    """Return the family of that name; "text" is that of text encoders.

    Raises
    ------
    BackboneError
        If there is none; the message lists what there is.
    """
    for family in (*FAMILIES, TEXT):
        if family.name == name:
            return family
    known = ", ".join(family.name for family in (*FAMILIES, TEXT))
    raise BackboneError(f"model_family must be one of {known}; got {name!r}")


def late_class(folder: Path) -> Retriever | None:
    """Return the late-interaction model that a checkpoint's config.json names; None if it names none.

    Raises
    ------
    CheckpointError
        If the file is no configuration, or it is a late-interaction model whose class is not known here.
    """
    config = read_config(folder)
    named = config.get("architectures") or []
    for retriever in LATE_CLASSES:
        if retriever.name in named:
            return retriever
    model_type = str(config.get("model_type", ""))
    if LATE_TYPES.match(model_type):
        known = ", ".join(retriever.name for retriever in LATE_CLASSES)
        raise CheckpointError(
            f"{folder} is a {model_type}: many vectors a page; its config.json must name one of {known} as its "
            f"architecture; it names {', '.join(map(str, named)) or 'none'}"
        )
    return None


def find_family(folder: Path, *, name: str = "", base_model: Path | None = None) -> Retriever:
    """Return a checkpoint's family; that of text encoders where no other one has its model type.

    Parameters
    ----------
    folder : path
        The checkpoint, or an adapter (then the model type is its base model's).
    name : str
        The hub id, where it has one.
    base_model : path, optional
        The folder of an adapter's base model.

    Raises
    ------
    CheckpointError
        If several families share the model type and nothing tells which it is, or it has many vectors a page.
    """
    hints = [name, folder.resolve().name]
    model_type = stated_type(folder, base_model)
    if base_model in (None, folder):
        hints += _names_in(read_config(folder))
    if is_adapter(folder):
        base = str(read_json(folder / "adapter_config.json", dict).get("base_model_name_or_path", ""))
        hints.append(base)
        model_type = model_type or next((kind for part, kind in BASE_TYPES.items() if part in base.lower()), "")
        if model_type == "qwen2_5_vl":
            hints.append("biqwen2_5")  # what a bare adapter of Qwen2.5-VL is, unless it says otherwise
    if LATE_TYPES.match(model_type):
        raise CheckpointError(f"{folder} is a {model_type}: many vectors a page; expected one vector a page")
    candidates = families_of(model_type)
    text = " ".join(hints).lower()
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
    return TEXT


def check_family(family: Retriever, folder: Path, name: str, base_model: Path | None = None) -> None:
    """Check that a checkpoint can be of the family that the user names; a type of its own code may be anything.

    Raises
    ------
    BackboneError
        If the family is made of models of another type, or takes no adapters and this is one.
    """
    if is_adapter(folder) and "base_model" not in family.honours:
        raise BackboneError(
            f"--model-family {family.name} does not fit {name}, which is an adapter (adapter_config.json); "
            f"{family.name} takes whole models. Leave it out, or merge the adapter (peft: model.merge_and_unload())"
        )
    model_type = stated_type(folder, base_model)
    if not family.model_types or not model_type or model_type in family.model_types:
        return
    if families_of(model_type) or not brings_code(folder):
        fitting = ", ".join(one.name for one in (*families_of(model_type), TEXT))
        raise BackboneError(
            f"--model-family {family.name} does not fit {name}, whose config.json states the model type {model_type}; "
            f"{family.name} is made of {' or '.join(family.model_types)}. Leave it out, or name one of: {fitting}"
        )


def families_of(model_type: str) -> list[Retriever]:
    """Return the families that are made of models of this type."""
    return [family for family in FAMILIES if model_type in family.model_types]


def stated_type(folder: Path, base_model: Path | None = None) -> str:
    """Return the ``model_type`` in a checkpoint's config.json, or in that of its base model; "" if none is there."""
    return str(read_config(base_model or folder).get("model_type", ""))


def brings_code(folder: Path) -> bool:
    """Tell whether a checkpoint's configurations name Python code for what is loaded of it."""
    for name in ("config.json", "tokenizer_config.json"):
        auto_map = read_config(folder, name).get("auto_map") or {}
        # older tokenizers list their classes without saying what each is
        if not isinstance(auto_map, dict) or any(kind in auto_map for kind in CODE_CLASSES):
            return True
    return False


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Return the content of one of a checkpoint's configurations; {} where the file is not there.

    Raises
    ------
    CheckpointError
        If the file is no configuration.
    """
    path = folder / name
    return read_json(path, dict) if path.is_file() else {}


def _names_in(config: dict[str, Any]) -> list[str]:
    """Return the places where a configuration may name its model."""
    architectures = config.get("architectures") or []
    auto_map = config.get("auto_map") or {}
    return [str(config.get("_name_or_path", "")), *map(str, architectures), *map(str, auto_map.values())]
