"""What a checkpoint folder says about itself: its modules, pooling, prompts and limits."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from miner_diag.backbones.base import POOLINGS, CheckpointError, Pooling
from miner_diag.backbones.weight_files import check_files

logger = logging.getLogger(__name__)

TRANSFORMER_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""The files in which sentence-transformers keeps the limits of its Transformer module."""

SETTINGS = "config_sentence_transformers.json"
"""The file in which sentence-transformers keeps prompts, the score and the width of a vector."""

POOLING_NAMES: dict[str, Pooling] = {"lasttoken": "last", "mean": "mean", "cls": "cls"}
"""The name in a pooling configuration (sentence-transformers 5 and newer) -> ours."""

POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The flag in an older pooling configuration -> the newer name."""


@dataclass(frozen=True)
class TextPipeline:
    """How a text checkpoint turns a text into a vector, as its files state it."""

    transformer: Path
    """The folder with config.json, weights and tokenizer."""
    pooling: Pooling | None = None
    """How token states become one vector; None where no file states it."""
    include_prompt: bool = True
    """Whether the prompt's tokens are pooled too."""
    max_tokens: int | None = None
    """The limit for both sides, in tokens; None if none is stated."""
    max_query_tokens: int | None = None
    """The limit for queries, in tokens."""
    max_page_tokens: int | None = None
    """The limit for documents, in tokens."""
    lower_case: bool = False
    """Whether the text is lowercased before the tokenizer sees it."""
    query_prompt: str = ""
    """What is put before a query."""
    page_prompt: str = ""
    """What is put before a document."""


def read_pipeline(folder: Path | str) -> TextPipeline:
    """Read a transformers or sentence-transformers checkpoint folder.

    Parameters
    ----------
    folder : path
        The checkpoint, with ``modules.json`` (sentence-transformers) or ``config.json`` (transformers) in it.

    Raises
    ------
    CheckpointError
        If the folder is no checkpoint, a file is not JSON, or the pipeline holds a module, a pooling or a
        setting that would change the embedding and is not supported; the message names it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; expected a local transformers checkpoint")
    if is_adapter(folder):
        refuse_adapter(folder)
    modules = _modules(folder)
    transformer = folder / modules.get("Transformer", "")
    if not (transformer / "config.json").exists():
        raise CheckpointError(
            f"{transformer} holds no config.json; expected a checkpoint as saved by transformers' save_pretrained "
            "or sentence-transformers' save"
        )
    limits = _limits(transformer)
    pooling, include_prompt = _pooling(folder / modules["Pooling"]) if "Pooling" in modules else (None, True)
    check_score(folder, transformer, normalized="Normalize" in modules)
    query_prompt, page_prompt = _prompts(folder)
    return TextPipeline(
        transformer=transformer,
        pooling=pooling,
        include_prompt=include_prompt,
        max_tokens=limits.get("max_seq_length"),
        max_query_tokens=limits.get("query_length"),
        max_page_tokens=limits.get("document_length"),
        lower_case=bool(limits.get("do_lower_case")),
        query_prompt=query_prompt,
        page_prompt=page_prompt,
    )


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder holds an adapter alone: its settings, and no weights of a whole model."""
    has_weights = any(next(folder.glob(pattern), None) for pattern in ("model*.safetensors", "pytorch_model*.bin"))
    return (folder / "adapter_config.json").exists() and not has_weights


def refuse_adapter(folder: Path) -> NoReturn:
    """Say that a retriever takes whole models alone, and what to do with an adapter.

    Raises
    ------
    CheckpointError
        In any case.
    """
    raise CheckpointError(
        f"{folder} is an adapter (adapter_config.json), not a whole model; merge it into its base model "
        "(peft: model.merge_and_unload()), save that and pass its folder"
    )


def _modules(folder: Path) -> dict[str, str]:
    """Return module kind -> subfolder of a sentence-transformers pipeline; {} for a plain checkpoint."""
    path = folder / "modules.json"
    if not path.exists():
        return {}
    modules: dict[str, str] = {}
    for module in read_json(path, list):
        if not isinstance(module, dict):
            raise CheckpointError(f"{path} must list modules as objects with type and path; got {module!r}")
        dotted = str(module.get("type", ""))
        kind = dotted.rsplit(".", 1)[-1]
        if not dotted.startswith("sentence_transformers.") or kind not in ("Transformer", "Pooling", "Normalize"):
            raise CheckpointError(
                f"{path} puts the module {dotted!r} into the pipeline; supported are Transformer, Pooling and "
                "Normalize, because the embedding must be a pooled layer of the transformer itself. To diagnose the "
                "transformer without it, pass the transformer's own folder and --pooling"
            )
        if kind in modules and kind != "Normalize":
            raise CheckpointError(f"{path} names two {kind} modules; expected one")
        modules[kind] = str(module.get("path", ""))
    order = [kind for kind in modules if kind != "Normalize"]
    if order not in (["Transformer"], ["Transformer", "Pooling"]):
        raise CheckpointError(f"{path} lists the modules {list(modules)}; expected Transformer, Pooling, Normalize")
    return modules


def _limits(transformer: Path) -> dict[str, Any]:
    """Return the Transformer module's settings, having refused those that would change the embedding."""
    path = next((transformer / name for name in TRANSFORMER_FILES if (transformer / name).exists()), None)
    if path is None:
        return {}
    settings = {key: value for key, value in read_json(path, dict).items() if value not in (None, {}, [])}
    harmless = {
        "max_seq_length": int,
        "query_length": int,
        "document_length": int,
        "do_lower_case": bool,
        "unpad_inputs": bool,
    }
    for key, value in settings.items():
        if key in harmless and isinstance(value, harmless[key]):
            continue
        if key == "transformer_task" and value == "feature-extraction":
            continue
        if key == "module_output_name" and value == "token_embeddings":
            continue
        if key == "modality_config" and value == {
            "text": {"method": "forward", "method_output_name": "last_hidden_state"}
        }:
            continue
        if key in ("tokenizer_args", "processor_kwargs") and set(value) <= {"padding_side"}:
            continue
        raise CheckpointError(f"{path} sets {key} to {value!r}, which changes what is embedded and is not supported")
    return settings


def _pooling(folder: Path) -> tuple[Pooling | None, bool]:
    """Return (pooling, include_prompt) of a Pooling module's folder; pooling is None if it states none."""
    path = folder / "config.json"
    if not path.exists():
        return None, True
    config = read_json(path, dict)
    named = config.get("pooling_mode")
    if named is None:
        named = [name for flag, name in POOLING_FLAGS.items() if config.get(flag)]
    names = [named] if isinstance(named, str) else list(named)
    if not names:
        return None, True
    if len(names) > 1 or names[0] not in POOLING_NAMES:
        raise CheckpointError(
            f"{path} states the pooling {' + '.join(map(str, names))}; supported is one of {', '.join(POOLING_NAMES)} "
            f"(as --pooling: {', '.join(POOLINGS)})"
        )
    return POOLING_NAMES[names[0]], bool(config.get("include_prompt", True))


def check_score(folder: Path, transformer: Path, *, normalized: bool) -> None:
    """Check that the checkpoint scores as we do: by the cosine of whole vectors.

    Parameters
    ----------
    folder : path
        The checkpoint.
    transformer : path
        The folder of its transformer, whose configuration states the width.
    normalized : bool
        Whether its vectors have unit norm, so that their dot product is the cosine.

    Raises
    ------
    CheckpointError
        If its settings state another score, cut its vectors, or are those of another kind of model.
    """
    path = folder / SETTINGS
    if not path.exists():
        return
    config = read_json(path, dict)
    kind = config.get("model_type")
    if kind not in (None, "SentenceTransformer"):
        raise CheckpointError(
            f"{path} sets model_type to {kind!r}; expected a SentenceTransformer, whose embedding is one dense vector"
        )
    score = config.get("similarity_fn_name")
    if score not in (None, "cosine", "cos_sim") and not (normalized and score in ("dot", "dot_score")):
        raise CheckpointError(
            f"{path} sets similarity_fn_name to {score!r}, and we score by the cosine (dot is the same only behind a "
            "Normalize module, see modules.json); if the cosine is what you want to look at, set it to cosine there"
        )
    dim = config.get("truncate_dim")
    if dim is not None and dim != read_json(transformer / "config.json", dict).get("hidden_size"):
        raise CheckpointError(
            f"{path} sets truncate_dim to {dim!r}, which cuts the embedding, and we keep whole layers; if these are "
            "what you want to look at, set it to null there"
        )


def _prompts(folder: Path) -> tuple[str, str]:
    """Return the (query, page) prompts of sentence-transformers' encode_query and encode_document."""
    path = folder / SETTINGS
    if not path.exists():
        return "", ""
    config = read_json(path, dict)
    stated = config.get("prompts") or {}
    if not isinstance(stated, dict) or not all(isinstance(prompt, str | None) for prompt in stated.values()):
        raise CheckpointError(f"{path} sets prompts to {stated!r}; expected a text for each name")
    prompts = {name: prompt for name, prompt in stated.items() if prompt is not None}
    default = config.get("default_prompt_name")
    if default and prompts.get(default) and default not in ("query", "document", "passage", "corpus"):
        logger.warning(
            "%s has a default prompt %r that is neither the query's nor the document's; it is not used "
            "(give it with --query-prompt or --page-prompt)",
            path,
            default,
        )
    page = next((prompts[name] for name in ("document", "passage", "corpus") if name in prompts), "")
    return prompts.get("query", ""), page


def read_json(path: Path, expected: type) -> Any:
    """Read a JSON file that holds an `expected` (dict or list).

    Raises
    ------
    CheckpointError
        If it is not JSON, or holds something else.
    """
    check_files([path])
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, expected):
        raise CheckpointError(f"{path} must hold a JSON {expected.__name__}; got {type(content).__name__}")
    return content
