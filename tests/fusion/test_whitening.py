"""Whitening of the final layer."""

from __future__ import annotations

import numpy as np
import pytest

from miner_diag.fusion import FusionError
from miner_diag.fusion.whitening import whitening_map


@pytest.fixture
def pages(rng):
    """Six layers wide 8; the final one varies ten times as much in some directions as in others."""
    states = rng.normal(size=(3000, 6, 8)) * np.geomspace(1, 10, 8) + 2.0
    return states.astype(np.float32)


def covariance(pages, matrix):
    final = pages[:, -1].astype(np.float64)
    return np.cov((final / np.linalg.norm(final, axis=1, keepdims=True)) @ matrix.T.astype(np.float64), rowvar=False)


def test_without_shrinkage_every_direction_varies_alike(pages):
    values = np.linalg.eigvalsh(covariance(pages, whitening_map(pages, 1e-9)))
    assert values.max() / values.min() == pytest.approx(1.0, rel=1e-3)
    raw = np.linalg.eigvalsh(covariance(pages, np.eye(8)))
    assert raw.max() / raw.min() > 20


def test_more_shrinkage_evens_out_less_and_all_of_it_nothing(pages):
    spread = []
    for shrinkage in (0.1, 0.5, 0.9):
        values = np.linalg.eigvalsh(covariance(pages, whitening_map(pages, shrinkage)))
        spread.append(values.max() / values.min())
    assert spread == sorted(spread)
    np.testing.assert_allclose(whitening_map(pages, 1.0), np.eye(8), atol=1e-6)


def test_is_symmetric_with_rows_of_length_one_on_average(pages):
    matrix = whitening_map(pages)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    assert np.square(matrix).sum(axis=1).mean() == pytest.approx(1.0, rel=1e-5)


def test_a_rotation_of_the_space_rotates_it(pages, rng):
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    turned = (pages @ turn.T).astype(np.float32)
    np.testing.assert_allclose(whitening_map(turned), turn @ whitening_map(pages) @ turn.T, atol=1e-4)


def test_length_and_other_layers_do_not_matter(pages, rng):
    longer = pages * rng.uniform(0.5, 3.0, size=(len(pages), 1, 1)).astype(np.float32)
    longer[:, :-1] = 0
    np.testing.assert_allclose(whitening_map(longer), whitening_map(pages), atol=1e-5)


def test_two_dimensions_by_hand():
    """Unit vectors on the axes, three times as often on the first: covariance known, and its root."""
    final = np.array([[1, 0], [1, 0], [-1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float32)
    variances = np.array([4 / 5, 2 / 5])
    expected = (0.5 * variances + 0.5 * 0.6) ** -0.5
    expected = np.diag(expected / np.sqrt(np.square(expected).mean()))
    np.testing.assert_allclose(whitening_map(final[:, None]), expected, atol=1e-6)


def test_errors_name_what_is_wrong(pages):
    for shrinkage in (0.0, 1.1):
        with pytest.raises(FusionError, match="shrinkage must be above 0 and at most 1"):
            whitening_map(pages, shrinkage)
    with pytest.raises(FusionError, match="at least 2 training pages; got 1"):
        whitening_map(pages[:1])
    with pytest.raises(FusionError, match="are the same"):
        whitening_map(np.repeat(pages[:1], 5, axis=0))
