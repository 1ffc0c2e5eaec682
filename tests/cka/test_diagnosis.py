"""The diagnosis finds in planted layers what was planted there, and claims nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group

from miner_diag.cka import alignment_ratio, linear_cka, paired_cosines
from miner_diag.cka.diagnosis import Rules, diagnose
from miner_diag.cka.distinct import DistinctItems
from miner_diag.cka.gold_pairs import one_query_a_page
from miner_diag.cka.table import sentences

GOOD = ("rotated", "copy", "final")


def again(planted, *, rng=0, **changes):
    """Diagnose the planted layers with something changed."""
    arguments = {"queries": planted.queries, "pages": planted.pages, "gold": planted.gold, **planted.ids, **changes}
    queries, pages, gold = (arguments.pop(name) for name in ("queries", "pages", "gold"))
    return diagnose(queries, pages, gold, **arguments, rng=np.random.default_rng(rng))


def aligned(planted, diagnosis):
    return tuple(name for name in planted.names if diagnosis.layers[planted.layer[name]].retrieval_aligned)


def test_aligned_are_the_layers_that_retrieve_and_share_geometry(planted):
    assert aligned(planted, planted.diagnosis) == GOOD


def test_probe_kinds(planted):
    kinds = {name: planted.of[name].probe_kind for name in planted.names}
    assert kinds["rotated"] == kinds["rotated_apart"] == "normalized_projection"
    assert kinds["copy"] == kinds["final"] == "base"
    assert kinds["constant"] is None
    assert planted.of["rotated"].kind_is_sure and planted.of["copy"].kind_is_sure


def test_a_rotation_keeps_geometry_and_retrieval_but_not_coordinates(planted):
    rotated, final = planted.of["rotated"], planted.of["final"]
    assert rotated.page_final.cka.value == pytest.approx(1, abs=1e-6)
    assert rotated.query_final.cka.value == pytest.approx(1, abs=1e-6)
    assert rotated.page_final.alignment_ratio.high < 0.5
    assert rotated.ndcg.value == pytest.approx(final.ndcg.value, abs=1e-9)
    assert final.ndcg.low > 0.9


def test_a_scaled_noisy_copy_speaks_the_final_coordinates(planted):
    copy = planted.of["copy"]
    assert 0.8 < copy.page_final.cka.value < 1
    assert copy.page_final.alignment_ratio.low > 0.9
    # the scale itself does not count
    louder = planted.pages.copy()
    louder[:, planted.layer["copy"]] *= 1000
    assert again(planted, pages=louder).layers[planted.layer["copy"]].page_final.cka.value == pytest.approx(
        copy.page_final.cka.value, rel=1e-6
    )


def test_the_final_layer_against_itself(planted):
    final = planted.of["final"]
    for view in (final.page_final, final.query_final):
        for interval in (view.cka, view.alignment_ratio):
            assert (interval.low, interval.value, interval.high) == (1, 1, 1)


def test_noise_is_at_chance_and_within_its_null(planted):
    noise = planted.of["noise"]
    assert noise.ndcg.low < planted.diagnosis.chance < noise.ndcg.high
    for view in (noise.page_final, noise.query_final, noise.query_page):
        assert view.cka.value < view.null.upper
        assert view.null.mean == pytest.approx(0, abs=1e-12)
    assert noise.null_p > 0.05
    assert not noise.retrieval_aligned


def test_a_layer_without_a_shown_cka_does_not_settle_the_probe(planted):
    """Its ratio divides by a CKA that may be zero; whether the estimate falls just above or below is luck."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        pages = planted.pages.copy()
        pages[:, planted.layer["noise"]] = rng.normal(size=pages[:, 0].shape)
        noise = again(planted, pages=pages).layers[planted.layer["noise"]]
        if noise.page_final.null.p_value > 0.05:
            assert not noise.kind_is_sure, f"seed {seed}: CKA {noise.page_final.cka}"


def test_a_constant_layer_is_a_note_and_not_a_crash(planted):
    constant = planted.of["constant"]
    assert len(constant.notes) == 1
    assert "layer 0" in constant.notes[0]
    assert "same for all" in constant.notes[0]
    assert constant.page_final is constant.query_final is constant.query_page is None
    assert constant.effective_rank is constant.anisotropy is constant.null_p is None
    assert constant.ndcg.value == pytest.approx(planted.diagnosis.chance, abs=1e-9)
    assert not constant.retrieval_aligned
    assert constant.tie_rate == 1


@pytest.mark.parametrize("side", ["queries", "pages"])
def test_a_layer_constant_on_one_side_only(planted, side):
    changed = getattr(planted, side).copy()
    changed[:, planted.layer["copy"]] = changed[0, planted.layer["copy"]]
    copy = again(planted, **{side: changed}).layers[planted.layer["copy"]]
    assert "layer 4" in copy.notes[0] and side in copy.notes[0]
    assert not copy.retrieval_aligned


def one_ulp(rows):
    rows[3, 2] = np.nextafter(rows[3, 2], np.float32(np.inf))


def one_item(rows):
    rows[3] += 1


@pytest.mark.parametrize("change", [one_ulp, one_item])
def test_a_layer_that_has_no_cka_does_not_take_the_others_down(planted, change):
    """Kernels that round differently in another batch, or one item that differs: the other layers are still good."""
    changed = {side: getattr(planted, side).copy() for side in ("queries", "pages")}
    for side in changed.values():
        change(side[:, planted.layer["constant"]])
    diagnosis = again(planted, **changed)
    assert "layer 0" in diagnosis.layers[0].notes[0]
    assert aligned(planted, diagnosis) == GOOD


def test_cka_alone_never_aligns(planted):
    """Queries and pages turned differently: all geometry is shared, and the cosine between them is worthless."""
    apart = planted.of["rotated_apart"]
    assert apart.query_page.cka.value == pytest.approx(planted.of["rotated"].query_page.cka.value, abs=1e-6)
    assert apart.page_final.cka.value == pytest.approx(1, abs=1e-6)
    assert apart.null_p < 1e-6
    assert apart.ndcg.value < 0.1
    assert not apart.retrieval_aligned


def test_a_final_layer_at_chance_is_not_aligned_by_being_half_as_good_as_itself(planted):
    """A share of the final layer's nDCG says nothing where that is chance."""
    chosen = [planted.layer["rotated"], planted.layer["rotated_apart"]]
    useless = again(planted, queries=planted.queries[:, chosen], pages=planted.pages[:, chosen])
    final = useless.layers[-1]
    assert final.null_p < 1e-6 and final.share_margin.low > 0
    assert final.ndcg.low < useless.chance
    assert [layer.retrieval_aligned for layer in useless.layers] == [True, False]


def test_ndcg_alone_never_aligns(planted):
    """Rows of wildly different length: cosines are those of the final layer, CKA is not above its null."""
    loud, final = planted.of["loud"], planted.of["final"]
    assert loud.ndcg.value == pytest.approx(final.ndcg.value, abs=1e-9)
    assert loud.null_p > 0.05
    assert not loud.retrieval_aligned


def test_a_layer_above_chance_but_far_below_the_final_one_needs_a_lower_share(planted):
    rng = np.random.default_rng(3)
    changed = {side: getattr(planted, side).copy() for side in ("queries", "pages")}
    for side in changed.values():
        side[:, planted.layer["noise"]] = side[:, -1] + 1.3 * rng.normal(size=side[:, -1].shape)
    weak = again(planted, **changed)
    layer = weak.layers[planted.layer["noise"]]
    assert weak.chance < layer.ndcg.low and layer.ndcg.high < 0.5 * weak.layers[-1].ndcg.value
    assert layer.null_p < 0.05
    assert not layer.retrieval_aligned
    generous = again(planted, **changed, rules=Rules(aligned_share=0.1))
    assert generous.layers[planted.layer["noise"]].retrieval_aligned


@pytest.mark.parametrize("seed", range(5))
def test_with_a_shuffled_pairing_no_layer_is_aligned_the_final_one_included(planted, seed):
    order = np.random.default_rng(seed).permutation(len(planted.gold))
    shuffled = again(planted, gold=[planted.gold[row] for row in order])
    assert aligned(planted, shuffled) == ()
    for layer, before in zip(shuffled.layers, planted.diagnosis.layers, strict=True):
        # what does not look at the pairing has not moved
        assert layer.probe_kind == before.probe_kind
        if before.page_final is not None:
            assert layer.page_final.cka == before.page_final.cka
            assert layer.page_final.alignment_ratio == before.page_final.alignment_ratio


def test_numbers_are_those_of_the_formulas(planted):
    pair_query = np.arange(64)  # the first 64 queries ask for 64 different pages, and their ids come first
    pair_page = planted.answer[pair_query]
    assert planted.diagnosis.n_pairs == 64
    for name in ("noise", "rotated", "rotated_apart", "copy", "loud", "final"):
        layer, here = planted.of[name], planted.layer[name]
        sides = {
            "page_final": (planted.pages[:, here], planted.pages[:, -1]),
            "query_final": (planted.queries[:, here], planted.queries[:, -1]),
            "query_page": (planted.queries[pair_query, here], planted.pages[pair_page, here]),
        }
        for view, (x, y) in sides.items():
            comparison = getattr(layer, view)
            assert comparison.n == len(x)
            assert comparison.cka.value == pytest.approx(linear_cka(x, y), abs=1e-9)
            assert comparison.mean_cosine.value == pytest.approx(np.mean(paired_cosines(x, y)), abs=1e-12)
            if linear_cka(x, y) > 0:
                assert comparison.alignment_ratio.value == pytest.approx(alignment_ratio(x, y), rel=1e-8)
            else:
                assert comparison.alignment_ratio is None
                assert f"layer {here}" in " ".join(layer.notes)


def test_geometry_of_the_pages_is_that_of_the_formulas(planted):
    for name in ("noise", "copy", "loud", "final"):
        pages = planted.pages[:, planted.layer[name]].astype(np.float64)
        unit = pages / np.linalg.norm(pages, axis=1, keepdims=True)
        cosines = (unit @ unit.T)[~np.eye(len(unit), dtype=bool)]
        assert planted.of[name].anisotropy.value == pytest.approx(cosines.mean(), abs=1e-9)
        singular = np.linalg.svd(pages - pages.mean(0), compute_uv=False)
        share = singular / singular.sum()
        assert planted.of[name].effective_rank.value == pytest.approx(np.exp(-share @ np.log(share)), rel=1e-9)


def test_intervals_hold_their_value_and_know_their_n(planted):
    for layer in planted.diagnosis.layers:
        assert layer.ndcg.n == 96
        assert layer.ndcg.low <= layer.ndcg.value <= layer.ndcg.high
        for view, n in (("page_final", 80), ("query_final", 96), ("query_page", 64)):
            comparison = getattr(layer, view)
            if comparison is not None:
                for interval in (comparison.cka, comparison.mean_cosine, comparison.alignment_ratio):
                    assert interval is None or interval.n == n
                    assert interval is None or interval.low <= interval.value <= interval.high
        for interval in (layer.effective_rank, layer.anisotropy):
            assert interval is None or (interval.n == 80 and interval.low < interval.value < interval.high)


def test_p_values_are_adjusted_for_the_number_of_layers(planted):
    for layer in planted.diagnosis.layers[1:]:
        assert layer.null_p >= layer.query_page.null.p_value
    assert planted.of["noise"].null_p > 0.05
    smallest = min(layer.query_page.null.p_value for layer in planted.diagnosis.layers[1:])
    assert min(layer.null_p for layer in planted.diagnosis.layers[1:]) == pytest.approx(6 * smallest, abs=0)


def test_the_order_of_the_items_does_not_count_but_for_which_query_stands_for_a_page(planted):
    rng = np.random.default_rng(9)
    # the first 64 queries ask for a page each, and stay before those that ask for the same pages again
    some = np.concatenate([rng.permutation(64), 64 + rng.permutation(len(planted.queries) - 64)])
    other = rng.permutation(len(planted.pages))
    place = np.argsort(other)
    moved = again(
        planted,
        queries=planted.queries[some],
        pages=planted.pages[other],
        gold=[{int(place[planted.answer[row]]): 1} for row in some],
        query_ids=[planted.ids["query_ids"][row] for row in some],
        page_ids=[planted.ids["page_ids"][row] for row in other],
    )
    for layer, before in zip(moved.layers, planted.diagnosis.layers, strict=True):
        assert layer.ndcg.value == pytest.approx(before.ndcg.value, abs=1e-12)
        assert (layer.probe_kind, layer.retrieval_aligned) == (before.probe_kind, before.retrieval_aligned)
        if before.query_page is not None:
            assert layer.query_page.cka.value == pytest.approx(before.query_page.cka.value, abs=1e-9)
            assert layer.page_final.cka.value == pytest.approx(before.page_final.cka.value, abs=1e-9)


def test_a_seed_gives_the_same_intervals_and_another_the_same_values(planted):
    same, other = again(planted), again(planted, rng=1)
    for layer, repeated, reseeded in zip(planted.diagnosis.layers, same.layers, other.layers, strict=True):
        assert repeated.ndcg == layer.ndcg
        assert reseeded.ndcg.value == layer.ndcg.value
    assert any(a.ndcg.low != b.ndcg.low for a, b in zip(same.layers, other.layers, strict=True))


def pairs_of(gold, queries, pages):
    rows, columns = one_query_a_page(gold, DistinctItems.of(queries), DistinctItems.of(pages))
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def test_one_query_a_page_is_the_first_in_the_order_of_the_corpus():
    gold = [{2: 1}, {0: 1}, {2: 1}, {1: 1, 3: 2}, {3: 1}]
    # pages 2 and 3 have two queries each, and the first of them stands for it; 3 is the better page of the fourth query
    assert pairs_of(gold, "edcba", range(4)) == [(0, 2), (1, 0), (3, 3)]


def test_a_query_takes_the_first_of_its_best_pages_that_is_free():
    gold = [{1: 1, 0: 1}, {0: 1, 2: 1, 1: 1}, {0: 1, 1: 1}]
    assert pairs_of(gold, "abc", range(3)) == [(0, 0), (1, 1)]
    gold = [{0: 2, 1: 1}, {0: 2, 1: 1}]
    assert pairs_of(gold, "ab", range(2)) == [(0, 0)]  # a lower grade does not stand for the better one


def test_equal_and_empty_inputs_stand_in_one_pair_or_none():
    gold = [{0: 1}, {1: 1}, {2: 1}, {3: 1}, {4: 1}]
    assert pairs_of(gold, ["a", "b", "a", None, "c"], ["p", "p", "r", "s", None]) == [(0, 0)]
    assert pairs_of(gold, ["a", "b", "c", "d", "e"], ["p", "p", "r", "s", None]) == [(0, 0), (2, 2), (3, 3)]


def test_intervals_over_documents_are_wider_where_items_of_a_document_are_alike():
    rng = np.random.default_rng(2)
    n_documents, each, d = 12, 8, 10
    document = np.repeat(np.arange(n_documents), each)
    meaning = 3 * rng.normal(size=(n_documents, d))[document] + rng.normal(size=(len(document), d))
    blur = np.where(document % 2, 0.1, 3.0)[:, None]  # queries of every second document are hard
    pages = np.stack([meaning + rng.normal(size=meaning.shape), meaning], axis=1)
    queries = pages + blur[:, :, None] * rng.normal(size=pages.shape)
    names = [f"d{number}" for number in document]
    ids = {
        "query_ids": [f"q{row}" for row in range(len(document))],
        "page_ids": [f"p{row}" for row in range(len(document))],
        "page_inputs": [f"h{row}" for row in range(len(document))],
    }
    gold = [{row: 1} for row in range(len(document))]
    single = diagnose(queries, pages, gold, **ids, rng=np.random.default_rng(0)).layers[0]
    grouped = diagnose(
        queries, pages, gold, **ids, query_documents=names, page_documents=names, rng=np.random.default_rng(0)
    ).layers[0]
    intervals = {
        "ndcg": lambda layer: layer.ndcg,
        "share margin": lambda layer: layer.share_margin,
        "cka page": lambda layer: layer.page_final.cka,
        "cosine page": lambda layer: layer.page_final.mean_cosine,
        "ratio page": lambda layer: layer.page_final.alignment_ratio,
        "cka query": lambda layer: layer.query_final.cka,
        "cka pair": lambda layer: layer.query_page.cka,
        "anisotropy": lambda layer: layer.anisotropy,
        "effective rank": lambda layer: layer.effective_rank,
    }
    for name, get in intervals.items():
        one, many = get(single), get(grouped)
        assert many.value == pytest.approx(one.value), name
        assert one.n_clusters is None, name
        assert many.n_clusters == n_documents, name
        assert many.high - many.low != one.high - one.low, name
    for name in ("ndcg", "cka page", "anisotropy"):
        one, many = intervals[name](single), intervals[name](grouped)
        assert many.high - many.low > 1.2 * (one.high - one.low), name


def test_the_page_matrix_is_symmetric_and_its_last_column_is_cka_to_the_final_layer(planted):
    matrix = planted.diagnosis.page_matrix
    assert planted.diagnosis.usable == tuple(range(1, 7))  # the constant one is left out
    assert matrix.names == tuple(f"layer {number}" for number in range(1, 7))
    np.testing.assert_allclose(matrix.values, matrix.values.T, atol=1e-7)
    np.testing.assert_allclose(np.diag(matrix.values), 1, atol=1e-9)
    expected = [layer.page_final.cka.value for layer in planted.diagnosis.layers[1:]]
    np.testing.assert_allclose(matrix.values[:, -1], expected, atol=1e-4)


def test_unit_rows_are_the_second_reading_of_normalized_cka(planted):
    """Rows at length one take the loudness away that CKA sees."""
    loud = planted.layer["loud"] - 1
    assert planted.diagnosis.unit_rows.values[loud, 0] == pytest.approx(1, abs=1e-4)
    assert planted.diagnosis.page_matrix.values[loud, -1] < 0.5


def test_chance_is_the_ndcg_of_a_random_order(planted):
    # one right page among 80: each of ranks 1 to 5 with probability 1 / 80
    assert planted.diagnosis.chance == pytest.approx((1 / np.log2(np.arange(2, 7))).sum() / 80)


@pytest.mark.parametrize(
    ("n_queries", "n_pages", "what"), [(3, 20, "queries"), (20, 3, "pages"), (6, 20, "query-page pairs")]
)
def test_a_split_too_small_for_cka_is_a_sentence(planted, n_queries, n_pages, what):
    answers = [row % 3 for row in range(n_queries)]
    ids = {"query_ids": planted.ids["query_ids"][:n_queries]}
    ids |= {name: planted.ids[name][:n_pages] for name in ("page_ids",)}
    with pytest.raises(ValueError, match=rf"at least 4 {what}.*has 3.*--split.*--limit"):
        diagnose(
            planted.queries[:n_queries],
            planted.pages[:n_pages],
            [{answer: 1} for answer in answers],
            **ids,
            rng=np.random.default_rng(0),
        )


def test_four_of_everything_is_enough(planted):
    ids = {name: planted.ids[name][:4] for name in planted.ids}
    diagnosis = diagnose(planted.queries[:4], planted.pages[:4], planted.gold[:4], **ids, rng=np.random.default_rng(0))
    assert diagnosis.n_pairs == 4
    assert (diagnosis.layers[-1].page_final.cka.low, diagnosis.layers[-1].page_final.cka.high) == (-1, 1)
    assert len(sentences(diagnosis)) == 2


@pytest.mark.parametrize("side", ["queries", "pages"])
def test_a_constant_final_layer_is_a_sentence(planted, side):
    changed = getattr(planted, side).copy()
    changed[:, -1] = changed[0, -1]
    n = len(changed)
    with pytest.raises(ValueError, match=f"layer 6, the final one, is the same for all {n} {side}"):
        again(planted, **{side: changed})


@pytest.mark.parametrize(
    ("name", "value"),
    [("aligned_share", 0), ("aligned_share", 1), ("ratio_threshold", 0), ("ratio_threshold", -1)],
)
def test_rules_out_of_range_are_sentences(name, value):
    with pytest.raises(ValueError, match=f"{name} must .*got {value}"):
        Rules(**{name: value})


def test_the_threshold_of_the_ratio_is_an_option(planted):
    strict = again(planted, rules=Rules(ratio_threshold=2.0))
    assert strict.layers[planted.layer["copy"]].probe_kind == "normalized_projection"
    assert strict.layers[-1].probe_kind == "base"
    lax = again(planted, rules=Rules(ratio_threshold=0.01))
    assert lax.layers[planted.layer["rotated"]].probe_kind == "base"


def test_an_interval_around_the_threshold_leaves_the_kind_open():
    """A layer turned by so much that its ratio is about 0.5."""
    rng = np.random.default_rng(4)
    final = rng.normal(size=(60, 8))
    turned = 0.5 * final + np.sqrt(0.75) * final @ ortho_group.rvs(8, random_state=1)
    layers = np.stack([turned, final], axis=1)
    ids = {name: [f"{name}{row}" for row in range(60)] for name in ("query_ids", "page_ids")}

    def with_threshold(threshold):
        gold = [{row: 1} for row in range(60)]
        rules = Rules(ratio_threshold=threshold)
        return diagnose(layers, layers, gold, **ids, rules=rules, rng=np.random.default_rng(0)).layers[0]

    ratio = with_threshold(0.5).page_final.alignment_ratio
    assert not with_threshold(0.5 * (ratio.value + ratio.high)).kind_is_sure
    assert not with_threshold(0.5 * (ratio.value + ratio.low)).kind_is_sure
    assert with_threshold(ratio.high * 1.1).kind_is_sure
    assert with_threshold(ratio.low * 0.9).kind_is_sure


def test_biased_cka_is_above_its_own_null_where_noise_is_not(planted):
    """The plug-in estimate of noise is far from 0, and so is its null; the verdicts do not move."""
    biased = again(planted, rules=Rules(estimator="biased"))
    noise = biased.layers[planted.layer["noise"]]
    assert noise.query_page.cka.value > 0.1
    assert noise.query_page.null.mean == pytest.approx(noise.query_page.cka.value, abs=0.05)
    assert aligned(planted, biased) == GOOD
    assert biased.page_matrix.estimator == "biased"


def test_verdicts_are_plain_python_values(planted):
    for layer in planted.diagnosis.layers:
        assert type(layer.retrieval_aligned) is bool
        assert type(layer.kind_is_sure) is bool
