import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner_diag.embeddings.batching import plan_batches, plan_shards

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


@given(LENGTHS, st.integers(1, 200), st.integers(1, 20))
def test_shards_are_whole_batches_in_order(lengths, budget, shard_items):
    batches = plan_batches(lengths, budget)
    shards = plan_shards(batches, shard_items)
    assert [batch for shard in shards for batch in shard] == batches
    for shard in shards[:-1]:
        assert sum(map(len, shard)) >= shard_items
    for shard in shards:
        assert sum(map(len, shard[:-1])) < shard_items


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="token_budget must be at least 1; got 0"):
        plan_batches([1], 0)
    with pytest.raises(ValueError, match="every item must have at least 1 token; got 0"):
        plan_batches([3, 0], 5)
    with pytest.raises(ValueError, match="shard_items must be at least 1; got 0"):
        plan_shards([[0]], 0)
