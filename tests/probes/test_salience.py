import numpy as np
import pytest

from miner_diag.probes import ProbeStack, concentration, neurons_for, salience


def test_base_salience_is_the_gate_squared(small):
    stack = ProbeStack(np.full((3, 1, 6), -2, np.float32), np.tile(np.eye(6, dtype=np.float32), (3, 1, 1, 1)), {})
    base, _ = salience(stack, small)
    np.testing.assert_array_equal(base, np.full((3, 6), 4.0))
    apart = ProbeStack(np.stack([stack.gates[:, 0], 3 * stack.gates[:, 0]], axis=1), stack.weights, {})
    np.testing.assert_array_equal(salience(apart, small)[0], np.full((3, 6), 12.0))  # |-2 * -6|


def test_projection_salience_is_what_true_pairs_have_beyond_any_pair(small):
    """Before negatives are cut off, the sum over neurons is a mean cosine less another."""
    stack = ProbeStack(np.ones((3, 1, 6), np.float32), np.tile(np.eye(6, dtype=np.float32), (3, 1, 1, 1)), {})
    _, projected = salience(stack, small)
    probe = stack.probe(1, "normalized_projection")
    query, page = (probe.apply(side[:, 1]).astype(float) for side in (small.queries, small.pages))
    scores = query @ page.T
    by_hand = (query * page).mean(axis=0) - query.mean(axis=0) * page.mean(axis=0)
    np.testing.assert_allclose(projected[1], np.maximum(by_hand, 0), atol=1e-6)
    assert by_hand.sum() == pytest.approx(np.diag(scores).mean() - scores.mean(), abs=1e-9)


def test_concentration_and_neurons_by_hand():
    values = np.array([1.0, 0.0, 6.0, 3.0])
    np.testing.assert_allclose(concentration(values), [0.6, 0.9, 1.0, 1.0])
    assert [neurons_for(values, share) for share in (0.5, 0.6, 0.9, 0.91, 1.0)] == [1, 1, 2, 3, 3]
    assert neurons_for(np.ones(10)) == 9


@pytest.mark.parametrize("values", [[-1.0, 2.0], [np.nan, 1.0], [0.0, 0.0]])
def test_salience_without_shares_is_refused(values):
    with pytest.raises(ValueError, match="salience"):
        concentration(np.array(values))
