"""The commands of this folder: make an index of PDFs and ask it questions."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, subcommand

from miner_diag.backbones.options import LoadOptions
from miner_diag.corpus.summary import skipped_lines
from miner_diag.files import write_atomic
from miner_diag.serving.engine import Quantization, ServerOptions
from miner_diag.tables import table_text
from miner_diag.texts import inert


@dataclass(frozen=True)
class IndexOptions:
    """Make an index of a folder of PDFs, or bring one up to date: only what changed is embedded."""

    folder: Positional[Path]
    """The PDFs, also in folders below it."""
    out: Path = Path("runs/index")
    """The folder of the index."""
    run: Path | None = None
    """A fusion run, as runs/fusion: pages are found by the vector of the fusion that it hands out, and the backbone's own
    answers stand beside. Without it they are found by the backbone alone."""
    load: Annotated[LoadOptions, OmitArgPrefixes] = field(default_factory=LoadOptions)
    """Which backbone, if no fusion run is given."""
    quantization: Quantization = "none"
    """How the engine compresses vectors for a first look: not at all, a byte a coordinate (int8), a bit a coordinate
    (binary). The best are scored again by their whole vectors."""
    server: Annotated[ServerOptions, OmitArgPrefixes] = field(default_factory=ServerOptions)
    """A server that holds the points."""


@dataclass(frozen=True)
class SearchOptions:
    """Ask an index a question: the best pages with document, section and score."""

    index: Positional[Path]
    """The folder of the index."""
    question: Positional[str]
    """The question."""
    k: int = 5
    """The number of pages."""
    html: Path | None = None
    """A file to write: the pages as pictures, those of the fusion and of its backbone side by side."""
    exact: bool = False
    """Score every page by its whole vector instead of walking through the engine's graph."""
    run: Path | None = None
    """Where the fusion run of the index lies now, if it was moved."""


ServingOptions = (
    Annotated[IndexOptions, subcommand("index", prefix_name=False)]
    | Annotated[SearchOptions, subcommand("search", prefix_name=False)]
)
"""The options of every command of this folder."""


def run(options: Any) -> None:
    """Run one of the commands."""
    commands: dict[type, Callable[[Any], None]] = {IndexOptions: run_index, SearchOptions: run_search}
    commands[type(options)](options)


def run_index(options: IndexOptions) -> None:
    """Make an index, or bring one up to date."""
    from miner_diag.serving.index import make_index

    report = make_index(
        options.folder,
        options.out,
        options.load,
        options.run,
        quantization=options.quantization,
        server=options.server,
    )
    for line in [*report.lines(), *skipped_lines(report.skipped)]:
        print(inert(line))
    print(f"next: {inert(shlex.join(['miner-diag', 'search', str(options.out), 'your question']))}")


def run_search(options: SearchOptions) -> None:
    """Ask an index a question."""
    from miner_diag.serving.answers import answers_page, ask

    answers = ask(options.index, options.question, options.k, exact=options.exact, run=options.run)
    if answers.main:
        print(table_text(answers.table(), index=False))
    for line in answers.lines():
        print(inert(line))
    if options.html is not None:
        write_atomic(options.html, answers_page(answers))
        print(inert(f"{options.html} shows these pages"))
