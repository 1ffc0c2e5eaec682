import pytest

from miner_diag.corpus.harvest import caption_queries, clean_text, outline_query

WIDE = "A line of running text that is about as wide as the text block of this page.\r\n"


def captions(*lines):
    return list(caption_queries("\r\n".join(lines)))


@pytest.mark.parametrize(
    ("title", "query"),
    [
        ("2.3 Mosaic plots", "Mosaic plots"),
        ("2. Mosaic plots", "Mosaic plots"),
        ("A.1 Mosaic plots", "Mosaic plots"),
        ("Chapter 4: Mosaic plots", "Mosaic plots"),
        ("A simple list of labels", "A simple list of labels"),  # the article is no numbering
        ("Mosaic\x02\r\n plots", None),  # one word once the hyphen is gone
        ("See also", None),
        ("Introduction", None),
        ("Plots", None),
        ("1 2 3 4", None),
        (" ".join(["word"] * 21), None),
    ],
)
def test_outline_titles(title, query):
    assert outline_query(title) == query


def test_caption_of_one_line():
    assert captions("Figure 3: Average reaction time by subject") == [("figure", "Average reaction time by subject")]
    assert captions("Table 2. Notable options of the command") == [("table", "Notable options of the command")]
    assert captions("Fig. A.1 - Average reaction time by subject") == [("figure", "Average reaction time by subject")]


def test_caption_goes_on_behind_a_wide_line_only():
    first = "Figure 3: Average reaction time versus days of sleep deprivation for all subj\x02"
    assert captions(*[WIDE] * 5, first, "ects in the study") == [
        ("figure", "Average reaction time versus days of sleep deprivation for all subjects in the study")
    ]
    short = "Figure 3: Average reaction time by subject"
    assert captions(*[WIDE] * 5, short, "The next paragraph starts here") == [
        ("figure", "Average reaction time by subject")
    ]


def test_caption_ends_at_its_full_stop_but_not_behind_an_abbreviation():
    line = "Figure 3: Reaction time of Belenky et al. by subject. Lines are means."
    assert captions(line) == [("figure", "Reaction time of Belenky et al. by subject")]


@pytest.mark.parametrize(
    "line",
    [
        "Figure 3 shows the average reaction time",  # a mention, not a caption
        "Table 3. They include combinations of treed models",  # a sentence behind a mention
        "Figure 3: Average reaction time . . . . . . . 12",  # a list of figures
        "Figure 3: Average reaction time ........ 12",
        "Table 1: foo(); bar::baz()",  # code
        "Figure 3: too short",
    ],
)
def test_what_is_no_caption(line):
    assert captions(line) == []


def test_clean_text_joins_broken_words_and_folds_space():
    assert clean_text("re\u00ad\r\nac\x02\r\ntion   time\x00\r\n") == "reaction time"
