"""Exporting a retriever into the tools that people have: what ``python -m miner_diag.serving export`` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes

from miner_diag.backbones.options import LoadOptions
from miner_diag.corpus.options import DataOptions
from miner_diag.serving.errors import ServingError
from miner_diag.serving.retriever import FusedRetriever

Form = Literal["hub", "sentence-transformers", "onnx", "vectors"]
"""What an export is made for."""


@dataclass(frozen=True)
class ExportOptions:
    """Write a retriever as what other tools read: a fusion run, a backbone alone, or one layer of it."""

    out: Path
    """The folder that is written."""
    to: Form = "hub"
    """What it is written for: a folder for a hub, with a card (hub), one for sentence-transformers, graphs of ONNX
    (onnx), or vectors and ids of a data set as .npy and parquet (vectors)."""
    run: Path | None = None
    """A fusion run, as runs/fusion; without it the backbone alone is written."""
    system: str | None = None
    """A saved system of the run, as trained_maps; the fusion that it hands out if this is not given."""
    load: Annotated[LoadOptions, OmitArgPrefixes] = field(default_factory=LoadOptions)
    """Which backbone, where no run is given."""
    layers: int | None = None
    """The one layer of the backbone that is served, pooled, where no run is given; the final one if this is not."""
    plain: bool = False
    """For sentence-transformers: write its own modules alone (Transformer, Pooling, Dense, Normalize), which say what a
    system of one layer with shared linear maps computes, and read a text up to the limit."""
    system_alone: bool = False
    """For onnx: write the system alone, which takes pooled states; possible for any backbone."""
    with_backbone: bool = False
    """For hub and sentence-transformers: copy the backbone's files into the folder. Those of a local folder are copied
    in any case, because no other machine has them."""
    evaluations: tuple[Path, ...] = ()
    """For hub: runs of miner_diag.evaluation whose scores the card shows."""
    data: Annotated[DataOptions, OmitArgPrefixes] = field(default_factory=DataOptions)
    """For vectors: which queries and pages."""
    split: Literal["train", "validation", "test", "all"] = "all"
    """For vectors: which documents."""

    def __post_init__(self) -> None:
        """Refuse options that have no effect."""
        used = {
            "hub": {"with_backbone", "evaluations"},
            "sentence-transformers": {"plain", "with_backbone"},
            "onnx": {"system_alone"},
            "vectors": {"data", "split"},
        }
        defaults = {
            "plain": False,
            "system_alone": False,
            "with_backbone": False,
            "evaluations": (),
            "data": DataOptions(),
            "split": "all",
        }
        for name, default in defaults.items():
            if getattr(self, name) != default and name not in used[self.to]:
                raise ServingError(f"--{name.replace('_', '-')} has no effect with --to {self.to}; leave it out")
        if self.plain and self.with_backbone:
            raise ServingError("--with-backbone has no effect with --plain, which always holds the transformer")
        if self.run is None and self.system is not None:
            raise ServingError(f"--system {self.system} names a system of a fusion run; give --run")
        if self.run is not None and self.layers is not None:
            raise ServingError(
                "--layers serves a layer of a backbone, and a run says itself which it reads; leave one out"
            )
        if self.run is not None and self.load.model != LoadOptions.model:
            raise ServingError("--model has no effect with --run, which says which backbone it was fitted to")


def export(options: ExportOptions) -> list[str]:
    """Write what the options say; return sentences that say what was written and how it is used.

    Raises
    ------
    ValueError
        If the run, the backbone or the data cannot be loaded, or the export cannot say what the retriever computes.
    OSError
        If the folder cannot be written.
    """
    if options.run is None:
        retriever = FusedRetriever.from_model(options.load, options.layers)
    else:
        retriever = FusedRetriever.from_run(
            options.run, options.system, device=options.load.device, dtype=options.load.dtype
        )
    forms: dict[Form, Callable[[FusedRetriever, ExportOptions], list[str]]] = {
        "hub": _to_hub,
        "sentence-transformers": _to_sentence_transformers,
        "onnx": _to_onnx,
        "vectors": _to_vectors,
    }
    return forms[options.to](retriever, options)


def _to_hub(retriever: FusedRetriever, options: ExportOptions) -> list[str]:
    from miner_diag.serving.hub_folder import write_hub_folder

    write_hub_folder(retriever, options.out, options.evaluations, with_backbone=options.with_backbone or None)
    return [
        f"{options.out} holds {retriever.name} with its card, README.md: read it before you pass it on",
        f"load it: FusedRetriever.from_pretrained({str(options.out)!r})",
        f"next: python -m miner_diag.serving push {options.out} OWNER/NAME",
    ]


def _to_sentence_transformers(retriever: FusedRetriever, options: ExportOptions) -> list[str]:
    from miner_diag.serving.sentence_folder import write_module_form, write_plain_form

    if options.plain:
        write_plain_form(retriever, options.out)
        return [
            f"{options.out} holds {retriever.name} as plain modules; a text beyond the limit is cut there",
            f"load it: SentenceTransformer({str(options.out)!r})",
        ]
    write_module_form(retriever, options.out, with_backbone=options.with_backbone or None)
    return [
        f"{options.out} holds {retriever.name} as one module of ours",
        f"load it: miner_diag.serving.load_sentence_transformer({str(options.out)!r}), or "
        f"SentenceTransformer({str(options.out)!r}, trust_remote_code=True)",
    ]


def _to_onnx(retriever: FusedRetriever, options: ExportOptions) -> list[str]:
    from miner_diag.serving.onnx_form import TOLERANCE, write_onnx

    written = write_onnx(retriever, options.out, system_alone=options.system_alone)
    names = ", ".join(path.name for path in written)
    takes = "pooled states of its layers" if options.system_alone else "token ids of texts within the limit"
    return [
        f"{options.out} holds {names} of {retriever.name}, which takes {takes}; ONNX Runtime gives our vectors within "
        f"{TOLERANCE:g}",
    ]


def _to_vectors(retriever: FusedRetriever, options: ExportOptions) -> list[str]:
    from miner_diag.serving.vectors import write_vectors

    counts = write_vectors(retriever, options.data.load(options.split), options.out)
    return [
        f"{options.out} holds the vectors of {counts['pages']:,} pages and {counts['queries']:,} queries by "
        f"{retriever.name}: .npy for faiss.IndexFlatIP({retriever.width}).add, .parquet for datasets",
    ]
