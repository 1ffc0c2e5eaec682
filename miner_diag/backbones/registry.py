"""From the name a user gives to a loaded backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from miner_diag.backbones.base import Backbone, CheckpointError, Pooling, UnknownBackboneError
from miner_diag.backbones.late_registry import EMBEDDED_LATE
from miner_diag.backbones.pipeline import is_adapter, read_json
from miner_diag.backbones.reader import PageReader, ReaderKind, Render

EMBEDDED = {
    "page-text": "all-MiniLM-L6-v2 over the page's text; 7 hidden states, width 384, mean pooling",
    "page-vision": "the same layers over what a small reader of our own makes out in the page's picture; no text layer",
}
"""Backbones that come with the package: name -> what it is."""


def load_backbone(
    model: str = "page-text",
    *,
    model_family: str | None = None,
    revision: str | None = None,
    base_model: str | None = None,
    pooling: Pooling | None = None,
    reader: ReaderKind = "auto",
    render: Render | None = None,
    device: str = "auto",
    dtype: str = "auto",
    max_tokens: int | None = None,
    max_pixels: int | None = None,
    query_prompt: str | None = None,
    page_prompt: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Backbone:
    """Load a frozen retriever: an embedded one, a local folder, or a hub id whose revision is pinned.

    Parameters
    ----------
    model : str
        "page-text", "page-vision", a local folder, or a hub id (owner/name), which is fetched once where a hub
        answers.
    model_family : str, optional
        For a checkpoint whose files do not say which retriever it is, see :mod:`miner_diag.backbones.families`;
        "text" makes it a text encoder.
    revision : str, optional
        Commit hash of a hub id; the known checkpoint's own if not given.
    base_model : str, optional
        Folder or hub id of the model that an adapter belongs to; the one its files name if not given.
    pooling : {"last", "mean", "cls"}, optional
        For a checkpoint whose files state none.
    reader : {"auto", "text-layer", "ocr"}
        Where a page's text comes from, for retrievers of text.
    render : callable, optional
        Draws a page; give ``corpus.render``. Retrievers that look at pages need it.
    device : str
        "auto" (a GPU where there is one), "cpu", "cuda", "cuda:N".
    dtype : {"auto", "float32", "bfloat16"}
        Of the forward; "auto" is float32, for vision-language models on a GPU bfloat16.
    max_tokens : int, optional
        Overrules the checkpoint's limit.
    max_pixels : int, optional
        Overrules the family's pixel budget of a page.
    query_prompt, page_prompt : str, optional
        Overrule the checkpoint's prompts.
    trust_remote_code : bool
        Run Python code a checkpoint brings along, with your rights.
    progress : bool
        Show bars, after two seconds, while pictures are read and texts tokenised.

    Raises
    ------
    UnknownBackboneError
        If `model` names nothing that is here or can be fetched, or a late-interaction model; the message says what
        there is, or what runs it.
    CheckpointError
        If the folder cannot be loaded whole.
    """
    from miner_diag.backbones import page_text
    from miner_diag.backbones.page_vision import backbone as page_vision
    from miner_diag.backbones.text_encoder import TextEncoder

    read: dict[str, Any] = {
        "pooling": pooling,
        "device": device,
        "dtype": dtype,
        "max_tokens": max_tokens,
        "query_prompt": query_prompt,
        "page_prompt": page_prompt,
        "trust_remote_code": trust_remote_code,
    }
    if model == page_vision.NAME:
        return page_vision.load_page_vision(reader=reader, render=render, progress=progress, **read)
    read["reader"] = PageReader(reader, render, progress=progress)
    if model == page_text.NAME:
        return page_text.load_page_text(**read)
    from miner_diag.backbones.asked import Asked
    from miner_diag.backbones.families import family_named, find_family
    from miner_diag.backbones.known import known_model
    from miner_diag.backbones.pictures import PagePictures

    local = Path(model).expanduser()
    known = known_model(local.resolve().name if local.is_dir() else model)
    if model in EMBEDDED_LATE or (known is not None and known.late):
        runs = model if model in EMBEDDED_LATE or local.is_dir() else "FOLDER, where FOLDER is a download of it"
        raise UnknownBackboneError(
            f"{model!r} is a late-interaction model: many vectors a page; expected one vector a page. Run it with "
            f"python -m miner_diag.late --model {runs}"
        )
    folder, name = _folder(model, revision, trust_remote_code)
    base = _base(folder, base_model, known.base_revision if known else None)
    if model_family == "text":
        family = None
    elif model_family is not None:
        family = family_named(model_family)
    elif known is not None:
        family = family_named(known.family)
    else:
        family = find_family(folder, name=name, base_model=base)
    if family is None:
        return TextEncoder(folder, name=name, **read)
    return family.load(
        Asked(
            folder,
            name,
            PagePictures(render),
            pooling=pooling,
            device=device,
            dtype=dtype,
            max_tokens=max_tokens,
            max_pixels=max_pixels,
            query_prompt=query_prompt,
            page_prompt=page_prompt,
            base_model=base,
            trust_remote_code=trust_remote_code,
            progress=progress,
        )
    )


def _folder(model: str, revision: str | None, trust_remote_code: bool) -> tuple[Path, str]:
    """Return a checkpoint's folder, fetched where it is a hub id, and its name for tables."""
    from miner_diag.backbones.hub import fetch, looks_like_hub_id
    from miner_diag.backbones.known import known_model

    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder, folder.resolve().name
    if not looks_like_hub_id(model):
        raise UnknownBackboneError(_unknown(model))
    known = known_model(model)
    pinned = revision or (known.revision if known is not None else None)
    return fetch(model, pinned, trust_remote_code=trust_remote_code), model.rsplit("/", 1)[-1]


def _base(folder: Path, asked: str | None, revision: str | None) -> Path | None:
    """Return the folder of an adapter's base model; None where the folder is a whole model."""
    adapter = folder / "adapter_config.json"
    if not is_adapter(folder):
        return None
    from miner_diag.backbones.hub import fetch, looks_like_hub_id

    named = asked or str(read_json(adapter, dict).get("base_model_name_or_path") or "")
    if Path(named).expanduser().is_dir():
        return Path(named).expanduser()
    if not looks_like_hub_id(named):
        raise CheckpointError(
            f"{folder} is an adapter of {named or 'a model it does not name'}, which is no folder here; pass the base "
            "model's folder with --base-model"
        )
    try:
        return fetch(named, revision)
    except UnknownBackboneError as error:
        raise UnknownBackboneError(
            f"{folder} is an adapter of {named}, which is needed too: pass its folder with --base-model. {error}"
        ) from error


def _unknown(model: str) -> str:
    there_is = "; ".join(f"{name} ({what})" for name, what in EMBEDDED.items())
    return (
        f"unknown model {model!r}; there is: {there_is}; or a hub id (miner-diag backbones lists known ones); or the "
        "path of a local checkpoint folder"
    )
