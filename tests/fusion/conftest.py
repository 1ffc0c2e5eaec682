from __future__ import annotations

import pytest

from tests.fusion.helpers import small_data


@pytest.fixture(scope="session")
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small(rng, one_thread):
    """Forty queries and fifty pages that share a little in each layer."""
    return small_data(rng)
