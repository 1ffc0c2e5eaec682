"""The planted layers with their diagnosis, and a small corpus and checkpoints for the command."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from miner_diag.cka.diagnosis import diagnose
from tests.cka.helpers import plant
from tests.handbooks import save_retriever, write_handbooks


@pytest.fixture(scope="session")
def planted():
    """The planted layers and their diagnosis; nobody changes them."""
    layers = plant()
    layers.diagnosis = diagnose(layers.queries, layers.pages, layers.gold, **layers.ids, rng=np.random.default_rng(0))
    layers.of = {name: layers.diagnosis.layers[number] for name, number in layers.layer.items()}
    return layers


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Two small BERTs with random weights, saved as a user would save them."""
    folder = tmp_path_factory.mktemp("retrievers")
    return SimpleNamespace(
        small=save_retriever(folder / "small-bert"), other=save_retriever(folder / "other-bert", n_blocks=2)
    )


@pytest.fixture(scope="session")
def documents(tmp_path_factory):
    """A folder of seven handbooks of five pages and one broken file."""
    folder = write_handbooks(tmp_path_factory.mktemp("documents") / "handbooks", sizes=(5,) * 7)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 and nothing else")
    return folder
