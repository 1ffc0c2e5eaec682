from __future__ import annotations

import pytest

from miner_diag.backbones import LoadOptions
from miner_diag.serving import FusedRetriever
from tests.backbones.conftest import tiny_decoder
from tests.evaluation.conftest import fitted, session_cache
from tests.handbooks import save_retriever

__all__ = ["fitted", "session_cache", "tiny_decoder"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A small BERT with random weights: 4 hidden states, width 32, mean pooling has to be asked for."""
    return save_retriever(tmp_path_factory.mktemp("served") / "small-bert")


@pytest.fixture
def load(checkpoint):
    """How it is loaded."""

    def options(**changes):
        given = {"pooling": "mean", "device": "cpu", "reader": "text-layer"} | changes
        return LoadOptions(str(checkpoint), **given)

    return options


@pytest.fixture
def retriever(fitted, one_thread):
    """What a real fusion run hands out."""
    return FusedRetriever.from_run(fitted.fusion)
