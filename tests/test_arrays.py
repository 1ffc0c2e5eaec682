"""No public function of arrays gives a number for input that NumPy would read as something else than what was meant."""

import inspect
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from miner_diag import cka, probes, retrieval, stats
from miner_diag.arrays import beyond_float32, label_array, real_array, refuse_other_labels, whole_number, whole_numbers
from miner_diag.cka.diagnosis import Rules
from miner_diag.cka.features import linear_sum
from miner_diag.cka.hsic import centre_kernel, centring_offsets, hsic_normaliser, linear_row_sums
from miner_diag.cka.permutation import kernel_shape
from miner_diag.cka.plots import cka_heat_map
from miner_diag.cka.table import null_level
from miner_diag.fusion import adaptive_shares, neuron_mask
from miner_diag.probes.compare_kinds import spearman
from miner_diag.retrieval.ranking import ndcg_of_vectors
from miner_diag.retrieval.relevance import Relevance

N, D = 12, 4


def rows(seed=0, shape=(N, D)):
    return np.random.default_rng(seed).normal(size=shape)


def kernel(seed=0):
    return rows(seed) @ rows(seed).T


def rng():
    return np.random.default_rng(0)


def of_relevance(scores):
    return Relevance.of(np.zeros(N, dtype=int), n_pages=D), scores


def all_metrics(scores):
    found = retrieval.metrics_of_scores(scores, np.zeros(N, dtype=int))
    return np.stack([metric.values for metric in found.values()])


FUNCTIONS = {
    # name: (function of keyword arguments, its arrays by the name that messages give them)
    "linear_cka": (cka.linear_cka, {"x": rows(), "y": rows(1)}),
    "alignment_ratio": (cka.alignment_ratio, {"x": rows(), "y": rows() + 0.1}),
    "compare": (cka.compare, {"x": rows(), "y": rows() + 0.1}),
    "cka_matrix": (cka.cka_matrix, {"layer_embeddings": rows(), "other": rows(1)}),
    "paired_cosines": (cka.paired_cosines, {"x": rows(), "y": rows(1)}),
    "mean_cosine": (cka.mean_cosine, {"x": rows(), "y": rows(1)}),
    "anisotropy": (cka.anisotropy, {"x": rows()}),
    "effective_rank": (cka.effective_rank, {"x": rows()}),
    "StreamingCKA": (lambda **two: cka.StreamingCKA().update(**two).compute(), {"x": rows(), "y": rows(1)}),
    "hsic_from_kernels": (cka.hsic_from_kernels, {"kernel_x": kernel(), "kernel_y": kernel(1)}),
    "centre_kernel": (centre_kernel, {"kernel": kernel()}),
    "score_all": (retrieval.score_all, {"queries": rows(), "pages": rows(1)}),
    "top_k": (partial(retrieval.top_k, k=2), {"queries": rows(), "pages": rows(1)}),
    "ndcg_of_vectors": (
        partial(ndcg_of_vectors, relevance=Relevance.of(np.arange(N), n_pages=N)),
        {"queries": rows(), "pages": rows(1)},
    ),
    "ndcg_at_k": (partial(retrieval.ndcg_at_k, relevance=np.zeros(N, dtype=int)), {"scores": rows()}),
    "metrics_of_scores": (all_metrics, {"scores": rows()}),
    "ndcg_with_ties": (partial(retrieval.ndcg_with_ties, relevance=np.zeros(N, dtype=int)), {"scores": rows()}),
    "Relevance.of": (partial(Relevance.of, n_pages=D), {"relevance": np.abs(rows())}),
    "effective_number": (stats.effective_number, {"sizes": np.arange(1.0, N)}),
    "bootstrap_mean": (partial(stats.bootstrap_mean, rng=rng()), {"values": rows(shape=N)}),
    "bootstrap_means": (partial(stats.bootstrap_means, rng=rng()), {"values": rows()}),
    "bootstrap_crossed": (partial(stats.bootstrap_crossed, rng=rng()), {"values": rows()}),
    "paired_bootstrap": (partial(stats.paired_bootstrap, rng=rng()), {"a": rows(shape=N), "b": rows(1, N)}),
    "paired_permutation": (partial(stats.paired_permutation, rng=rng()), {"a": rows(shape=N), "b": rows(1, N)}),
    "holm": (stats.holm, {"p_values": np.linspace(0, 1, N)}),
    "spearman": (spearman, {"x": rows(shape=N), "y": rows(1, N)}),
    "concentration": (lambda salience: probes.concentration(salience), {"salience": np.abs(rows(shape=N))}),
    "neurons_for": (lambda salience: probes.neurons_for(salience), {"salience": np.abs(rows(shape=N))}),
    "neuron_mask": (partial(neuron_mask, share=0.5), {"salience": np.abs(rows(shape=N))}),
    "adaptive_shares": (partial(adaptive_shares, min_share=0.5, max_share=1.0), {"scores": rows(shape=N)}),
}
PLACES = [(name, argument) for name, (_, arrays) in FUNCTIONS.items() for argument in arrays]
ALSO_CALLED = {"queries": "query", "pages": "page", "relevance": "query", "kernel": "kernel"}


def masked(array):
    return np.ma.masked_array(array, mask=np.arange(array.size).reshape(array.shape) == 2)


def with_entry(value):
    def damage(array):
        array = np.array(array, dtype=np.float64)
        array.flat[2] = value
        return array

    return damage


DAMAGES = {
    "nan": with_entry(np.nan),
    "inf": with_entry(np.inf),
    "masked": masked,
    "list of masked": lambda array: list(masked(array)) if array.ndim == 1 else [masked(row) for row in array],
    "complex": lambda array: array + 1e-3j,
    "complex tensor": lambda array: torch.from_numpy(array + 1e-3j),
    "object": lambda array: array.astype(object),
    "text": lambda array: array.astype(str),
    "truth values": lambda array: array > 0,
    "dates": lambda array: array.astype("datetime64[s]"),
    "scalar": lambda array: np.float64(1.0),
    "one axis more": lambda array: array[None, ..., None],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("name", "argument"), PLACES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_public_function_refuses_what_is_no_array_of_finite_numbers(name, argument, damage):
    function, arrays = FUNCTIONS[name]
    if (name, damage) == ("Relevance.of", "truth values"):
        pytest.skip("true and false are grades 1 and 0")
    bad = DAMAGES[damage](arrays[argument])
    if argument == "layer_embeddings" and damage == "list of masked":
        bad = [masked(rows()), rows(1)]
    with pytest.raises(ValueError) as caught:
        function(**{**arrays, argument: bad})
    words = str(caught.value).replace("[", " ").replace(".", " ").split()
    named = {argument, f"{argument}:", ALSO_CALLED.get(argument, argument), "layer"}
    if argument in ("a", "b", "x", "y", "other", "kernel_x", "kernel_y"):
        named |= {"x", "y", "kernels"}
    assert named & set(words), caught.value


@pytest.mark.parametrize(("name", "argument"), PLACES)
def test_good_arrays_of_any_make_give_the_same(name, argument):
    """Tensors, tables, lists and masked arrays without a masked entry are read as the arrays that they hold."""
    function, arrays = FUNCTIONS[name]
    if name in ("Relevance.of",) or function in (stats.bootstrap_mean,):
        return

    def outcome(given):
        fresh = function
        if isinstance(function, partial) and "rng" in function.keywords:
            fresh = partial(function.func, **{**function.keywords, "rng": rng()})
        result = fresh(**{**arrays, argument: given})
        if isinstance(result, dict):  # the values of each metric
            return np.stack([metric.values for metric in result.values()])
        return getattr(result, "values", getattr(result, "pages", getattr(result, "cka", result)))

    array = arrays[argument]
    wanted = outcome(array)
    table = pd.DataFrame(array) if array.ndim == 2 else pd.Series(array)
    for made in (torch.from_numpy(array), table, np.ma.masked_array(array)):
        got = outcome(made)
        if isinstance(wanted, np.ndarray | float):  # a table lies in memory column by column, and sums are rounded so
            np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-14)
        else:
            assert list(map(str, np.atleast_1d(got))) == list(map(str, np.atleast_1d(wanted)))


PAIRS = [name for name, (_, arrays) in FUNCTIONS.items() if len(arrays) == 2]


@pytest.mark.parametrize("name", PAIRS)
def test_sides_of_different_length_are_refused(name):
    function, arrays = FUNCTIONS[name]
    if name in ("score_all", "top_k"):
        return
    first, second = arrays
    with pytest.raises(ValueError):
        function(**{first: arrays[first], second: arrays[second][:-1]})


# --- tables whose labels differ


def tables(arrays, order):
    first, second = arrays
    index = [f"item{number}" for number in range(N)]
    a, b = ((pd.DataFrame if array.ndim == 2 else pd.Series)(array, index=index) for array in arrays.values())
    return {first: a, second: b.iloc[order]}


@pytest.mark.parametrize("name", [name for name in PAIRS if name not in ("score_all", "top_k", "ndcg_of_vectors")])
def test_tables_in_another_order_are_not_paired_by_position(name):
    function, arrays = FUNCTIONS[name]
    order = np.random.default_rng(3).permutation(N)
    with pytest.raises(ValueError, match=r"pair by position, but their labels differ.*\.loc\[.*to_numpy"):
        function(**tables(arrays, order))
    function(**tables(arrays, np.arange(N)))


def test_labels_tell_what_positions_would_hide():
    """The numbers that were given before: a CKA near 0 for one of 1, and no difference where there is one."""
    x = pd.DataFrame(rows(shape=(40, 6)))
    shuffled = (2 * x).sample(frac=1, random_state=1)
    with pytest.raises(ValueError, match="labels differ"):
        cka.linear_cka(x, shuffled)
    assert cka.linear_cka(x, shuffled.loc[x.index]) == 1
    assert cka.linear_cka(x, shuffled.to_numpy()) < 0.5


@pytest.mark.parametrize("name", ["paired_cosines", "alignment_ratio", "compare", "score_all", "top_k", "mean_cosine"])
def test_columns_pair_where_coordinates_do(name):
    function, arrays = FUNCTIONS[name]
    first, second = (pd.DataFrame(array, columns=list("abcd")) for array in arrays.values())
    with pytest.raises(ValueError, match="the columns has 'a' in .* and 'd' in .* at position 0"):
        function(**dict(zip(arrays, (first, second[list("dcba")]), strict=True)))


def test_groups_and_clusters_pair_with_rows_too():
    index = [f"q{number}" for number in range(N)]
    values, x = pd.Series(rows(shape=N), index=index), pd.DataFrame(rows(), index=index)
    labels = pd.Series(np.repeat(list("abcd"), 3), index=index)
    other = labels.iloc[::-1]
    calls = [
        lambda labels: stats.bootstrap_mean(values, rng(), clusters=labels),
        lambda labels: stats.bootstrap_means(x, rng(), clusters=labels),
        lambda labels: stats.bootstrap_crossed(x.T, rng(), clusters=labels),
        lambda labels: stats.paired_bootstrap(values, values * 2, rng(), clusters=labels),
        lambda labels: stats.paired_permutation(values, values * 2, rng(), clusters=labels),
        lambda labels: cka.mean_cosine(x, x + 1, groups=labels),
        lambda labels: cka.anisotropy(x, groups=labels),
        lambda labels: cka.effective_rank(x, groups=labels),
        lambda labels: cka.cka_matrix(x, groups=labels),
        lambda labels: cka.compare(x, x + rows(2), groups=labels),
    ]
    for call in calls:
        call(labels)
        with pytest.raises(ValueError, match="labels differ"):
            call(other)


def test_scores_in_another_order_of_queries_than_the_relevance_are_refused():
    ids = [f"q{number}" for number in range(N)]
    relevance = Relevance.from_qrels({q: {"p0": 1} for q in ids}, ids, [f"p{number}" for number in range(D)])
    scores = pd.DataFrame(rows(), index=ids)
    wanted = retrieval.ndcg_at_k(rows(), relevance)
    np.testing.assert_array_equal(retrieval.ndcg_at_k(scores, relevance), wanted)
    np.testing.assert_array_equal(retrieval.ndcg_at_k(pd.DataFrame(rows()), relevance), wanted)
    with pytest.raises(ValueError, match="row 0 of scores is 'q11' and that of relevance is query 'q0'"):
        retrieval.ndcg_at_k(scores.iloc[::-1], relevance)


# --- labels


MISSING = {
    "none": lambda labels: [*labels[:-1], None],
    "nan": lambda labels: [*labels[:-1], float("nan")],
    "masked": lambda labels: np.ma.masked_array(labels, mask=[False] * (N - 1) + [True]),
    "missing in a table": lambda labels: pd.Series([*labels[:-1], pd.NA]),
    "numbers": lambda labels: np.array([0.0, 1.0, np.nan] * (N // 3)),
    "of two types": lambda labels: np.array([*labels[:-1], 1], dtype=object),
    "too few": lambda labels: labels[:-1],
}


@pytest.mark.parametrize("missing", MISSING)
def test_items_without_a_label_are_no_cluster(missing):
    labels = MISSING[missing](list("abcabcabcabc"))
    values = rows(shape=N)
    for call in (
        lambda: stats.bootstrap_mean(values, rng(), clusters=labels),
        lambda: stats.bootstrap_crossed(rows().T, rng(), clusters=labels),
        lambda: stats.paired_permutation(values, 2 * values, rng(), clusters=labels),
    ):
        with pytest.raises(ValueError, match="clusters"):
            call()
    for call in (cka.anisotropy, cka.effective_rank, cka.cka_matrix):
        with pytest.raises(ValueError, match="groups"):
            call(rows(), groups=labels)


# --- names of estimators and kernels


@pytest.mark.parametrize("estimator", ["unbiased", "Debiased", "", None, "biased "])
def test_no_function_reads_an_unknown_estimator_as_one_that_it_knows(estimator):
    x, y = rows(), rows(1)
    result = cka.cka_matrix(x, y)
    for call in (
        lambda: cka.hsic_from_kernels(kernel(), kernel(1), estimator=estimator),
        lambda: centre_kernel(kernel(), estimator),
        lambda: centring_offsets(np.ones(5), estimator),
        lambda: linear_row_sums(np.ones(5), estimator),
        lambda: hsic_normaliser(5, estimator),
        lambda: cka.linear_cka(x, y, estimator=estimator),
        lambda: cka.alignment_ratio(x, x + 0.1, estimator=estimator),
        lambda: cka.compare(x, y, estimator=estimator),
        lambda: cka.cka_matrix(x, y, estimator=estimator),
        lambda: cka.StreamingCKA(estimator),
        lambda: Rules(estimator=estimator),
        lambda: null_level(cka.compare(x, y), estimator),
        lambda: cka_heat_map(pd.DataFrame(result.values), estimator=estimator),
        lambda: linear_sum(1.0, np.ones(5), np.ones(5), estimator),
    ):
        with pytest.raises(ValueError, match=r"estimator must be one of 'debiased', 'biased', got"):
            call()


def test_every_function_of_cka_that_takes_an_estimator_checks_it():
    """A function with an `estimator` calls the check, or hands the name on to one that does."""
    from miner_diag.cka import features, groups, hsic, moments, sums

    for function in (
        hsic.centring_offsets,
        hsic.linear_row_sums,
        hsic.centre_kernel,
        hsic.hsic_normaliser,
        hsic.hsic_from_kernels,
        features.linear_sum,
        moments.PairMoments.pair_sum,
        sums.PairSums.leave_one_out,
        groups.leave_groups_out,
    ):
        assert "check_estimator(estimator)" in inspect.getsource(function), function


def test_an_unknown_kernel_is_not_read_as_linear():
    from miner_diag.cka.layers import as_layers

    with pytest.raises(ValueError, match="kernel must be one of 'linear', 'rbf', got 'cosine'"):
        kernel_shape(as_layers([rows()])[0], "cosine", 1.0)


@pytest.mark.parametrize("argument", ["kernel_x", "kernel_y"])
def test_a_product_of_two_sides_is_no_kernel(argument):
    arrays = {"kernel_x": kernel(), "kernel_y": kernel(1), argument: rows() @ rows(1).T}
    with pytest.raises(ValueError, match=rf"{argument} must be symmetric, as a kernel is; \[\d+, \d+\] is"):
        cka.hsic_from_kernels(**arrays)


def test_a_kernel_in_float32_may_be_rounded_apart():
    single = kernel().astype(np.float32)
    single[0, 1] *= 1 + 1e-6
    cka.hsic_from_kernels(single, kernel(1))
    with pytest.raises(ValueError, match="symmetric"):
        cka.hsic_from_kernels(single.astype(np.float64), kernel(1))


# --- judgements and scores


@pytest.mark.parametrize(
    ("judgements", "message"),
    [
        (([0, 1, 1], [0, 2, 2], [1, 1, 1]), "query 'b' and page 2 stand together 2 times"),
        (([0, 1], [0, 1.9], [1, 1]), r"page must be whole numbers; got 1.9 at \[1\]"),
        (([0, 0.7], [0, 1], [1, 1]), r"query must be whole numbers; got 0.7 at \[1\]"),
        (([0, 1], [0, np.nan], [1, 1]), "page must be whole numbers; got nan"),
        (([0, 1], [0], [1, 1]), r"of one length \[J\].*got \[2\], \[1\] and \[2\]"),
        (([0, 2], [0, 1], [1, 1]), r"query must be rows 0 to 1 of query_ids; got 2 at \[1\]"),
        (([0, -1], [0, 1], [1, 1]), "query must be rows 0 to 1 of query_ids; got -1"),
        (([0, 1], ["0", "1"], [1, 1]), "page must be an array of real numbers; got dtype <U1"),
        (([0, 1], [True, False], [1, 1]), "page must be an array of real numbers; got dtype bool"),
        (([0, 1], [0, 1], ["1", "1"]), "grade must be an array of real numbers; got dtype <U1"),
        (([0, 1], [0, 1], [1, 1j]), "grade must be an array of real numbers; got dtype complex128"),
    ],
)
def test_judgements_that_cannot_be_meant_are_refused(judgements, message):
    with pytest.raises(ValueError, match=message):
        Relevance.from_judgements(*judgements, query_ids=("a", "b"), n_pages=3)


def test_keys_of_dicts_are_page_numbers():
    with pytest.raises(ValueError, match=r"page must be whole numbers; got 0.7 at \[0\]"):
        Relevance.of([{0.7: 1}], n_pages=2)
    assert Relevance.of([{np.int64(1): 1}], n_pages=2).page.tolist() == [1]
    with pytest.raises(ValueError, match="n_pages must be a whole number"):
        Relevance.of(np.array([0]), n_pages=2.5)


def test_a_negative_grade_of_an_unknown_page_is_not_passed_over():
    with pytest.raises(ValueError, match="name the page 'y', which is not among"):
        Relevance.from_qrels({"a": {"x": 1, "y": -1}}, ["a"], ["x"])
    assert Relevance.from_qrels({"a": {"x": 1, "y": 0}}, ["a"], ["x"]).page.tolist() == [0]


@pytest.mark.parametrize("scale", [1e300, 1e39, 1e-50, 1e-300])
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_that_float32_cannot_hold_apart_are_refused(scale, sign):
    exact = sign * scale * np.array([[3.0, 2.0, 1.0]])
    with pytest.raises(ValueError, match=r"scores holds .* at query 0, page 0"):
        retrieval.ndcg_at_k(exact, np.array([1]))
    run = {"a": dict(zip("xyz", exact[0].tolist(), strict=True))}
    with pytest.raises(ValueError, match="score .* for query 'a', page 'x'"):
        retrieval.ndcg_of_run({"a": {"y": 1}}, run)


def test_scores_of_a_run_are_numbers():
    for bad, kind in (("0.5", "<U32|<U3"), (1j, "complex128"), (None, "object"), (True, "bool")):
        with pytest.raises(ValueError, match=f"run .its scores for query 'a'. must be .* got dtype ({kind})"):
            retrieval.ndcg_of_run({"a": {"x": 1}}, {"a": {"x": bad}})


def test_dot_products_that_float32_makes_zero_are_refused():
    tiny = 1e-30 * rows()
    for function in (partial(retrieval.score_all), partial(retrieval.top_k, k=1)):
        with pytest.raises(ValueError, match="beyond float32"):
            function(tiny, tiny, similarity="dot")
        function(tiny, tiny, similarity="cosine")
    tokens = retrieval.TokenVectors.from_items([tiny])
    with pytest.raises(ValueError, match="beyond float32"):
        retrieval.maxsim_scores(tokens, tokens, "dot")


@pytest.mark.parametrize("k", [2.5, "2", True, None, 2.0])
def test_ranks_and_counts_are_whole_numbers(k):
    for call in (
        lambda: retrieval.ndcg_at_k(rows(), np.zeros(N, int), k),
        lambda: retrieval.top_k(rows(), rows(), k),
        lambda: retrieval.chance_ndcg(10, 1, k),
        lambda: stats.bootstrap_mean(rows(shape=N), rng(), n_resamples=k),
        lambda: stats.bootstrap_crossed(rows(), rng(), n_resamples=k),
        lambda: stats.paired_permutation(rows(shape=N), rows(1, N), rng(), n_permutations=k),
    ):
        with pytest.raises(ValueError, match="must be a whole number"):
            call()


def test_hits_become_a_run_only_where_ids_are_their_own():
    hits = retrieval.top_k(rows(), rows(1), 2)
    ids, pages = [f"q{number}" for number in range(N)], [f"p{number}" for number in range(N)]
    with pytest.raises(ValueError, match="page_ids holds 'p0' more than once"):
        hits.to_run(ids, ["p0", *pages[:-1]])
    with pytest.raises(ValueError, match="query_ids holds 'q0' more than once"):
        hits.to_run(["q0", *ids[:-1]], pages)
    with pytest.raises(ValueError, match="page_ids must name page"):
        hits.to_run(ids, pages[:1])
    with pytest.raises(ValueError, match="query_ids must name 12 items; got 1"):
        retrieval.score_all(rows(), rows(), query_ids=["q"])


def test_tokens_are_arrays_without_a_mask():
    for vectors, message in (
        (masked(rows()), "vectors is a masked array"),
        (rows().tolist(), "vectors must be an arr"),
    ):
        with pytest.raises(ValueError, match=message):
            retrieval.TokenVectors(vectors, np.array([0, N]))
    with pytest.raises(ValueError, match="items is a masked array"):
        retrieval.TokenVectors.from_items([masked(rows())])
    with pytest.raises(ValueError, match="items must be arrays"):
        retrieval.TokenVectors.from_items([rows().tolist()])


# --- probes and fusion


@pytest.mark.parametrize("share", [0, -0.5, 2, np.nan, np.inf])
def test_a_share_is_above_0_and_at_most_1(share):
    salience = np.arange(1.0, 5.0)
    for call in (
        lambda: probes.neurons_for(salience, share),
        lambda: neuron_mask(salience, share),
        lambda: adaptive_shares(salience, share, 1.0),
        lambda: adaptive_shares(salience, 0.1, share),
    ):
        with pytest.raises(ValueError, match="share must be above 0 and at most 1; got"):
            call()
    with pytest.raises(ValueError, match="min_share must be at most max_share"):
        adaptive_shares(salience, 0.9, 0.1)


@pytest.mark.parametrize("weights", [np.ones(3), -np.ones(N), np.zeros(N), np.full(N, np.nan), np.full(N, 1j)])
def test_weights_of_queries_are_counts(weights):
    from miner_diag.probes.select import FusedScores, SelectionRule, select

    fused = FusedScores(rows(shape=(3, N, D)), Relevance.of(np.zeros(N, int), n_pages=D))
    with pytest.raises(ValueError, match="weights"):
        select(fused, SelectionRule(), weights)
    with pytest.raises(ValueError, match=r"scores must be \[L, Q, P\]"):
        FusedScores(rows(), fused.relevance)


# --- the checks themselves


def test_numbers_share_their_memory_and_other_things_are_named():
    array = rows()
    assert np.shares_memory(real_array(array, "x"), array)
    assert real_array([], "x").shape == (0,)
    with pytest.raises(ValueError, match="x must be an array of real numbers; NumPy cannot read it"):
        real_array([[1.0, 2.0], [3.0]], "x")
    with pytest.raises(ValueError, match="x is a masked array with 1 masked entries"):
        real_array([1.0, np.ma.masked, 2.0], "x")
    with pytest.raises(TypeError):  # the error of the caller's stage
        real_array(["a"], "x", type("Own", (ValueError, TypeError), {}))


def test_whole_numbers_are_taken_in_any_dtype():
    assert whole_numbers([1.0, 2.0], "page").tolist() == [1, 2]
    assert whole_number(np.int32(3), "k") == 3
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        whole_number(0, "k")


def test_labels_of_tables_are_compared_whatever_their_form():
    a, b = pd.Series([1, 2], index=["x", "y"]), pd.DataFrame({"v": [1, 2]}, index=["y", "x"])
    refuse_other_labels({"a": a, "b": [1, 2], "c": a + 1})
    with pytest.raises(ValueError, match=r"b\[0\] pair by position.*'x' in a and 'y' in b\[0\] at position 0"):
        refuse_other_labels({"a": a, "b": [b]})
    assert label_array(pd.Categorical(["x", "y"]), "groups").tolist() == ["x", "y"]


def test_what_float32_loses_is_found_and_what_it_rounds_is_not():
    exact = np.array([1e39, -1e39, 1e-50, 0.0, 1.0 + 1e-12, -np.inf, np.nan])
    with np.errstate(over="ignore", under="ignore"):
        lost = beyond_float32(exact, exact.astype(np.float32))
    assert lost.tolist() == [True, True, True, False, False, False, False]
