"""From what a user says to a loaded retriever: one way for single-vector and late-interaction retrievers."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miner_diag.backbones.base import Backbone, BackboneError, CheckpointError, UnknownBackboneError
from miner_diag.backbones.checkpoint import Checkpoint
from miner_diag.backbones.families import (
    COL,
    EVERY,
    LATE_TEXT,
    WORDS,
    Family,
    brings_code,
    family_named,
    find_family,
    late_architecture,
    model_type,
)
from miner_diag.backbones.options import LoadOptions
from miner_diag.backbones.pictures import PagePictures
from miner_diag.backbones.pipeline import is_adapter, read_json
from miner_diag.backbones.reader import Render

if TYPE_CHECKING:
    from miner_diag.backbones.known import KnownModel
    from miner_diag.backbones.late import LateBackbone

EMBEDDED = {
    "page-text": Family(
        "page-text",
        (),
        "",
        "page_text:load_text_encoder",
        "all-MiniLM-L6-v2 over the page's text; 7 hidden states, width 384, mean pooling",
        EVERY | WORDS | {"pooling", "reader", "page_prompt"},
    ),
    "page-vision": Family(
        "page-vision",
        (),
        "",
        "page_vision.backbone:load_page_vision",
        "the same layers over what a small reader of our own makes out in the page's picture; no text layer",
        EVERY | WORDS | {"pooling", "page_prompt"},
    ),
}
"""Single-vector retrievers that come with the package, by name."""

EMBEDDED_LATE = {
    "page-text-late": Family(
        "page-text-late",
        (),
        "",
        "late:late_page_text",
        "MaxSim over the token states of all-MiniLM-L6-v2 over the page's text; width 384",
        EVERY | WORDS | {"kept_tokens", "reader", "page_prompt"},
    ),
    "page-vision-late": Family(
        "page-vision-late",
        (),
        "",
        "late:late_page_vision",
        "the same over what a small reader of our own makes out in the page's picture; no text layer",
        EVERY | WORDS | {"kept_tokens", "page_prompt"},
    ),
}
"""Late-interaction retrievers that come with the package, by name."""


def load_backbone(
    options: LoadOptions | str = "page-text", *, render: Render | None = None, progress: bool = True
) -> Backbone:
    """Load a frozen single-vector retriever: an embedded one, a local folder, or a hub id whose revision is pinned.

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
    options = LoadOptions(options) if isinstance(options, str) else options
    if is_late(options):
        local = Path(options.model).expanduser().is_dir()
        runs = options.model if options.model in EMBEDDED_LATE or local else "FOLDER, where FOLDER is a download of it"
        raise UnknownBackboneError(
            f"{options.model!r} is a late-interaction model: many vectors a page; expected one vector a page. Run it "
            f"with python -m miner_diag.late --model {runs}"
        )
    return _load(options, EMBEDDED, render, progress)


def load_late_backbone(
    options: LoadOptions | str = "page-text-late", *, render: Render | None = None, progress: bool = True
) -> LateBackbone:
    """Load a frozen late-interaction retriever; parameters and errors as of :func:`load_backbone`.

    It is an embedded one, or a local folder or a hub id of a ColPali, ColQwen2 or ColModernVBERT checkpoint (told by
    its config's ``architectures``) or of a text encoder, whose last layer's token states are taken.
    """
    options = LoadOptions(options) if isinstance(options, str) else options
    return _load(options, EMBEDDED_LATE, render, progress)


def is_late(options: LoadOptions) -> bool:
    """Tell whether the model is made for late interaction: an embedded one, a known checkpoint, or a Col… folder."""
    if options.model in EMBEDDED_LATE:
        return True
    folder = Path(options.model).expanduser()
    known = _known(options.model)
    return (known is not None and known.late) or (folder.is_dir() and late_architecture(folder) is not None)


def check_honoured(options: LoadOptions, honours: frozenset[str], retriever: str) -> None:
    """Check that every option that was given has an effect.

    Raises
    ------
    BackboneError
        If one has none; it is named as a flag, and so is the retriever.
    """
    for field in fields(LoadOptions):
        value = getattr(options, field.name)
        if value != field.default and field.name not in honours:
            flag = "--" + field.name.replace("_", "-")
            listed = ", ".join("--" + name.replace("_", "-") for name in sorted(honours))
            given = flag if value is True else f"{flag} {value}"
            raise BackboneError(f"{given} has no effect on {retriever}; leave it out. It honours {listed}")


def _load(options: LoadOptions, embedded: dict[str, Family], render: Render | None, progress: bool) -> Any:
    late = embedded is EMBEDDED_LATE
    pictures = PagePictures(render)
    if options.model in embedded:
        from miner_diag.backbones.page_text import minilm_folder

        retriever = embedded[options.model]
        check_honoured(options, retriever.honours, retriever.name)
        return retriever.load(Checkpoint(minilm_folder(), retriever.name, options, pictures, progress=progress))
    from miner_diag.backbones.hub import fetch, looks_like_hub_id

    folder, name, known = Path(options.model).expanduser(), "", _known(options.model)
    fetched = not folder.is_dir()
    if not fetched:
        name = folder.resolve().name
    elif not looks_like_hub_id(options.model):
        raise UnknownBackboneError(_unknown(options.model, embedded))
    else:
        pinned = options.revision or (known.revision if known is not None else None)
        folder = fetch(options.model, pinned, trust_remote_code=options.trust_remote_code)
        name = options.model.rsplit("/", 1)[-1]
    if late:
        base, family = None, COL if late_architecture(folder) is not None else LATE_TEXT
    else:
        base = _base(folder, options.base_model, known.base_revision if known else None)
        family = _family(options, folder, name, base, known)
    honours = set(family.honours) | ({"revision"} if fetched else set())
    honours -= set() if is_adapter(folder) else {"base_model"}
    honours -= set() if brings_code(folder) else {"trust_remote_code"}
    check_honoured(options, frozenset(honours), f"{name} ({family.what})")
    return family.load(Checkpoint(folder, name, options, pictures, base, progress))


def _family(options: LoadOptions, folder: Path, name: str, base: Path | None, known: KnownModel | None) -> Family:
    if options.model_family is None:
        return family_named(known.family) if known is not None else find_family(folder, name=name, base_model=base)
    family = family_named(options.model_family)
    found = model_type(folder, base)
    if family.model_types and found and found not in family.model_types and not brings_code(folder):
        raise BackboneError(
            f"model_family {family.name} is made of checkpoints of type {' or '.join(family.model_types)}; {folder} is "
            f"of type {found}. Leave out --model-family, or name another one"
        )
    return family


def _known(model: str) -> KnownModel | None:
    from miner_diag.backbones.known import known_model

    folder = Path(model).expanduser()
    return known_model(folder.resolve().name if folder.is_dir() else model)


def _base(folder: Path, given: str | None, revision: str | None) -> Path | None:
    """Return the folder of an adapter's base model; None where the folder is a whole model."""
    if not is_adapter(folder):
        return None
    from miner_diag.backbones.hub import fetch, looks_like_hub_id

    named = given or str(read_json(folder / "adapter_config.json", dict).get("base_model_name_or_path") or "")
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


def _unknown(model: str, embedded: dict[str, Family]) -> str:
    kind = "late-interaction model" if embedded is EMBEDDED_LATE else "model"
    there_is = "; ".join(f"{name} ({family.what})" for name, family in embedded.items())
    return (
        f"unknown {kind} {model!r}; there is: {there_is}; or a hub id (miner-diag backbones lists known ones); or the "
        "path of a local checkpoint folder"
    )
