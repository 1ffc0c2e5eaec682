"""Edges of hiding: places that overlap, and parts that are just large enough."""

import pytest

from miner_diag.corpus.hiding import hidden_characters, longest_part


@pytest.mark.parametrize(
    ("text", "query", "left"),
    [
        ("ababa", "aba", ""),
        ("x ababa y", "aba", "x  y"),
        ("aaaa", "aaa", ""),
        ("to be to be to", "to be to", ""),
        ("ab ab", "abab", ""),
        ("ababab", "abab", ""),
    ],
)
def test_places_that_overlap_are_hidden_to_the_last_letter(text, query, left):
    hidden = hidden_characters(text, [query])
    kept = "".join(letter for letter, gone in zip(text, hidden, strict=True) if not gone)
    assert kept == left


def test_a_part_of_exactly_half_of_the_letters_is_notable():
    # "aa bb" has four of the eight letters of the query
    assert longest_part("here is aa bb alone", "aa bb cc dd") == "aa bb"
    assert longest_part("here is aa bb alone", "aa bb cc ddd") is None


def test_a_part_of_exactly_two_words_is_notable_and_one_word_is_not():
    assert longest_part("aaaaa bbbbb", "aaaaa bbbbb c") == "aaaaa bbbbb"
    assert longest_part("aaaaaaaaaa", "aaaaaaaaaa b") is None
