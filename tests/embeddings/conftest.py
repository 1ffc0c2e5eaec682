import pytest

from miner_diag.embeddings import StoreOptions
from tests.embeddings.helpers import PretendBackbone, PretendLate, small_shards, three_splits


@pytest.fixture
def late():
    return PretendLate()


@pytest.fixture
def backbone():
    return PretendBackbone()


@pytest.fixture(scope="session")
def corpus():
    return three_splits()


@pytest.fixture(scope="session")
def verbatim():
    return three_splits(form="verbatim")


@pytest.fixture
def options(tmp_path):
    return StoreOptions(tmp_path / "store", token_budget=60)


@pytest.fixture(autouse=True)
def many_shards():
    with small_shards():
        yield
