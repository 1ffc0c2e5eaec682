import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner_diag.embeddings.batching import plan_batches

LENGTHS = st.lists(st.integers(1, 50), max_size=60)


@given(LENGTHS, st.integers(1, 200))
def test_every_item_once_and_no_batch_over_the_budget(lengths, budget):
    batches = plan_batches(lengths, budget)
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    for batch in batches:
        assert batch
        assert len(batch) == 1 or len(batch) * max(lengths[p] for p in batch) <= budget


@given(LENGTHS, st.integers(1, 200))
def test_longest_first(lengths, budget):
    order = [lengths[position] for batch in plan_batches(lengths, budget) for position in batch]
    assert order == sorted(lengths, reverse=True)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="token_budget must be at least 1; got 0"):
        plan_batches([1], 0)
    with pytest.raises(ValueError, match="every item must have at least 1 token; got 0"):
        plan_batches([3, 0], 5)
