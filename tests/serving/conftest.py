from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from tests.evaluation.conftest import fitted, session_cache  # noqa: F401
from tests.handbooks import save_retriever, write_handbooks


@pytest.fixture(scope="session")
def retriever_folder(tmp_path_factory, one_thread):
    return save_retriever(tmp_path_factory.mktemp("served") / "small-bert")


@pytest.fixture(scope="session")
def other_retriever(tmp_path_factory, one_thread):
    return save_retriever(tmp_path_factory.mktemp("served") / "other-bert", n_blocks=2)


@pytest.fixture
def handbooks(tmp_path):
    """Four handbooks of three pages, each page with a title in the outline."""
    return write_handbooks(tmp_path / "handbooks", (3, 3, 3, 3))


@pytest.fixture
def indexed(handbooks, retriever_folder, tmp_path):
    """What indexes the handbooks, and where."""
    from miner_diag.backbones.options import LoadOptions
    from miner_diag.serving.index import make_index

    load = LoadOptions(str(retriever_folder), pooling="mean", device="cpu", reader="text-layer")
    out = tmp_path / "index"

    def index(**how):
        how = {"load": load, "folder": handbooks, "index": out, **how}
        return make_index(**how)

    return SimpleNamespace(index=index, folder=handbooks, out=out, load=load, copy=shutil.copyfile)
