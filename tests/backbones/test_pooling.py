import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from miner_diag.backbones.base import POOLINGS
from miner_diag.backbones.pooling import Pooler, pool

D = 5


def by_hand(tokens, pooling):
    return {"last": tokens[-1], "cls": tokens[0], "mean": tokens.mean(axis=0)}[pooling]


def padded(items, length, side, garbage):
    """Stack items [T_i, D] into [B, length, D] with `garbage` in the padding, and the mask."""
    states = np.full((len(items), length, D), garbage, dtype=np.float32)
    mask = np.zeros((len(items), length), dtype=np.int64)
    for row, item in enumerate(items):
        where = slice(0, len(item)) if side == "right" else slice(length - len(item), length)
        states[row, where], mask[row, where] = item, 1
    return torch.from_numpy(states), torch.from_numpy(mask)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    extra=st.integers(0, 3),
    seed=st.integers(0, 99),
    pooling=st.sampled_from(POOLINGS),
    garbage=st.sampled_from([0.0, 1e30, float("inf"), float("nan")]),
)
def test_a_vector_depends_on_its_own_tokens_only(lengths, extra, seed, pooling, garbage):
    rng = np.random.default_rng(seed)
    items = [rng.normal(size=(length, D)).astype(np.float32) for length in lengths]
    expected = np.stack([by_hand(item, pooling) for item in items])
    for side in ("left", "right"):
        vectors = pool(*padded(items, max(lengths) + extra, side, garbage), pooling).numpy()
        np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)


def test_the_index_is_read_from_the_mask_not_from_the_end():
    states = torch.arange(8.0).reshape(1, 4, 2)
    mask = torch.tensor([[0, 1, 1, 0]])
    assert pool(states, mask, "last").tolist() == [[4.0, 5.0]]
    assert pool(states, mask, "cls").tolist() == [[2.0, 3.0]]
    assert pool(states, mask, "mean").tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_half_precision_states_give_float32_vectors_of_their_own(pooling):
    states = torch.full((1, 300, D), 1.1, dtype=torch.bfloat16)
    vectors = pool(states, torch.ones(1, 300), pooling)
    assert vectors.dtype == torch.float32
    np.testing.assert_allclose(vectors, float(states[0, 0, 0]), rtol=1e-5)
    states.zero_()
    assert vectors.abs().min() > 1


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="pooling must be one of last, mean, cls; got 'max'"):
        Pooler(torch.ones(1, 2), "max")
    with pytest.raises(ValueError, match=r"mask must be \[B, T\]; got shape \(3,\)"):
        Pooler(torch.ones(3), "mean")
    with pytest.raises(ValueError, match=r"keeps no token in row\(s\) \[1\]"):
        Pooler(torch.tensor([[1, 0], [0, 0]]), "mean")
    with pytest.raises(ValueError, match=r"states must be \[B, T, D\] with \[B, T\] = \(1, 2\); got shape \(1, 3, 4\)"):
        pool(torch.ones(1, 3, 4), torch.ones(1, 2), "mean")
