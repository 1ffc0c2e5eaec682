"""Streamed is whole: any batches, any order, any shards, any offset; and what a batch may not be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from miner_diag.cka import StreamingCKA, UndefinedCKAError, cka_matrix
from miner_diag.cka.moments import FIELDS, PairMoments


def planted(rng, n=203, layers=3, d=6):
    hidden = rng.normal(size=(n, 4))
    return np.stack([hidden @ rng.normal(size=(4, d)) + rng.normal(size=(n, d)) for _ in range(layers)], axis=1)


def streamed(x, cuts, estimator="debiased", final=True, **options):
    stream = StreamingCKA(estimator, **options)
    for part in np.split(x, cuts):
        stream.update(part, part[:, -1] if final else None)
    return stream


def whole(x, estimator="debiased", final=True):
    return cka_matrix(x, x[:, -1] if final else None, estimator=estimator, intervals=False, null=False).values


@pytest.mark.parametrize("estimator", ["debiased", "biased"])
@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("batch", [1, 2, 37, 101, 202, 203])
def test_batches_of_any_size_give_the_whole_value(rng, estimator, final, batch):
    x = planted(rng)
    x[:, :, 0] += 1e4
    result = streamed(x, np.arange(batch, 203, batch), estimator, final).compute()
    np.testing.assert_allclose(result.values, whole(x, estimator, final), rtol=0, atol=1e-11)
    assert (result.n, result.route, result.estimator) == (203, "streaming", estimator)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 60), max_size=8),
    offset=st.sampled_from([0.0, 1e2, 1e4]),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
    seed=st.integers(0, 1000),
)
def test_any_cuts_offset_and_scale(cuts, offset, scale, seed):
    x = (planted(np.random.default_rng(seed), 60, 2, 3) + offset) * scale
    np.testing.assert_allclose(streamed(x, sorted(cuts)).compute().values, whole(x), rtol=0, atol=1e-9)


def test_order_of_items_does_not_matter(rng):
    x = planted(rng)
    one = streamed(x, [50, 51]).compute().values
    other = streamed(x[rng.permutation(203)], [1, 130]).compute().values
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_a_first_batch_far_from_the_rest_is_outgrown(rng):
    # Sums relative to a far first row would lose (distance / spread)^4 = 10^12 of float64's 10^16.
    x = rng.normal(size=(5000, 2, 3))
    x[0] = 1e3
    for first in (1, 64):
        cuts = np.arange(first, 5000, 64)
        np.testing.assert_allclose(streamed(x, cuts).compute().values, whole(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("blocks", [0, 4])
def test_shards_merge_to_the_whole_and_travel_as_arrays(rng, blocks, tmp_path):
    x = planted(rng)
    x[:, :, 1] += 1e3
    x[80:, :, 2] -= 50  # shards that differ in mean
    parts = [streamed(part, [20, 21], blocks=blocks) for part in np.split(x, [80, 150])]
    before = parts[1].compute().values
    np.savez(tmp_path / "shard.npz", **parts[1].state())
    merged = StreamingCKA(blocks=blocks)
    with np.load(tmp_path / "shard.npz", allow_pickle=False) as arrays:
        merged.merge(parts[2]).merge(StreamingCKA.from_state(arrays)).merge(parts[0])
    merged.merge(StreamingCKA(blocks=blocks))
    np.testing.assert_allclose(merged.compute().values, whole(x), rtol=0, atol=1e-11)
    np.testing.assert_array_equal(parts[1].compute().values, before)
    assert merged.n == 203


def test_a_stream_goes_on_after_compute_and_after_reload(rng):
    x = planted(rng)
    stream = streamed(x[:100], [40])
    stream.compute()
    again = StreamingCKA.from_state(stream.state())
    for item in (stream, again):
        item.update(x[100:], x[100:, -1])
        np.testing.assert_allclose(item.compute().values, whole(x), rtol=0, atol=1e-12)


def test_widths_may_differ_and_inputs_may_be_tensors(rng):
    layers = [rng.normal(size=(50, 3)), rng.normal(size=(50, 7))]
    stream = StreamingCKA()
    for part in (slice(0, 20), slice(20, 50)):
        stream.update([torch.from_numpy(side[part]) for side in layers])
    result = stream.compute()
    np.testing.assert_allclose(result.values, cka_matrix(layers, intervals=False, null=False).values, atol=1e-12)
    assert result.widths == (3, 7)


def test_block_intervals_agree_with_item_intervals_on_independent_items(rng):
    x = planted(rng, 2000)
    items = cka_matrix(x, x[:, -1], null=False)
    blocks = streamed(x, np.arange(50, 2000, 50), blocks=40).compute()
    assert blocks.n_groups == 40
    np.testing.assert_allclose(
        (blocks.high - blocks.low)[:2], (items.high - items.low)[:2], rtol=0.4
    )  # 40 blocks know a standard error to about 11 %


def test_block_left_out_is_the_value_without_it(rng):
    x = planted(rng, 90)
    result = streamed(x, [30, 60], blocks=3).compute()
    np.testing.assert_allclose(result.left_out_groups[1], whole(np.delete(x, np.s_[30:60], axis=0)), rtol=0, atol=1e-12)


def test_a_batch_may_name_its_block(rng):
    x = planted(rng, 90)
    in_turn = streamed(x, [30, 60], blocks=3).compute()
    named = StreamingCKA(blocks=3)
    for rows, block in ((slice(60, 90), 2), (slice(0, 20), 0), (slice(30, 60), 1), (slice(20, 30), 0)):
        named.update(x[rows], x[rows, -1], block=block)
    result = named.compute()
    np.testing.assert_allclose(result.left_out_groups, in_turn.left_out_groups, rtol=0, atol=1e-12)
    np.testing.assert_allclose((result.low, result.high), (in_turn.low, in_turn.high), rtol=0, atol=1e-9)
    assert result.effective_groups == 3
    with pytest.raises(ValueError, match="block must be 0 … blocks - 1 with blocks = 3; got 3"):
        named.update(x, x[:, -1], block=3)
    assert named.n == 90


def test_blocks_of_unequal_size_count_less(rng):
    x = planted(rng, 90)
    result = streamed(x, [60, 75], blocks=3).compute()
    assert (result.n_groups, result.effective_groups) == (3, pytest.approx(90**2 / (60**2 + 2 * 15**2)))


def test_memory_does_not_grow_with_rows(rng):
    stream = StreamingCKA()

    def size():
        return sum(array.nbytes for array in stream.state().values())

    for batch in range(40):
        part = rng.normal(size=(25, 2, 4))
        stream.update(part, part[:, -1])
        if batch == 0:
            first = size()
    assert size() == first


def test_moving_the_reference_is_exact(rng):
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))

    def of(a, b):
        return PairMoments.of(a, b, (a**2).sum(1), (b**2).sum(1))

    a, b = rng.normal(size=3), rng.normal(size=2)
    for field in FIELDS:
        np.testing.assert_allclose(getattr(of(x, y).shifted(a, b), field), getattr(of(x - a, y - b), field), atol=1e-11)
        np.testing.assert_allclose(
            getattr(of(x, y).scaled(2.0, 0.5), field), getattr(of(x * 2, y / 2), field), atol=1e-12
        )
        np.testing.assert_allclose(
            getattr(of(x, y) - of(x[:5], y[:5]), field), getattr(of(x[5:], y[5:]), field), atol=1e-11
        )


class TestErrors:
    def test_a_bad_batch_is_refused_whole_and_named(self, rng):
        x = planted(rng)
        stream = streamed(x[:100], [])
        bad = x[100:].copy()
        bad[7, 2, 1] = np.nan
        with pytest.raises(
            UndefinedCKAError, match=r"x layer 2 \(d=6\) holds nan at item 107 of the stream, dimension 1"
        ):
            stream.update(bad, bad[:, -1])
        with pytest.raises(ValueError, match=r"3 and 1 of widths \(6, 6, 6, 6\) before, 2 and 1 of"):
            stream.update(x[100:, :2], x[100:, -1])
        with pytest.raises(ValueError, match=r"row counts \[103, 103, 103, 102\]"):
            stream.update(x[100:], x[101:, -1])
        stream.update(x[100:], x[100:, -1])
        np.testing.assert_allclose(stream.compute().values, whole(x), rtol=0, atol=1e-12)

    def test_nothing_to_compute(self, rng):
        with pytest.raises(UndefinedCKAError, match="n=0 rows: CKA needs at least 4"):
            StreamingCKA().compute()
        with pytest.raises(UndefinedCKAError, match="n=3 rows"):
            StreamingCKA().update(rng.normal(size=(3, 2))).compute()
        with pytest.raises(UndefinedCKAError, match=r"y layer 0 is the same for all 1000 items \(d=2\)"):
            stream = StreamingCKA()
            for _ in range(10):
                stream.update(rng.normal(size=(100, 2)), np.full((100, 2), 0.1))
            stream.compute()
        with pytest.raises(UndefinedCKAError, match="self-HSIC of zero"):
            StreamingCKA().update(np.eye(10)).compute()

    def test_streams_that_do_not_fit(self, rng):
        x = planted(rng)
        with pytest.raises(ValueError, match="agree in estimator and blocks"):
            StreamingCKA("biased").merge(streamed(x, []))
        with pytest.raises(ValueError, match="same layers"):
            streamed(x, []).merge(streamed(x[:, :2], []))
        with pytest.raises(ValueError, match="blocks must be 0"):
            StreamingCKA(blocks=1)
        with pytest.raises(ValueError, match="estimator must be"):
            StreamingCKA("unbiased")
        with pytest.raises(ValueError, match="at least 2 blocks, got one batch"):
            streamed(x, [], blocks=5).compute()
        with pytest.raises(ValueError, match="counts, options, scales missing"):
            StreamingCKA.from_state({})
