from __future__ import annotations

import pytest

from tests.fusion.helpers import small_data


@pytest.fixture
def small(rng, one_thread):
    """Forty queries and fifty pages that share a little in each layer."""
    return small_data(rng)
