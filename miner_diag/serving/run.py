"""The commands of this folder: a retriever for other tools, an index of PDFs, and what serving costs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional, subcommand

from miner_diag.backbones.options import LoadOptions
from miner_diag.corpus.options import DataOptions
from miner_diag.corpus.summary import skipped_lines
from miner_diag.embeddings.options import StoreOptions
from miner_diag.files import write_atomic
from miner_diag.runs import begin_run
from miner_diag.serving.engine import Quantization, ServerOptions
from miner_diag.serving.export import ExportOptions, export
from miner_diag.tables import read_csv, table_text
from miner_diag.texts import inert


@dataclass(frozen=True)
class IndexOptions:
    """Make an index of a folder of PDFs, or bring one up to date: only what changed is embedded."""

    folder: Positional[Path]
    """The PDFs, also in folders below it."""
    out: Path = Path("runs/index")
    """The folder of the index."""
    run: Path | None = None
    """A fusion run, as runs/fusion: pages are found by the vector of the fusion that it hands out, and what
    the backbone finds stands beside. Without it they are found by the backbone alone."""
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


@dataclass(frozen=True)
class BenchOptions:
    """Measure what a fusion run, its backbone and late interaction cost to serve: bytes, building, search, encoding."""

    run: Path = Path("runs/fusion")
    """The fusion run."""
    data: Annotated[DataOptions, OmitArgPrefixes] = field(default_factory=DataOptions)
    """Which queries and pages."""
    split: Literal["validation", "test", "all"] = "test"
    """Which documents; those that the run was fitted to are refused."""
    store: Annotated[StoreOptions, OmitArgPrefixes] = field(default_factory=StoreOptions)
    """Where layers and token vectors are kept."""
    late: str | None = "page-text-late"
    """A late-interaction retriever that is measured too; None measures none."""
    sizes: tuple[int, ...] = (10_000, 100_000)
    """Numbers of pages to which the data are filled up with jittered copies, for the backbone and the fusion that the
    run hands out; such rows are labelled synthetic. The graph of 100,000 takes minutes for each."""
    n_queries: int = 300
    """How many queries are encoded and searched for a time."""
    n_pages: int = 30
    """How many pages are encoded for a time."""
    seed: int = 0
    """Seed of what is drawn: queries, pages and the noise of copies."""
    out: Path = Path("runs/cost")
    """The folder that is written to."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.n_queries < 1 or self.n_pages < 1:
            raise ValueError(f"n_queries and n_pages must be at least 1; got {self.n_queries} and {self.n_pages}")


@dataclass(frozen=True)
class PushOptions:
    """Put an exported folder on a hub: the one command that sends anything anywhere."""

    folder: Positional[Path]
    """What export --to hub wrote."""
    repo_id: Positional[str]
    """owner/name; it is made if it is not there."""
    public: bool = False
    """Whether a repository that is made is seen by all; else by its owner alone."""


ServingOptions = (
    Annotated[ExportOptions, subcommand("export", prefix_name=False)]
    | Annotated[PushOptions, subcommand("push", prefix_name=False)]
    | Annotated[IndexOptions, subcommand("index", prefix_name=False)]
    | Annotated[SearchOptions, subcommand("search", prefix_name=False)]
    | Annotated[BenchOptions, subcommand("bench", prefix_name=False)]
)
"""The options of every command of this folder."""


def run(options: Any) -> None:
    """Run one of the commands."""
    commands: dict[type, Callable[[Any], None]] = {
        ExportOptions: run_export,
        PushOptions: run_push,
        IndexOptions: run_index,
        SearchOptions: run_search,
        BenchOptions: run_bench,
    }
    commands[type(options)](options)


def run_export(options: ExportOptions) -> None:
    """Write a retriever for other tools."""
    for line in export(options):
        print(inert(line))


def run_push(options: PushOptions) -> None:
    """Put an exported folder on a hub."""
    from miner_diag.serving.upload import push_folder

    address = push_folder(options.folder, options.repo_id, private=not options.public)
    print(inert(f"{options.folder} is at {address}"))


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


def run_bench(options: BenchOptions) -> None:
    """Measure what serving costs."""
    from miner_diag.serving.bench import measure
    from miner_diag.serving.cost_plots import cost_of_serving_figure

    folder = begin_run(options.out, "miner_diag.serving", options)
    bench = measure(
        options.run,
        options.data,
        options.split,
        options.store,
        late=options.late,
        sizes=options.sizes,
        n_queries=options.n_queries,
        n_pages=options.n_pages,
        seed=options.seed,
        folder=folder,
    )
    folder.table("cost", bench.table)
    table = read_csv(options.out / "cost.csv")
    title = f"{bench.retriever.backbone.name}, {bench.part.name} ({bench.part.part}), {len(bench.part.pages)} pages"
    folder.figure("cost_bytes", cost_of_serving_figure(table, "bytes_per_page_raw", title=title))
    folder.figure("cost_speed", cost_of_serving_figure(table, "qps", title=title))
    folder.records(bench.records)
    folder.stage("write")
    columns = [
        "system",
        "representation",
        "dtype",
        "search",
        "n_pages",
        "bytes_on_disk",
        "search_p50_ms",
        "qps",
        "ndcg_at_5",
    ]
    print(table_text(bench.table[columns], index=False, na_rep=""))
    facts = {
        "backbone": bench.retriever.backbone.key(),
        "corpus": bench.part.name,
        "corpus_part": bench.part.part,
        "corpus_revision": bench.part.revision,
        "engine": {"qdrant-edge-py": metadata.version("qdrant-edge-py")},
        "cores": os.cpu_count(),
    }
    folder.finish(facts=facts, lines=bench.lines)
