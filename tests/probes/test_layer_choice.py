"""Which layers MINER's form takes, and which probe each gets: CKA selects, the alignment ratio types."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ortho_group

from miner_diag.probes import ProbeError
from miner_diag.probes.layer_choice import (
    LayerChoiceOptions,
    choose_layers,
    kinds_by_ratio,
    measure_layers,
    selected_layers,
)
from tests.probes.helpers import retrieval_data

READINGS = ("plain", "unit_rows", "relative")
RATIOS = ("final", "final_centred", "query_page", "query_page_centred")


@pytest.fixture
def near(rng):
    """Sixty queries and pages; each layer is nearer to the final one than the one before it, the first is noise."""
    meaning = rng.normal(size=(60, 10)) + 0.5
    sides = []
    for _ in range(2):
        final = meaning + 0.3 * rng.normal(size=meaning.shape)
        near = [final + noise * rng.normal(size=final.shape) for noise in (1.5, 0.8, 0.4)]
        sides.append(np.stack([rng.normal(size=final.shape), *near, final], axis=1).astype(np.float32))
    return retrieval_data(*sides)


def changed(data, function):
    """The same items with other vectors [N, L, D]."""
    sides = (np.ascontiguousarray(function(side.astype(np.float64)), dtype=np.float32) for side in data_sides(data))
    return replace(data, **dict(zip(("queries", "pages"), sides, strict=True)))


def data_sides(data):
    return data.queries, data.pages


def column(data, name):
    return np.array([getattr(row, name) for row in measure_layers(data, data)], dtype=np.float64)


def slow_cka(x, y):
    """Debiased: equation 5 of Song et al. 2012, of both sides and of each with itself."""

    def hsic(k, m):
        n = len(k)
        pairs = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * k.sum(axis=0) @ m.sum(axis=0)
        return (np.trace(k @ m) + pairs) / (n * (n - 3))

    k, m = (side @ side.T for side in (x, y))
    for kernel in (k, m):
        np.fill_diagonal(kernel, 0)
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def cosine(x, y):
    return (x * y).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)


# --- the measures


def test_readings_by_their_formulas(near):
    queries, pages = (side.astype(np.float64) for side in data_sides(near))
    rows = measure_layers(near, near)
    assert [row.layer for row in rows] == list(range(5))
    plain = [slow_cka(pages[:, layer], pages[:, -1]) for layer in range(5)]
    short = pages / np.linalg.norm(pages, axis=2, keepdims=True)
    np.testing.assert_allclose([row.unit_rows for row in rows], [slow_cka(short[:, n], short[:, -1]) for n in range(5)])
    np.testing.assert_allclose([row.plain for row in rows], plain)
    own = np.array([row.plain for row in rows])
    np.testing.assert_allclose([row.relative for row in rows], [*(own[:-1] / own[:-1].max()), 1.0])
    assert rows[0].plain <= 0 and rows[0].final is rows[0].final_centred is None  # no ratio to a CKA of 0 or less
    mean = pages.mean(axis=0)
    for layer, row in enumerate(rows[1:], 1):
        page, final = pages[:, layer], pages[:, -1]
        assert row.final == pytest.approx(cosine(page, final).mean() / row.plain)
        centred = cosine(page - mean[layer], final - mean[-1]).mean()
        assert row.final_centred == pytest.approx(centred / row.plain)
        paired = cosine(queries[:, layer] - mean[layer], page - mean[layer]).mean()
        assert paired / row.query_page_centred == pytest.approx(cosine(queries[:, layer], page).mean() / row.query_page)


def test_the_mean_that_is_taken_out_is_that_of_the_training_pages(near):
    train = replace(near, pages=near.pages + np.float32(3.0))
    pages = near.pages.astype(np.float64)
    mean = train.pages.astype(np.float64).mean(axis=0)
    own = measure_layers(near, near)
    for layer, row in enumerate(measure_layers(near, train)):
        uncentred = ("plain", "unit_rows", "relative", "final", "query_page")
        assert [getattr(row, name) for name in uncentred] == [getattr(own[layer], name) for name in uncentred]
        if row.final is not None and layer < 4:
            centred = cosine(pages[:, layer] - mean[layer], pages[:, -1] - mean[-1]).mean() / row.plain
            assert row.final_centred == pytest.approx(centred)
            assert row.final_centred != pytest.approx(own[layer].final_centred, abs=1e-3)


@pytest.mark.parametrize("reading", READINGS)
def test_a_turned_or_scaled_layer_has_the_same_cka(near, reading):
    turn = ortho_group.rvs(10, random_state=3)

    def turned(side):
        side[:, 1] = 7.0 * side[:, 1] @ turn
        return side

    np.testing.assert_allclose(column(changed(near, turned), reading), column(near, reading), atol=1e-5)


def test_a_stretched_layer_has_another_cka(near):
    """The negative control of the turn: neurons of another scale are another geometry."""

    def stretched(side):
        side[:, 1] *= np.geomspace(0.1, 10, 10)
        return side

    assert abs(column(changed(near, stretched), "plain")[1] - column(near, "plain")[1]) > 0.05


def moved(data, size):
    """A direction that all items share, the same at all layers."""
    shared = np.random.default_rng(9).normal(size=10)
    return changed(data, lambda side: side + size * shared / np.linalg.norm(shared))


@pytest.mark.parametrize("ratio", ["final", "query_page"])
def test_a_common_vector_moves_the_ratio_unless_it_is_centred(near, ratio):
    together = moved(near, 100.0)
    centred = f"{ratio}_centred"
    np.testing.assert_allclose(column(together, centred), column(near, centred), atol=2e-3)
    np.testing.assert_allclose(column(together, "plain"), column(near, "plain"), atol=1e-4)
    # the negative control: the cosine that is not centred goes to 1 at every layer, whatever it held before
    if ratio == "final":
        np.testing.assert_allclose((column(together, ratio) * column(near, "plain"))[1:], 1.0, atol=0.02)
        assert (column(near, ratio) * column(near, "plain"))[1] < 0.8
    assert np.abs(column(together, ratio) - column(near, ratio))[1:].max() > 0.5


def test_only_the_turned_layer_loses_its_ratio_with_the_final_one(near):
    turn = ortho_group.rvs(10, random_state=3)

    def turned(side):
        side[:, 3] = side[:, 3] @ turn
        return side

    before, after = column(near, "final"), column(changed(near, turned), "final")
    np.testing.assert_allclose(np.delete(after, 3), np.delete(before, 3))
    assert before[3] > 0.8 and after[3] < 0.5


def test_equal_items_enter_once(near):
    twice = replace(near, pages=near.pages.copy(), queries=near.queries.copy())
    pages = np.concatenate([twice.pages, np.repeat(twice.pages[:1], 40, axis=0)])
    queries = np.concatenate([twice.queries, np.repeat(twice.queries[:1], 40, axis=0)])
    for name in (*READINGS, *RATIOS):
        np.testing.assert_allclose(column(retrieval_data(queries, pages), name), column(near, name), err_msg=name)


def test_a_constant_layer_has_no_number_and_is_never_selected(near):
    def constant(side):
        side[:, 2] = 1.0
        return side

    data = changed(near, constant)
    row = measure_layers(data, data)[2]
    assert [getattr(row, name) for name in (*READINGS, *RATIOS)] == [None] * 7
    choice = choose_layers(data, LayerChoiceOptions(select="closest", n_closest=4))
    assert choice.layers == (0, 1, 3, 4) and choice.kinds[2] == "normalized_projection"
    assert choose_layers(data, LayerChoiceOptions(least_cka=0.01)).layers == (3, 4)  # a run ends before it


# --- the rule


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        (LayerChoiceOptions(), (3, 4, 5)),
        (LayerChoiceOptions(least_cka=0.45), (2, 3, 4, 5)),
        (LayerChoiceOptions(least_cka=0.7), (4, 5)),
        (LayerChoiceOptions(select="threshold"), (0, 3, 4, 5)),
        (LayerChoiceOptions(select="threshold", least_cka=0.65), (0, 4, 5)),
        (LayerChoiceOptions(select="closest"), (0, 3, 4, 5)),
        (LayerChoiceOptions(select="closest", n_closest=1), (4, 5)),
        (LayerChoiceOptions(select="closest", n_closest=9), (0, 2, 3, 4, 5)),
    ],
)
def test_the_rule_by_hand(options, layers):
    assert selected_layers([0.7, None, 0.45, 0.6, 0.8, 1.0], options) == layers


CKA = st.lists(st.one_of(st.none(), st.integers(0, 100).map(lambda percent: percent / 100)), min_size=2, max_size=9)


def layers_or_none(values, options):
    try:
        return set(selected_layers(values, options))
    except ProbeError:
        return {len(values) - 1}


@given(CKA, st.integers(1, 100), st.integers(1, 9))
def test_a_run_is_the_part_of_the_threshold_without_a_gap_and_closest_are_the_largest(values, percent, n):
    final = len(values) - 1
    run, threshold = (
        layers_or_none(values, LayerChoiceOptions(select=select, least_cka=percent / 100))
        for select in ("run", "threshold")
    )
    assert run == set(range(min(run), final + 1)) and run <= threshold
    assert min(run) - 1 not in threshold
    assert threshold - {final} == {n for n, v in enumerate(values[:-1]) if v is not None and v >= percent / 100}
    closest = layers_or_none(values, LayerChoiceOptions(select="closest", n_closest=n)) - {final}
    known = {layer: v for layer, v in enumerate(values[:-1]) if v is not None}
    assert len(closest) == min(n, len(known))
    assert all(known[one] >= known[other] for one in closest for other in set(known) - closest)


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        ([0.6, 0.3, 1.0], LayerChoiceOptions(), r"\(plain\) of at least 0.5 \(run; the largest is 0.600\)"),
        ([None, 0.1, 1.0], LayerChoiceOptions(select="threshold"), r"\(plain\) .* \(threshold; the largest is 0.100\)"),
        ([None, None, 1.0], LayerChoiceOptions(normalized_cka="relative"), r"\(relative\) .* \(run; none has one\)"),
    ],
)
def test_an_empty_selection_is_a_sentence(values, options, said):
    with pytest.raises(ProbeError, match=rf"no inner layer has a normalized CKA {said}.*so there is nothing to fuse;"):
        selected_layers(values, options)


def test_closest_of_none_is_a_sentence():
    with pytest.raises(ProbeError, match=r"no inner layer has a normalized CKA \(plain\) at all: each is constant, or"):
        selected_layers([None, None, 1.0], LayerChoiceOptions(select="closest"))


def test_kinds_by_hand_and_the_final_layer_is_base():
    options = LayerChoiceOptions(least_ratio=0.6)
    norm = "normalized_projection"
    assert kinds_by_ratio([0.59, 0.6, None, -3.0, 2.0, 0.1], options) == (norm, "base", norm, norm, "base", "base")


# --- the choice


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("ratio", ["final", "query_page"])
@pytest.mark.parametrize("centred", [True, False])
def test_the_choice_follows_the_readings_that_are_asked_for(near, reading, ratio, centred):
    options = LayerChoiceOptions(normalized_cka=reading, ratio=ratio, centred=centred, least_cka=0.7, least_ratio=0.9)
    choice = choose_layers(near, options)
    assert choice.layers == selected_layers([getattr(row, reading) for row in choice.measures], options)
    named = f"{ratio}_centred" if centred else ratio
    assert choice.kinds == kinds_by_ratio([getattr(row, named) for row in choice.measures], options)
    facts = choice.facts()
    assert facts["selected_layers"] == list(choice.layers) and facts["options"]["normalized_cka"] == reading
    for row, layer in zip(facts["layers"], range(5), strict=True):
        assert row["selected"] == (layer in choice.layers) and row["kind"] == choice.kinds[layer]
        assert (row["selected_by"], row["typed_by"]) == (row[reading], row[named])


def test_planted_layers_are_chosen_by_default(near):
    choice = choose_layers(near)
    assert choice.layers[-1] == 4 and choice.layers[0] > 0 and choice.kinds[0] == "normalized_projection"
    assert choice.kinds[3] == choice.kinds[4] == "base"


def test_named_layers_are_taken_and_still_typed(near):
    choice = choose_layers(near, layers=(0, 4))
    assert choice.layers == (0, 4) and choice.kinds == choose_layers(near).kinds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"least_cka": 0.0}, "least_cka must be above 0; got 0.0"),
        ({"least_ratio": float("nan")}, "least_ratio must be above 0; got nan"),
        ({"n_closest": 0}, "n_closest must be at least 1; got 0"),
        ({"select": "closest", "least_cka": 0.4}, "least_cka has no effect with select closest; leave it out"),
        ({"n_closest": 2}, "n_closest has no effect with select run; leave it out"),
    ],
)
def test_options_out_of_range_or_without_effect_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        LayerChoiceOptions(**options)
