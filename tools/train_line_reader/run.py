"""Train the reader of text lines of ``page-vision``.

Learns from pages of the train split only; lines of the validation split give the scores. The file of numbers that it
writes holds options and scores beside them, and nothing of the documents.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from miner_diag.backbones.page_vision.trained import save_trained
from miner_diag.corpus.assemble import PdfRenderer
from miner_diag.corpus.core import Corpus, CorpusError
from miner_diag.corpus.load import load_corpus
from miner_diag.provenance import RunClock, write_run
from tools.train_line_reader.labelled_lines import LabelledLine
from tools.train_line_reader.line_shards import cut_pages
from tools.train_line_reader.reader_training import score_reader, train_reader


@dataclass(frozen=True)
class ReaderTrainOptions:
    """Train the reader of text lines on pages of the train split."""

    data: str = "debian-docs-large"
    """A data set made of PDFs with a text layer."""
    fold: int = 0
    """The number of the split by document."""
    pages: int = 1600
    """Pages of the train split that lines are cut from."""
    pages_per_document: int = 70
    """The largest number of pages of one document, so that no manual's font rules."""
    lines_per_page: int = 30
    """The largest number of lines of a page, drawn at random."""
    steps: int = 2000
    """The number of batches."""
    columns: int = 16_000
    """The number of columns of pixels in a batch; 16,000 are some 30 lines."""
    seed: int = 0
    """The seed of pages, lines, weights and noise."""
    bfloat16: bool = False
    """Run the forward in bfloat16: for CPUs with AVX-512 BF16 or AMX."""
    out: Path = Path("runs/page-vision")
    """The folder that is written to: page-vision.safetensors and run.json; lines/ and state.safetensors, from which an
    interrupted run goes on and ends with the same numbers, can be deleted afterwards."""


def draw_lines(
    corpus: Corpus, options: ReaderTrainOptions, *, pages: int, per_document: int, folder: Path | None = None
) -> list[LabelledLine]:
    """Return lines of `pages` pages of a corpus, at most `per_document` of a document, drawn at random.

    Raises
    ------
    CorpusError
        If the pages do not come from PDFs, or no line of them can be labelled.
    """
    if not isinstance(corpus.renderer, PdfRenderer):
        raise CorpusError(f"data {options.data} must be made of PDFs: lines are labelled by their text layers")
    rng = np.random.default_rng(options.seed)
    by_document: dict[str, list[tuple[str, Path, int]]] = {}
    for page in corpus.pages:
        place = (page.page_id, corpus.renderer.paths[page.doc_id], page.page_number)
        by_document.setdefault(page.doc_id, []).append(place)
    usable = [
        places[i]
        for _, places in sorted(by_document.items())
        for i in np.sort(rng.permutation(len(places))[:per_document])
    ]
    chosen = [usable[i] for i in rng.permutation(len(usable))[:pages]]
    lines = cut_pages(chosen, options.lines_per_page, options.seed, folder)
    if not lines:
        raise CorpusError(f"none of {len(chosen)} pages of {options.data} has a line that its text layer explains")
    return lines


def run(options: ReaderTrainOptions) -> None:
    """Run the command."""
    logging.getLogger("miner_diag").setLevel(logging.INFO)
    clock = RunClock()
    corpus = load_corpus(options.data, queries="verbatim", fold=options.fold)
    lines = draw_lines(
        corpus.split("train"),
        options,
        pages=options.pages,
        per_document=options.pages_per_document,
        folder=options.out / "lines",
    )
    held_out = draw_lines(corpus.split("validation"), options, pages=100, per_document=10)
    clock.stage("lines")
    reader = train_reader(
        lines,
        steps=options.steps,
        seed=options.seed,
        columns=options.columns,
        bfloat16=options.bfloat16,
        state=options.out / "state.safetensors",
    )
    clock.stage("train")
    scores = asdict(score_reader(reader, held_out[:1000]))
    clock.stage("score")
    made = {key: value for key, value in asdict(options).items() if key != "out"}
    facts = {"trained_on": f"{options.data}, train split, fold {options.fold}", "n_lines": len(lines), **made, **scores}
    save_trained(options.out / "page-vision.safetensors", {"reader": reader}, facts)
    write_run(options.out, "tools.train_line_reader", options, clock, **facts)
    print(f"{len(lines)} lines; of held-out lines, {scores['character_error']:.1%} of characters are wrong, ", end="")
    print(f"{scores['words_read']:.1%} of words are read; {options.out / 'page-vision.safetensors'}")
