"""Train the reader of text lines of ``page-vision``.

Learns from pages of the train split only; lines of the validation split give the scores. The file of numbers that it
writes holds options and scores beside them, and nothing of the documents.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import nn

from miner_diag.corpus.assemble import PdfRenderer
from miner_diag.corpus.core import Corpus, CorpusError
from miner_diag.corpus.load import load_corpus
from miner_diag.files import atomic_path
from miner_diag.runs import RunFolder
from tools.train_line_reader.labelled_lines import LabelledLine
from tools.train_line_reader.line_shards import cut_pages
from tools.train_line_reader.reader_training import score_reader, train_reader

HELD_OUT_PAGES, HELD_OUT_PAGES_PER_DOCUMENT, HELD_OUT_LINES = 100, 10, 1000
"""The largest numbers of validation pages, of pages of one document among them, and of lines that give the scores."""


@dataclass(frozen=True)
class ReaderTrainOptions:
    """Train the reader of text lines on pages of the train split."""

    data: str = "debian-docs-large"
    """The data set, which must be made of PDFs with a text layer."""
    fold: int = 0
    """The number of the split by document."""
    pages: int = 1600
    """The number of pages of the train split that lines are cut from."""
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
        in_file = (page.page_id, corpus.renderer.paths[page.doc_id], page.page_number)
        by_document.setdefault(page.doc_id, []).append(in_file)
    usable = [
        pages_of_document[i]
        for _, pages_of_document in sorted(by_document.items())
        for i in np.sort(rng.permutation(len(pages_of_document))[:per_document])
    ]
    chosen = [usable[i] for i in rng.permutation(len(usable))[:pages]]
    lines = cut_pages(chosen, options.lines_per_page, options.seed, folder)
    if not lines:
        raise CorpusError(f"none of {len(chosen)} pages of {options.data} has a line that its text layer explains")
    return lines


def save_trained(path: Path | str, parts: Mapping[str, nn.Module], facts: Mapping[str, Any]) -> None:
    """Write modules as ``name.parameter`` in float16, and `facts` (provenance) as JSON in the header."""
    tensors = {
        f"{name}.{key}": (value.half() if value.is_floating_point() else value).contiguous()
        for name, module in parts.items()
        for key, value in module.state_dict().items()
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"facts": json.dumps(facts, sort_keys=True)})


def run(options: ReaderTrainOptions) -> None:
    """Run the command."""
    logging.getLogger("tools").setLevel(logging.INFO)
    folder = RunFolder(options.out, "tools.train_line_reader", options)
    corpus = load_corpus(options.data, queries="verbatim", fold=options.fold)
    lines = draw_lines(
        corpus.split("train"),
        options,
        pages=options.pages,
        per_document=options.pages_per_document,
        folder=options.out / "lines",
    )
    validation = corpus.split("validation")
    held_out = draw_lines(validation, options, pages=HELD_OUT_PAGES, per_document=HELD_OUT_PAGES_PER_DOCUMENT)
    folder.stage("lines")
    reader = train_reader(
        lines,
        steps=options.steps,
        seed=options.seed,
        columns=options.columns,
        bfloat16=options.bfloat16,
        state=options.out / "state.safetensors",
    )
    folder.stage("train")
    scores = score_reader(reader, held_out[:HELD_OUT_LINES])
    folder.stage("score")
    settings = {key: value for key, value in asdict(options).items() if key != "out"}
    trained_on = f"{options.data}, train split, fold {options.fold}"
    facts = {"trained_on": trained_on, "n_lines": len(lines), **settings, **asdict(scores)}
    save_trained(options.out / "page-vision.safetensors", {"reader": reader}, facts)
    folder.finish(
        facts=facts,
        lines=[
            f"{len(lines)} lines; of held-out lines, {scores.character_error:.1%} of characters are wrong, "
            f"{scores.words_read:.1%} of words are read; {options.out / 'page-vision.safetensors'}"
        ],
    )
