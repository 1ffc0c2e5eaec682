from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from miner_diag.backbones import LoadOptions
from miner_diag.serving import FusedRetriever
from miner_diag.serving.index import make_index
from tests.backbones.conftest import tiny_decoder
from tests.evaluation.conftest import fitted, session_cache
from tests.handbooks import save_retriever, write_handbooks

__all__ = ["fitted", "session_cache", "tiny_decoder"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A small BERT with random weights: 4 hidden states, width 32, mean pooling has to be asked for."""
    return save_retriever(tmp_path_factory.mktemp("served") / "small-bert")


@pytest.fixture(scope="session")
def other_checkpoint(tmp_path_factory):
    """Another one, of the same width."""
    return save_retriever(tmp_path_factory.mktemp("served") / "other-bert", n_blocks=2)


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


@pytest.fixture
def handbooks(tmp_path):
    """Four handbooks of three pages, each page with a title in the outline."""
    return write_handbooks(tmp_path / "handbooks", (3, 3, 3, 3))


@pytest.fixture
def indexed(handbooks, load, tmp_path, one_thread):
    """What indexes the handbooks, and where."""
    out = tmp_path / "index"

    def index(**how):
        return make_index(**{"load": load(), "folder": handbooks, "index": out, **how})

    return SimpleNamespace(index=index, folder=handbooks, out=out, load=load(), copy=shutil.copyfile)
