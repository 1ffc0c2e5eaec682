import sys

import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def cache_of_session(request, tmp_path_factory):
    """The folder that stands in for the user's cache; processes that share the tests share it."""
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if hasattr(request.config, "workerinput") else folder) / "cache"


@pytest.fixture(scope="session", autouse=True)
def own_cache(cache_of_session):
    """No test reads or fills the user's cache; what one session reads of a PDF its other tests may reuse."""
    with pytest.MonkeyPatch.context() as patch:  # before fixtures of modules, which fill the cache too
        patch.setenv("MINER_DIAG_CACHE", str(cache_of_session))
        yield


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
