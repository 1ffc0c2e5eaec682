import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from miner_diag.probes.initialization import low_rank, starting_weights
from miner_diag.probes.kinds import projection_probe


def test_least_squares_undoes_a_rotation(small, rng):
    """A layer that is the final one, turned, is turned back."""
    turn = ortho_group.rvs(6, random_state=3)
    for side in (small.queries, small.pages):
        side -= side.mean(axis=2, keepdims=True)  # LayerNorm takes it out, so it can't come back
        side[:, 0] = side[:, 2] @ turn
        side /= np.linalg.norm(side, axis=2, keepdims=True)
    # after turning, the mean over neurons that LayerNorm removes costs one direction of six
    weights = starting_weights("least_squares", small, n_sides=1, ridge=1e-6, rng=rng)
    z = projection_probe(weights[0, 0], torch.from_numpy(small.pages[:, 0].copy()))
    cosines = (z.numpy() * small.pages[:, 2]).sum(axis=1)
    assert np.mean(cosines) > 0.85
    assert np.mean((small.pages[:, 0] * small.pages[:, 2]).sum(axis=1)) < 0.6


def test_orthogonal_is_orthogonal_and_drawn(small, rng):
    weights = starting_weights("orthogonal", small, n_sides=2, ridge=1.0, rng=rng)
    assert weights.shape == (3, 2, 6, 6)
    torch.testing.assert_close(weights @ weights.mT, torch.eye(6).expand(3, 2, 6, 6), atol=1e-5, rtol=0)
    assert (weights[0, 0] - weights[0, 1]).abs().max() > 0.1


def test_identity(small, rng):
    weights = starting_weights("identity", small, n_sides=1, ridge=1.0, rng=rng)
    torch.testing.assert_close(weights, torch.eye(6).expand(3, 1, 6, 6))


def test_sides_of_their_own_are_fitted_to_their_own_items(small, rng):
    weights = starting_weights("least_squares", small, n_sides=2, ridge=0.1, rng=rng)
    assert weights.shape == (3, 2, 6, 6) and (weights[0, 0] - weights[0, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_low_rank_is_the_best_of_its_rank(rng, rank):
    weight = torch.from_numpy(rng.normal(size=(2, 6, 6)).astype(np.float32))
    left, right = low_rank(weight, rank)
    rest = np.linalg.svd(weight.numpy(), compute_uv=False)[:, rank:]
    missing = (weight - left @ right).square().sum(dim=(1, 2))
    np.testing.assert_allclose(missing, (rest**2).sum(axis=1), atol=1e-4)
