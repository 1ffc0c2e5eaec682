"""Run a retriever once and keep the pooled vector of every layer: what the command of this folder does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes

from miner_diag.backbones.options import LoadOptions
from miner_diag.command import command_line
from miner_diag.corpus.options import DataOptions
from miner_diag.corpus.summary import skipped_lines
from miner_diag.embeddings.embedded import Embedded, open_corpus
from miner_diag.embeddings.options import StoreOptions
from miner_diag.embeddings.processes import leave_the_rest_to_the_main_process
from miner_diag.records import Record
from miner_diag.runs import RunFolder


@dataclass(frozen=True)
class EmbeddingsOptions:
    """Run a retriever once over queries and pages and keep the pooled vector of every layer in the store.

    A run that was stopped is taken up where it stopped, by this command or any other. Under accelerate launch or
    torchrun, all processes fill the same store.
    """

    load: Annotated[LoadOptions, OmitArgPrefixes] = field(default_factory=LoadOptions)
    """Which retriever."""
    data: Annotated[DataOptions, OmitArgPrefixes] = field(default_factory=DataOptions)
    """Which queries and pages."""
    split: Literal["train", "validation", "test", "all"] = "validation"
    """Which documents."""
    store: Annotated[StoreOptions, OmitArgPrefixes] = field(default_factory=StoreOptions)
    """Where pooled layers are kept."""
    out: Path = Path("runs/embeddings")
    """The folder that run.json and records.jsonl are written to."""

    def __post_init__(self) -> None:
        """Refuse what has no effect here."""
        if self.store.memory_gb != StoreOptions().memory_gb:
            raise ValueError("--memory-gb has no effect on embeddings, which reads no layers back; leave it out")


def run(options: EmbeddingsOptions) -> None:
    """Run the command."""
    folder = RunFolder(options.out, "miner_diag.embeddings", options)
    embedded_corpus = open_corpus(
        options.load, options.data, options.store, folder, split=options.split, several_processes=True
    )
    embedded = embedded_corpus.take(options.data.part_of(embedded_corpus.corpus, options.split))
    leave_the_rest_to_the_main_process()
    facts = embedded.facts()
    folder.stage("noise floor")
    folder.records(noise_records(embedded))
    folder.finish(facts=facts, lines=closing_lines(embedded), next_command=next_command(options))


def noise_records(embedded: Embedded) -> Iterator[Record]:
    """Yield the noise floor of each layer, and how many queries and pages there are."""
    corpus, backbone, noise = embedded.corpus, embedded.backbone, embedded.noise
    row = partial(Record, backbone.name, backbone.revision, corpus.name, corpus.part)
    yield row(measure="n_queries", value=float(len(corpus.queries)))
    yield row(measure="n_pages", value=float(len(corpus.pages)))
    width = embedded.stores.pages.shape[2]
    for measure, values in (
        ("noise_floor_max", noise.max_relative_difference),
        ("noise_floor_mean", noise.mean_relative_difference),
    ):
        for layer, value in enumerate(values):
            yield row(measure=measure, value=value, side=noise.side, layer=layer, n=noise.n_items, d=width)


def closing_lines(embedded: Embedded) -> list[str]:
    """Return what a person takes away."""
    lines = []
    for side, store in zip(("queries", "pages"), embedded.stores, strict=True):
        n_items, n_layers, width = store.shape
        both = ", inner ones under both poolings," if store.kept.count > n_layers else ""
        lines.append(f"{n_items:,} {side} x {n_layers} layers x {width}{both} are in {store.folder}")
    largest = max(embedded.noise.max_relative_difference)
    lines += [
        embedded.backbone.last_layer,
        f"The noise floor of {embedded.noise.n_items} pages (each embedded alone, against the store) is at most "
        f"{largest:.1e}, relative.",
    ]
    return [*lines, *embedded.notes(), *skipped_lines(embedded.corpus.skipped)]


def next_command(options: EmbeddingsOptions) -> str:
    """Return the command that diagnoses these layers."""
    split = {} if options.split == "validation" else {"split": options.split}
    return command_line("cka", options.load, options.data, options.store, **split)
