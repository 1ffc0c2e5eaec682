import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner_diag.corpus.hiding import hidden_characters, letters, longest_part, stands_in


def without(text, *queries):
    return "".join(" " if gone else c for c, gone in zip(text, hidden_characters(text, queries), strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "The Mosaic plots of data",
        "The MOSAIC\r\nPLOTS of data",
        "The mo\x02\r\nsaic plots of data",
        "The mosaic-plots of data",
        "The mosaïc plots of data",
        "The ｍosaic plots of data",  # compatibility form
    ],
)
def test_a_query_is_found_however_it_is_set(text):
    left = without(text, "Mosaic plots")
    assert not stands_in("mosaic plots", left)
    assert left.split() == ["The", "of", "data"]


def test_ligatures_are_taken_apart_and_keep_their_place():
    plain_letters, where = letters("e\ufb03cient")
    assert plain_letters == "efficient"
    assert where.tolist() == [0, 1, 1, 1, 2, 3, 4, 5, 6]


def test_every_place_is_hidden_and_nothing_else():
    assert (
        without("Sleep study. A sleep study, a sleep lab.", "sleep study") == "           . A            , a sleep lab."
    )


def test_what_a_cut_joins_to_the_query_again_goes_too():
    assert letters(without("mosaic mosaic plots plots", "mosaic plots"))[0] == ""


def test_a_cut_that_joins_the_rest_to_another_query_takes_it_too():
    assert without("a new server access hook (see it)", "Server access", "New hooks").split() == ["a", "ee", "it)"]


def test_a_query_without_letters_hides_nothing():
    assert not hidden_characters("a - b", ["- -", ""]).any()
    assert not stands_in("---", "a --- b")


def test_longest_part_is_hidden_where_the_heading_is_worded_differently():
    text = "5.2 Drawing mosaic plots (advanced)"
    assert longest_part(text, "Mosaic plots in R") == "Mosaic plots"
    assert longest_part(text, "Drawing of pairs plots for many variables") is None


@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=5), max_size=4))
def test_nothing_of_any_query_is_left_in_any_text(text, queries):
    text = text.replace("\ud800", "")
    left = without(text, *queries)
    assert len(left) == len(text)
    for query in queries:
        assert not stands_in(query, left)


@given(st.text("ab ﬁfi", max_size=80), st.lists(st.text("abfi", min_size=1, max_size=6), max_size=6))
def test_nothing_is_left_however_often_a_cut_joins_the_rest(text, queries):
    left = without(text, *queries)
    assert not any(stands_in(query, left) for query in queries)


@given(st.text("ab -", max_size=60), st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=5))
def test_every_place_of_a_query_is_hidden_from_its_first_letter_to_its_last(text, queries):
    stream, where = letters(text)
    hidden = hidden_characters(text, queries)
    for query in queries:
        for start in range(len(stream) - len(query) + 1):
            if stream[start : start + len(query)] == query:
                assert hidden[where[start] : where[start + len(query) - 1] + 1].all()
    if not any(query in stream for query in queries):
        assert not hidden.any()


@given(st.text("ab ", max_size=30), st.text("ab -", max_size=20))
def test_the_longest_part_is_the_first_of_those_with_most_words(text, query):
    words = query.split()
    parts = [words[start : start + n] for n in range(len(words), 1, -1) for start in range(len(words) - n + 1)]
    plain = [(" ".join(part), letters(" ".join(part))[0]) for part in parts]
    whole = len(letters(query)[0])
    standing = [part for part, needle in plain if stands_in(part, text) and len(needle) >= 0.5 * whole]
    assert longest_part(text, query) == (standing[0] if standing else None)


@pytest.mark.parametrize(
    ("text", "queries"),
    [
        ("mosaic " * 30_000 + "plots " * 30_000, ["mosaic plots"]),  # every cut joins the next
        ("a" * 200_000, ["a" * n for n in range(1_000, 2_000, 10)]),
        ("a" * 200_000, ["a" * n + "b" for n in range(1_000, 2_000, 10)]),
        ("tide " * 40_000, [f"tides at gauge {n}" for n in range(20_000)]),
    ],
    ids=["nested", "overlapping", "almost", "many"],
)
def test_a_page_made_to_be_slow_is_done_within_a_test(text, queries):
    """Each took from minutes to hours when places were searched for anew after every cut."""
    assert not any(stands_in(query, without(text, *queries)) for query in queries[:3])


@given(st.text(max_size=40))
def test_positions_lead_back_to_the_letters(text):
    plain_letters, where = letters(text)
    assert len(plain_letters) == len(where)
    assert np.all(np.diff(where) >= 0)
    assert letters(plain_letters)[0] == plain_letters or not plain_letters.isascii()
