"""Hard negatives: the hardest pages of each query that are no answer, and may not be one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miner_diag.probes import ProbeError, RetrievalData
from miner_diag.probes.hard_negatives import mine_hard_negatives
from miner_diag.retrieval import Relevance


def data_of(queries, pages, answers, looks=None):
    """One layer; `answers` [Q] are sets of pages, and pages of equal `looks` look the same."""
    relevance = Relevance.of([dict.fromkeys(own, 1) for own in answers], n_pages=len(pages))
    hashes = [f"h{look}" for look in (range(len(pages)) if looks is None else looks)]
    return RetrievalData.of(queries[:, None].astype(np.float32), pages[:, None].astype(np.float32), relevance, hashes)


def slow(queries, pages, answers, looks, n, guard):
    """The same, one query and page at a time."""
    found = []
    for query, own in zip(queries, answers, strict=True):
        scores = [float(np.dot(query, page)) for page in pages]
        same = {page for page in range(len(pages)) if looks[page] in {looks[answer] for answer in own}}
        best = max(scores[page] for page in same)
        ceiling = guard * best if best > 0 else best
        allowed = [page for page in range(len(pages)) if page not in same and scores[page] <= ceiling]
        ranked = sorted(allowed, key=lambda page: (-scores[page], page))[:n]
        found.append(ranked + [-1] * (n - len(ranked)))
    return np.array(found).reshape(len(queries), n)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_they_are_those_of_a_slow_loop(data):
    n_queries, n_pages = data.draw(st.integers(1, 6)), data.draw(st.integers(2, 12))
    # vectors of length 1 with one number that is not 0, or two equal ones: scores are exact, and many are equal
    axes = [np.eye(4)[axis] * sign for axis in range(4) for sign in (1, -1)]
    axes += [np.array([0.5, 0.5, 0.5, 0.5]), np.array([0.5, 0.5, -0.5, -0.5])]
    queries, pages = (
        np.array([axes[data.draw(st.integers(0, len(axes) - 1))] for _ in range(n)]) for n in (n_queries, n_pages)
    )
    answers = [data.draw(st.sets(st.integers(0, n_pages - 1), min_size=1, max_size=2)) for _ in range(n_queries)]
    looks = [data.draw(st.integers(0, n_pages)) for _ in range(n_pages)]
    n, guard = data.draw(st.integers(0, n_pages - 1)), data.draw(st.sampled_from([0.25, 0.5, 0.75, 1.0]))
    mined = mine_hard_negatives(data_of(queries, pages, answers, looks), n, guard)
    np.testing.assert_array_equal(mined, slow(queries, pages, answers, looks, n, guard))


@pytest.fixture
def drawn(rng):
    """Thirty queries near their answers among eighty pages, of which some look the same."""
    pages = rng.normal(size=(80, 6))
    answers = rng.permutation(80)[:30]
    looks = np.arange(80)
    looks[answers[:5]] = looks[answers[5:10]]
    return pages[answers] + 0.8 * rng.normal(size=(30, 6)), pages, [{int(page)} for page in answers], looks


def cosines(queries, pages):
    queries, pages = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (queries, pages))
    return queries @ pages.T


def test_none_answers_the_query_or_looks_like_an_answer_and_none_is_above_the_guard(drawn):
    queries, pages, answers, looks = drawn
    scores = cosines(queries, pages)
    mined = mine_hard_negatives(data_of(*drawn), 12, 0.8)
    n_left_out = 0
    for query, own in enumerate(answers):
        same = np.isin(looks, [looks[page] for page in own])
        kept = mined[query][mined[query] >= 0]
        best = scores[query, same].max()
        assert not same[kept].any() and len(set(kept)) == len(kept)
        assert best <= 0 or (scores[query, kept] <= 0.8 * best + 1e-6).all()
        n_left_out += int((scores[query, ~same] > 0.8 * best).sum())
    assert n_left_out > 10  # or the guard would have had nothing to do


def test_they_are_the_hardest_first_and_the_rest_is_minus_one(drawn):
    queries, pages, _, _ = drawn
    scores, mined = cosines(queries, pages), mine_hard_negatives(data_of(*drawn), 79, 0.5)
    for query, row in enumerate(mined):
        n = int((row >= 0).sum())
        assert (row[n:] == -1).all() and n < 79  # the answer itself is never one
        assert (np.diff(scores[query, row[:n]]) <= 1e-6).all()
    few = mine_hard_negatives(data_of(*drawn), 5, 0.5)
    np.testing.assert_array_equal(few, mined[:, :5])


@pytest.mark.parametrize(("lower", "higher"), [(0.3, 0.6), (0.6, 1.0)])
def test_a_looser_guard_lets_more_in(drawn, lower, higher):
    strict, loose = (mine_hard_negatives(data_of(*drawn), 79, guard) for guard in (lower, higher))
    for one, other in zip(strict, loose, strict=True):
        assert set(one) <= set(other) | {-1}
    assert (loose >= 0).sum() > (strict >= 0).sum()


def test_lengths_and_inner_layers_do_not_matter(drawn, rng):
    queries, pages, answers, looks = drawn
    data = data_of(*drawn)
    scaled = data_of(queries * rng.uniform(0.1, 9, (30, 1)), pages * rng.uniform(0.1, 9, (80, 1)), answers, looks)
    np.testing.assert_array_equal(mine_hard_negatives(scaled, 7, 0.9), mine_hard_negatives(data, 7, 0.9))
    stacked = RetrievalData.of(
        np.concatenate([rng.normal(size=(30, 2, 6)).astype(np.float32), data.queries], axis=1),
        np.concatenate([np.full((80, 2, 6), np.nan, dtype=np.float32), data.pages], axis=1),
        data.relevance,
        [f"h{look}" for look in looks],
    )
    np.testing.assert_array_equal(mine_hard_negatives(stacked, 7, 0.9), mine_hard_negatives(data, 7, 0.9))


def test_by_hand():
    pages = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    data = data_of(np.array([[1.0, 0.0]]), pages, [{0}])
    assert mine_hard_negatives(data, 3, 0.95).tolist() == [[1, 2, 3]]
    assert mine_hard_negatives(data, 3, 0.7).tolist() == [[2, 3, 4]]  # 0.8 is above 0.7 of the answer's 1
    # an answer that scores 0 or less: what scores no higher than it
    assert mine_hard_negatives(data_of(np.array([[1.0, 0.0]]), pages, [{3}]), 3, 0.5).tolist() == [[4, -1, -1]]
    assert mine_hard_negatives(data_of(np.array([[-0.6, -0.8]]), pages, [{0}]), 3, 0.5).tolist() == [[3, 1, 2]]


@pytest.mark.parametrize("n", [5, 9])
def test_fewer_pages_than_negatives_is_a_sentence(rng, n):
    data = data_of(rng.normal(size=(2, 3)), rng.normal(size=(5, 3)), [{0}, {1}])
    message = f"{n} hard negatives a query need more than {n} training pages; there are 5. Lower hard_negatives"
    with pytest.raises(ProbeError, match=message):
        mine_hard_negatives(data, n, 1.0)
    assert mine_hard_negatives(data, 4, 1.0).shape == (2, 4) and mine_hard_negatives(data, 0, 1.0).shape == (2, 0)
