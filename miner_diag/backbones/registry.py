"""From the name a user gives to a loaded backbone."""

from __future__ import annotations

from pathlib import Path

from miner_diag.backbones.base import Backbone, Pooling, UnknownBackboneError
from miner_diag.backbones.reader import PageReader, ReaderKind, Render

EMBEDDED = {"page-text": "all-MiniLM-L6-v2 over the page's text; 7 hidden states, width 384, mean pooling"}
"""Backbones that come with the package: name -> what it is."""


def load_backbone(
    model: str = "page-text",
    *,
    pooling: Pooling | None = None,
    reader: ReaderKind = "auto",
    render: Render | None = None,
    device: str = "auto",
    dtype: str = "auto",
    max_tokens: int | None = None,
    query_prompt: str | None = None,
    page_prompt: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Backbone:
    """Load a frozen retriever; nothing is fetched from a hub.

    Parameters
    ----------
    model : str
        "page-text", or a local folder of a transformers or sentence-transformers text encoder.
    pooling : {"last", "mean", "cls"}, optional
        For a checkpoint whose files state none.
    reader : {"auto", "text-layer", "ocr"}
        Where a page's text comes from.
    render : callable, optional
        Draws a page for the reader; give ``corpus.render``.
    device : str
        "auto" (a GPU where there is one), "cpu", "cuda", "cuda:N".
    dtype : {"auto", "float32", "bfloat16"}
        Of the forward; "auto" is float32 for text encoders.
    max_tokens : int, optional
        Overrules the checkpoint's limit.
    query_prompt, page_prompt : str, optional
        Overrule the checkpoint's prompts.
    trust_remote_code : bool
        Run Python code a checkpoint brings along, with your rights.
    progress : bool
        Show bars, after two seconds, while pictures are read and texts tokenised.

    Raises
    ------
    UnknownBackboneError
        If `model` names nothing that is here; the message lists what there is.
    CheckpointError
        If the folder cannot be loaded whole.
    """
    from miner_diag.backbones.page_text import NAME, load_page_text
    from miner_diag.backbones.text_encoder import TextEncoder

    folder = Path(model).expanduser()
    if model != NAME and not folder.is_dir():
        raise UnknownBackboneError(_unknown(model))
    options = {
        "pooling": pooling, "reader": PageReader(reader, render, progress=progress), "device": device, "dtype": dtype,
        "max_tokens": max_tokens, "query_prompt": query_prompt, "page_prompt": page_prompt,
        "trust_remote_code": trust_remote_code,
    }  # fmt: skip
    return load_page_text(**options) if model == NAME else TextEncoder(folder, **options)  # type: ignore[arg-type]


def _unknown(model: str) -> str:
    there_is = "; ".join(f"{name} ({what})" for name, what in EMBEDDED.items())
    hub = ""
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        hub = (
            ". It looks like a hub id: hubs are not asked; download it where there is one (huggingface-cli download "
            f"{model} --local-dir FOLDER) and pass FOLDER"
        )
    return f"unknown model {model!r}; there is: {there_is}; or the path of a local checkpoint folder{hub}"
