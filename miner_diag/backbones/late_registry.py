"""From the name a user gives to a loaded late-interaction retriever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from miner_diag.backbones.base import UnknownBackboneError
from miner_diag.backbones.late import Kept, LastLayerTokens, LateBackbone
from miner_diag.backbones.reader import PageReader, ReaderKind, Render

EMBEDDED_LATE = {
    "page-text-late": "MaxSim over the token states of all-MiniLM-L6-v2 over the page's text; width 384",
    "page-vision-late": "the same over what a small reader of our own makes out in the page's picture; no text layer",
}
"""Late-interaction retrievers that come with the package: name -> what it is."""


def load_late_backbone(
    model: str = "page-text-late",
    *,
    keep: Kept = "text",
    reader: ReaderKind = "auto",
    render: Render | None = None,
    device: str = "auto",
    dtype: str = "auto",
    max_tokens: int | None = None,
    query_prompt: str | None = None,
    page_prompt: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> LateBackbone:
    """Load a frozen late-interaction retriever; nothing is fetched from a hub.

    Parameters
    ----------
    model : str
        "page-text-late", "page-vision-late", or a local folder of a ColPali, ColQwen2 or ColModernVBERT checkpoint
        (told by its config's ``architectures``) or of a text encoder, whose last layer's token states are taken.
    keep : {"all", "text"}
        Which tokens of a text encoder take part; the default was settled on the validation split of debian-docs-small,
        where it was not worse on hidden or verbatim queries. A Col… checkpoint takes all, as it was trained to.
    reader, render, device, dtype, max_tokens, query_prompt, page_prompt, trust_remote_code, progress
        As for :func:`~miner_diag.backbones.registry.load_backbone`. A Col… checkpoint reads the picture and is run by
        transformers' own code: it has no use for `reader` and `trust_remote_code`; "auto" runs it in bfloat16 on a GPU.

    Raises
    ------
    UnknownBackboneError
        If `model` names nothing that is here; the message lists what there is.
    CheckpointError
        If the folder cannot be loaded whole.
    """
    from miner_diag.backbones.col_vision import ColVision, late_architecture
    from miner_diag.backbones.page_text import load_page_text
    from miner_diag.backbones.page_vision.backbone import load_page_vision
    from miner_diag.backbones.pipeline import read_pipeline
    from miner_diag.backbones.text_encoder import TextEncoder

    folder = Path(model).expanduser()
    embedded = model in EMBEDDED_LATE
    if not embedded and not folder.is_dir():
        raise UnknownBackboneError(_unknown(model))
    if not embedded and late_architecture(folder) is not None:
        return ColVision(
            folder,
            render=render,
            device=device,
            dtype=dtype,
            max_tokens=max_tokens,
            query_prompt=query_prompt,
            page_prompt=page_prompt,
        )
    options: dict[str, Any] = {
        "device": device,
        "dtype": dtype,
        "max_tokens": max_tokens,
        "query_prompt": query_prompt,
        "page_prompt": page_prompt,
        "trust_remote_code": trust_remote_code,
    }
    if model == "page-vision-late":
        return LastLayerTokens(load_page_vision(reader=reader, render=render, progress=progress, **options), keep=keep)
    options["reader"] = PageReader(reader, render, progress=progress)
    if embedded:
        return LastLayerTokens(load_page_text(**options), keep=keep)
    stated = read_pipeline(folder).pooling  # nothing is pooled here, but a checkpoint without any is refused elsewhere
    return LastLayerTokens(TextEncoder(folder, pooling=stated or "mean", **options), keep=keep)


def _unknown(model: str) -> str:
    there_is = "; ".join(f"{name} ({what})" for name, what in EMBEDDED_LATE.items())
    return (
        f"unknown late-interaction model {model!r}; there is: {there_is}; or the path of a local folder with a "
        "ColPali, ColQwen2, ColModernVBERT or text encoder checkpoint. Hubs are not asked: download a checkpoint where "
        "there is one (huggingface-cli download ID --local-dir FOLDER) and pass FOLDER"
    )
