"""The two filters that ink is found with, against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from miner_diag.corpus.ink import _over_neighbours, unbroken_runs

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=12)


@given(mask=arrays(bool, SHAPES), length=st.integers(1, 14), axis=st.sampled_from([0, 1]))
def test_runs_are_what_an_opening_with_a_line_leaves(mask, length, axis):
    line = np.ones((length, 1) if axis == 0 else (1, length), dtype=bool)
    np.testing.assert_array_equal(unbroken_runs(mask, length, axis), ndimage.binary_opening(mask, line))


def test_runs_by_hand():
    mask = np.array([[1, 1, 0, 1], [1, 0, 1, 1]], dtype=bool)  # the first row's last does not go on in the second
    assert unbroken_runs(mask, 2, axis=1).astype(int).tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
    assert unbroken_runs(mask, 2, axis=0).astype(int).tolist() == [[1, 0, 0, 1], [1, 0, 0, 1]]


@pytest.mark.parametrize(
    ("ours", "theirs"), [(np.maximum, ndimage.maximum_filter), (np.minimum, ndimage.minimum_filter)]
)
@given(pixels=arrays(np.uint8, SHAPES))
def test_a_pixel_and_its_neighbours(ours, theirs, pixels):
    np.testing.assert_array_equal(_over_neighbours(ours, pixels), theirs(pixels, 3))
