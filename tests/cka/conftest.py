"""Layers with planted properties, and a small corpus and checkpoint for the command."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import ortho_group

from miner_diag.cka.diagnosis import diagnose


def _conftest_of(stage):
    """What another stage's tests make: its conftest as a module of its own."""
    path = Path(__file__).parents[1] / stage / "conftest.py"
    spec = importlib.util.spec_from_file_location(f"{stage}_made_for_cka", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


N_PAGES, N_QUERIES, D = 80, 96, 16
NAMES = ("constant", "noise", "rotated", "rotated_apart", "copy", "loud", "final")


def plant():
    """Make queries [Q, L, D] and pages [P, L, D] whose last layer retrieves, and inner layers of which all is known.

    constant: one vector for all. noise: nothing. rotated: the final layer, both sides turned alike. rotated_apart: the
    final layer, queries and pages turned differently, so CKA is as before and cosines between them are worthless.
    copy: the final layer, scaled and blurred. loud: the final layer with rows of wildly different length, so cosines
    are as before and CKA hangs on a handful of rows. The last 16 queries ask for pages that others ask for too.
    """
    rng = np.random.default_rng(5)
    answer = np.concatenate([np.arange(64), np.arange(16), np.arange(16)])
    meaning = rng.normal(size=(N_PAGES, D))
    page = meaning + 0.5 * rng.normal(size=meaning.shape)
    query = meaning[answer] + 0.5 * rng.normal(size=(N_QUERIES, D))
    turn, other_turn = (ortho_group.rvs(D, random_state=rng) for _ in range(2))
    one = rng.normal(size=D)

    def layers(final, turn_apart):
        n = len(final)
        return {
            "constant": np.tile(one, (n, 1)),
            "noise": rng.normal(size=(n, D)),
            "rotated": final @ turn,
            "rotated_apart": final @ turn_apart,
            "copy": 7 * (final + 0.3 * rng.normal(size=(n, D))),
            "loud": final * np.exp(3 * rng.normal(size=(n, 1))),
            "final": final,
        }

    queries, pages = (
        np.stack([made[name] for name in NAMES], axis=1).astype(np.float32)
        for made in (layers(query, turn), layers(page, other_turn))
    )
    return SimpleNamespace(
        queries=queries,
        pages=pages,
        gold=[{int(row): 1} for row in answer],
        answer=answer,
        names=NAMES,
        layer={name: number for number, name in enumerate(NAMES)},
        ids={
            "query_ids": [f"q{row:03}" for row in range(N_QUERIES)],
            "page_ids": [f"p{row:03}" for row in range(N_PAGES)],
            "page_hashes": [f"hash{row}" for row in range(N_PAGES)],
        },
    )


@pytest.fixture(scope="session")
def planted():
    """The planted layers and their diagnosis; nobody changes them."""
    made = plant()
    made.diagnosis = diagnose(made.queries, made.pages, made.gold, **made.ids, rng=np.random.default_rng(0))
    made.of = {name: made.diagnosis.layers[number] for name, number in made.layer.items()}
    return made


WORDS = (
    "anchor basin canal delta estuary fjord glacier harbour island jetty kelp lagoon marina narrows ocean pier quay "
    "reef strait tide upwell vessel wharf yacht zephyr beacon current dredge ebb ferry gauge haven inlet keel level "
    "mooring nautic oyster plume ripple salt trench under vortex wave"
).split()
"""All the tiny checkpoint's tokenizer knows."""


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Two small BERTs with random weights, saved as a user would save them."""
    made = _conftest_of("backbones")
    made.WORDS = WORDS
    folder = tmp_path_factory.mktemp("retrievers")
    return SimpleNamespace(
        small=made.save_tiny(folder / "small-bert", made.tiny_bert_config(initializer_range=0.2), max_length=48),
        other=made.save_tiny(
            folder / "other-bert", made.tiny_bert_config(num_hidden_layers=2, initializer_range=0.2), max_length=48
        ),
    )


@pytest.fixture(scope="session")
def pdf():
    """What makes PDFs."""
    made = _conftest_of("corpus")
    return SimpleNamespace(bytes=made.pdf_bytes, Page=made.PdfPage, Text=made.Text)


@pytest.fixture(scope="session")
def documents(pdf, tmp_path_factory):
    """A folder of seven handbooks of five pages, each page with a title in the outline, and one broken file."""
    folder = tmp_path_factory.mktemp("documents") / "handbooks"
    folder.mkdir()
    rng = np.random.default_rng(11)
    for number in range(7):
        pages, outline = [], []
        for page in range(5):
            topic = rng.permutation(WORDS)[:9]
            title = " ".join(topic[:4])
            lines = [" ".join(rng.permutation(topic)) for _ in range(3)]
            texts = [pdf.Text(title, y=760, size=18)]
            texts += [pdf.Text(line, y=700 - 40 * place) for place, line in enumerate(lines)]
            pages.append(pdf.Page(tuple(texts)))
            outline.append((title, page))
        (folder / f"handbook-{number}.pdf").write_bytes(pdf.bytes(pages, outline))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 and nothing else")
    return folder
