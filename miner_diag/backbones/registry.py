"""From what a user says to a loaded retriever: one registry and one way for single vectors and late interaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miner_diag.backbones.base import Backbone
from miner_diag.backbones.checkpoint import Checkpoint
from miner_diag.backbones.errors import CheckpointError, UnknownBackboneError
from miner_diag.backbones.families import (
    FAMILIES,
    LATE_CLASSES,
    LATE_TEXT,
    TEXT,
    WINDOWS,
    brings_code,
    check_family,
    families_of,
    family_named,
    find_family,
    late_class,
    stated_type,
)
from miner_diag.backbones.hub import Source, find_source
from miner_diag.backbones.known import TASKS_WORDS, KnownModel, known_model
from miner_diag.backbones.options import LoadOptions
from miner_diag.backbones.page_text import bge_folder, minilm_folder
from miner_diag.backbones.pictures import PagePictures
from miner_diag.backbones.pipeline import is_adapter, read_json, read_pipeline, refuse_adapter
from miner_diag.backbones.reader import EXTRA, Render, can_read_pictures
from miner_diag.backbones.retriever import EVERY, WHY_NOT, Retriever

if TYPE_CHECKING:
    from miner_diag.backbones.late import LateBackbone

_TEXT_OPTIONS = EVERY | WINDOWS | {"max_tokens", "query_prompt", "page_prompt"}
_POOLINGS = {"pooling", "layer_pooling", "window_pooling"}

EMBEDDED = {
    retriever.name: retriever
    for retriever in (
        Retriever(
            "page-text",
            "all-MiniLM-L6-v2 over the page's text; 7 hidden states, width 384, mean pooling",
            "text_encoder:TextEncoder",
            _TEXT_OPTIONS | _POOLINGS | {"reader"},
            long_pages="windows",
            pooling="mean",
            weights=minilm_folder,
        ),
        Retriever(
            "page-text-bge",
            "bge-small-en-v1.5 over the page's text; 13 hidden states, width 384, cls pooling; fetched once (73 MB)",
            "text_encoder:TextEncoder",
            _TEXT_OPTIONS | _POOLINGS | {"reader"},
            long_pages="windows",
            pooling="cls",
            weights=bge_folder,
        ),
        Retriever(
            "page-vision",
            "the layers of page-text over what a small reader of our own makes out in the picture; no text layer",
            "page_vision.backbone:load_page_vision",
            _TEXT_OPTIONS | _POOLINGS,
            long_pages="windows",
            pooling="mean",
            weights=minilm_folder,
        ),
        Retriever(
            "page-text-late",
            "MaxSim over the token states of all-MiniLM-L6-v2 over the page's text; width 384",
            "late:late_text_encoder",
            _TEXT_OPTIONS | {"kept_tokens", "reader"},
            long_pages="windows",
            late=True,
            weights=minilm_folder,
        ),
        Retriever(
            "page-vision-late",
            "the same over what a small reader of our own makes out in the page's picture; no text layer",
            "late:late_page_vision",
            _TEXT_OPTIONS | {"kept_tokens"},
            long_pages="windows",
            late=True,
            weights=minilm_folder,
        ),
    )
}
"""The retrievers that come with the package, by name."""

RETRIEVERS = (*EMBEDDED.values(), *FAMILIES, TEXT, *LATE_CLASSES, LATE_TEXT)
"""The registry: every kind of retriever that can be loaded."""


def load_backbone(
    options: LoadOptions | str = "page-text", *, render: Render | None = None, progress: bool = True
) -> Backbone:
    """Load a frozen single-vector retriever: an embedded one, a local folder, or a hub id whose revision is pinned.

    Options are checked before weights are fetched or loaded.

    Parameters
    ----------
    options : LoadOptions or str
        Which retriever, and what overrules its own settings; a string is the model's name alone.
    render : callable, optional
        Draws a page; give ``corpus.render``. Retrievers that look at pages need it.
    progress : bool
        Show bars, after two seconds, while pictures are read and texts tokenised.

    Raises
    ------
    UnknownBackboneError
        If the model is nothing that is here or can be fetched, or a late-interaction model; the message says what
        there is, or what runs it.
    CheckpointError
        If the folder cannot be loaded whole.
    BackboneError
        If an option is given that this retriever does not honour; the option and the retriever are named.
    """
    return _load(_options(options), False, render, progress)


def load_late_backbone(
    options: LoadOptions | str = "page-text-late", *, render: Render | None = None, progress: bool = True
) -> LateBackbone:
    """Load a frozen late-interaction retriever; parameters and errors are those of :func:`load_backbone`.

    It is an embedded one, or a local folder or a hub id of a ColPali, ColQwen2 or ColModernVBERT checkpoint (told by
    its config's ``architectures``) or of a text encoder, whose last layer's token states are taken.
    """
    return _load(_options(options), True, render, progress)


def is_late(options: LoadOptions | str) -> bool:
    """Tell whether a model is made for late interaction: an embedded one, a known checkpoint, or a Col… checkpoint.

    A text encoder is not: both ways of loading take it.

    Raises
    ------
    UnknownBackboneError
        If the model is nothing that is here or can be fetched.
    """
    options = _options(options)
    by_name = _late_by_name(options.model)
    return bool(_late_by_files(_source(options.model, options.revision)) if by_name is None else by_name)


def _options(options: LoadOptions | str) -> LoadOptions:
    return LoadOptions(options) if isinstance(options, str) else options


def _load(options: LoadOptions, late: bool, render: Render | None, progress: bool) -> Any:
    pictures = PagePictures(render)
    by_name = _late_by_name(options.model)
    _check_kind(options.model, late, by_name)
    if options.model in EMBEDDED:
        retriever = EMBEDDED[options.model]
        retriever.check_honours(options, retriever.name, _without_effect(options, retriever, None))
        assert retriever.weights is not None
        return retriever.load(
            Checkpoint(
                retriever.weights(),
                retriever.name,
                options,
                pictures,
                long_pages=retriever.long_pages,
                progress=progress,
            )
        )
    if options.model_family is not None and not late:
        family_named(options.model_family)  # a family that does not exist is told before anything is fetched
    source = _source(options.model, options.revision)
    if by_name is None:
        _check_kind(options.model, late, _late_by_files(source))
    if source.hub_id and not (source.settings / "adapter_config.json").exists():
        # What the kind does not honour is refused before weights are fetched. An adapter's files are few, and only
        # when all are here is it certain that no whole model lies beside it.
        retriever = _kind_of(options, late, source, source.settings, None)
        unused = _poolings_unused(options, retriever, source.settings) | _protocol_unused(options.model, retriever)
        retriever.check_honours(options, _name(source, retriever), unused)
    folder = source.fetch(trust_remote_code=options.trust_remote_code)
    base = _base_source(options, folder)
    retriever = _kind_of(options, late, source, folder, base)
    name = _name(source, retriever)
    if options.model_family is not None and not late:
        check_family(retriever, folder, name, None if base is None else base.settings)
    if is_adapter(folder) and "base_model" not in retriever.honours:
        refuse_adapter(folder)
    retriever.check_honours(options, name, _not_here(options, retriever, source, folder, base))
    base_folder = None if base is None else base.fetch(trust_remote_code=options.trust_remote_code)
    changes = protocol_changes(options)
    return retriever.load(
        Checkpoint(folder, name, options, pictures, base_folder, retriever.long_pages, progress, changes)
    )


def _kind_of(options: LoadOptions, late: bool, source: Source, folder: Path, base: Source | None) -> Retriever:
    """Return the entry of the registry that loads a folder."""
    if late:
        return late_class(folder) or LATE_TEXT
    if options.model_family is not None:
        return family_named(options.model_family)
    if (known := _known(options.model)) is not None:
        return family_named(known.family)
    return find_family(folder, name=source.hub_id, base_model=None if base is None else base.settings)


def _name(source: Source, retriever: Retriever) -> str:
    """Return what tables call the retriever: the late-interaction partner of a text encoder is called otherwise."""
    return f"{source.name}-late" if retriever is LATE_TEXT else source.name


def _not_here(
    options: LoadOptions, retriever: Retriever, source: Source, folder: Path, base: Source | None
) -> dict[str, str]:
    """Return which options this very checkpoint does not honour although its kind does, and why."""
    reasons = _without_effect(options, retriever, folder)
    if not source.hub_id:
        reasons["revision"] = "its files lie in a local folder"
    if base is None:
        reasons["base_model"] = "it is a whole model and no adapter"
    loaded = [folder] if base is None else [folder, base.settings]
    if retriever in (TEXT, LATE_TEXT):
        loaded = [read_pipeline(folder).transformer]
    if not any(map(brings_code, loaded)):
        reasons["trust_remote_code"] = "its configurations name no Python code (auto_map) that would be run"
    return reasons


def _without_effect(options: LoadOptions, retriever: Retriever, folder: Path | None) -> dict[str, str]:
    """Return which options have no effect on this machine or beside the other options, and why."""
    reasons = _poolings_unused(options, retriever, folder) | _protocol_unused(options.model, retriever)
    if options.reader == "ocr" and not can_read_pictures():
        reasons["reader"] = f"RapidOCR is not installed ({EXTRA})"
    return reasons


def _poolings_unused(options: LoadOptions, retriever: Retriever, folder: Path | None) -> dict[str, str]:
    """Return why options of pooling are not honoured: where long items are cut, and under mean pooling."""
    reasons = {}
    if (options.long_pages or retriever.long_pages) != "windows":
        reason = "it cuts long pages and queries at its limit (--long-pages windows reads all of them)"
        reasons = {"window_overlap": reason, "window_pooling": reason}
    asked = options.layer_pooling is not None and "layer_pooling" in retriever.honours
    if asked and _pooling(options, retriever, folder) == "mean":
        reasons["layer_pooling"] = "it pools every layer as the mean over tokens, the final one too"
    return reasons


def _pooling(options: LoadOptions, retriever: Retriever, folder: Path | None) -> str | None:
    """Return how a retriever pools; only the configurations in `folder` are read, which an embedded one has not."""
    if options.pooling is not None:
        return options.pooling
    if folder is None:
        return retriever.pooling
    return read_pipeline(folder).pooling if retriever is TEXT else retriever.maker.defaults.pooling


def _protocol_unused(model: str, retriever: Retriever) -> dict[str, str]:
    """Return why another protocol than the authors' is not honoured, where no manifest states a difference."""
    known = _known(model)
    if known is None or known.family not in (retriever.name, *(retriever.model_types if retriever.late else ())):
        return {"protocol": WHY_NOT["protocol"]}
    run = known.protocol["mteb"]
    if run is None:
        return {"protocol": "its manifest says that mteb does not run it"}
    return {} if run.changes else {"protocol": "its manifest names no setting that mteb changes"}


def protocol_changes(options: LoadOptions) -> Mapping[str, str | int]:
    """Return the settings that the chosen protocol changes; empty where no manifest names one."""
    known = _known(options.model)
    run = None if known is None else known.protocol.get(options.protocol)
    return {} if run is None else run.changes


def with_task_words(options: LoadOptions, words: str) -> LoadOptions:
    """Return options with a task's own words before a query, where their protocol puts those there.

    Parameters
    ----------
    options : LoadOptions
        What loads a retriever. A prompt that is given stays.
    words : str
        What the task of mteb says of itself.
    """
    if options.query_prompt is not None or protocol_changes(options).get("query_prompt") != TASKS_WORDS:
        return options
    return options if words == TASKS_WORDS else replace(options, query_prompt=words)


def _source(model: str, revision: str | None) -> Source:
    known = _known(model)
    source = find_source(model, revision or (known.revision if known is not None else None))
    if source is None:
        raise UnknownBackboneError(_unknown(model))
    return source


def _base_source(options: LoadOptions, folder: Path) -> Source | None:
    """Return where an adapter's base model comes from; None where the folder is a whole model."""
    if not is_adapter(folder):
        return None
    stated = read_json(folder / "adapter_config.json", dict).get("base_model_name_or_path")
    model, known = options.base_model or str(stated or ""), _known(options.model)
    revision = known.base_revision if known is not None and model == known.base_model else None
    try:
        source = find_source(model, revision) if model else None
    except UnknownBackboneError as error:
        raise UnknownBackboneError(
            f"{folder} is an adapter of {model}, which is needed too: pass its folder with --base-model. {error}"
        ) from error
    if source is None:
        raise CheckpointError(
            f"{folder} is an adapter of {model or 'a model it does not name'}, which is no folder here; pass the base "
            "model's folder with --base-model"
        )
    return source


def _known(model: str) -> KnownModel | None:
    """Return the known checkpoint that a hub id or a folder's name means; None if there is none."""
    folder = Path(model).expanduser()
    return known_model(folder.resolve().name if folder.is_dir() else model)


def _late_by_name(model: str) -> bool | None:
    """Tell whether a name means late interaction; None where the name alone does not say."""
    if model in EMBEDDED:
        return EMBEDDED[model].late
    known = _known(model)
    return None if known is None else known.late


def _late_by_files(source: Source) -> bool | None:
    """Tell whether files are those of a late-interaction model; None for a text encoder, which both ways take."""
    if late_class(source.settings) is not None:
        return True
    return False if families_of(stated_type(source.settings)) else None


def _check_kind(model: str, late: bool, means_late: bool | None) -> None:
    """Check that a model is of the kind that is to be loaded: for late interaction or not."""
    if means_late and not late:
        raise UnknownBackboneError(
            f"{model!r} is a late-interaction model: many vectors a page; expected one vector a page. Run it with "
            f"python -m miner_diag.late --model {model}"
        )
    if means_late is False and late:
        raise UnknownBackboneError(
            f"{model!r} gives one vector a page; expected a late-interaction model: {_listed(late=True)}; or a "
            "ColPali, ColQwen2, ColModernVBERT or text encoder checkpoint. The other commands take it with --model"
        )


def _listed(*, late: bool) -> str:
    return "; ".join(f"{one.name} ({one.what})" for one in EMBEDDED.values() if one.late is late)


def _unknown(model: str) -> str:
    return (
        f"unknown model {model!r}; there is: {_listed(late=False)}; for late interaction: {_listed(late=True)}; or a "
        "hub id (miner-diag backbones lists known ones); or the path of a local checkpoint folder"
    )
