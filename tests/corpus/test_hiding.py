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


@given(st.text(max_size=40))
def test_positions_lead_back_to_the_letters(text):
    plain_letters, where = letters(text)
    assert len(plain_letters) == len(where)
    assert np.all(np.diff(where) >= 0)
    assert letters(plain_letters)[0] == plain_letters or not plain_letters.isascii()
