import pytest

from miner_diag.corpus.harvest import Caption, clean_text, outline_query, page_captions, true_captions

WIDE = "A line of running text that is about as wide as the text block of this page.\r\n"


def captions(*lines):
    return [(caption.kind, caption.text) for caption in page_captions("\r\n".join(lines))]


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
        ("6.3.2.1) Incorrect generation", "Incorrect generation"),
        ("III Mosaic plots", "Mosaic plots"),
        ("Figure 3: Mosaic plots of data", None),  # doubles the caption
        ("The [functioncolor]sva function", None),
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
        "Figure 2.2 shows the average reaction time",
        "Figure 3: Shows the average reaction time",
        "see Figure 3: Average reaction time by subject",
        "Figure 3: Average reaction time of subjects and",  # its end was not found
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


def test_a_capital_behind_the_label_is_enough_but_is_not_marked():
    assert page_captions("Figure 7.3 Histogram of the two groups") == [
        Caption("figure", "7.3", "Histogram of the two groups", marked=False)
    ]


def test_lines_are_joined_only_where_they_are_set_alike():
    lines = [
        *[WIDE.strip()] * 5,
        "Figure 3: Average reaction time versus days of sleep deprivation for all",
        "subjects in it",
    ]
    text = "\r\n".join(lines)
    second = text.index("subjects")

    def found(height, size):
        return page_captions(text, lambda i: (height, size) if i >= second else (100.0, 10.0))[0].text.endswith("in it")

    assert found(88.0, 10.0)
    assert not found(88.0, 12.0), "another font size"
    assert not found(60.0, 10.0), "a gap between the lines"
    assert not found(110.0, 10.0), "the next line is above: another column"


def test_captions_side_by_side_are_two_captions_of_which_the_first_is_told_apart():
    assert captions("Figure 8.1: The type menu opened Figure 8.2: The style menu opened") == [
        ("figure", "The type menu opened")
    ]


def caption(label, marked=True):
    return Caption("figure", label, f"The caption of figure {label}", marked)


def test_a_list_of_figures_is_left_out():
    listed = [caption(str(n)) for n in range(1, 6)]
    pages = [listed, *[[one] for one in listed]]
    assert true_captions(pages) == [[], *[[one] for one in listed]]


def test_a_page_of_captions_that_do_not_come_back_stays():
    listed = [caption(str(n)) for n in range(1, 6)]
    assert true_captions([listed, [caption("6")]]) == [listed, [caption("6")]]


def test_mentions_are_left_out_where_captions_have_a_colon():
    pages = [[caption(str(n)) for n in range(5)], [caption("1", marked=False)]]
    assert true_captions(pages) == [pages[0], []]
    unmarked = [[caption(str(n), marked=False)] for n in range(3)]
    assert true_captions(unmarked) == unmarked
