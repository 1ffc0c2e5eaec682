"""The page of examples: which queries it lists and in which order, what it marks, and that data stay text on it."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from miner_diag.corpus import Corpus, CorpusError, Page, Query
from miner_diag.evaluation import examples as module
from miner_diag.evaluation.examples import (
    LONGEST_SIDE,
    MOST_BYTES,
    N_EXAMPLES,
    PICTURE_BYTES,
    compared_pair,
    examples_page,
    find_examples,
    picture_file,
)
from miner_diag.evaluation.scored_system import Measures, ScoredSystem, compare_scored
from miner_diag.retrieval.search import Hits
from miner_diag.stats import StatisticsOptions
from miner_diag.texts import inert

N_PAGES = 8
HOSTILE = "<script>alert('x')</script> & \"quoted\" \u202egnp.exe\u2069\nnext\x1b[2J </title></style>{{ 7 * 7 }}"


def planted(n_queries=6, **changes):
    """Query n is answered by page n; page n is a grey sheet of the lightness n."""
    made = Corpus(
        "planted",
        "verbatim",
        0,
        tuple(Page(f"d/{n}", "d", n + 1, f"text of page {n}", f"h{n}") for n in range(N_PAGES)),
        tuple(Query(f"q{n}", f"query {n}", "given", "d") for n in range(n_queries)),
        {f"q{n}": {f"d/{n % N_PAGES}": 1} for n in range(n_queries)},
        {"d": "test"},
        renderer=lambda page_id, side: Image.new("L", (side * 3 // 4, side), 10 * int(page_id[-1])),
        part="test",
    )
    return replace(made, **changes)


def ranked(name, values, rankings, against=None, role="run", seeds=(None,)):
    """A system whose ranking of each query is given by numbers of pages; -1 stands for no page."""
    pages = np.array(rankings, dtype=np.int64)
    scores = np.where(pages < 0, -np.inf, -np.arange(pages.shape[1], dtype=np.float32)).astype(np.float32)
    measures = Measures({"ndcg_at_5": np.atleast_2d(values), "map": np.atleast_2d(values) / 2}, {}, Hits(pages, scores))
    return ScoredSystem(name, "x", "run", role, "a file", measures, seeds, None, None, against)


OTHERS = [4, 5, 6, 7]
BEFORE = ranked(
    "before",
    [1.0, 0.5, 0.5, 0.5, 0.0, 0.5],
    [[0, *OTHERS], [0, 1, 4, 5, 6], [0, 2, 4, 5, 6], [0, 3, 4, 5, 6], [0, 1, 2, 3, 5], [5, 0, 1, 2, 3]],
)
AFTER = ranked(
    "after",
    [0.5, 1.0, 0.5, 1.0, 0.4, 0.0],
    [[4, 0, 5, 6, 7], [1, *OTHERS], [0, 2, 4, 5, 6], [3, *OTHERS], [0, 1, 2, 4, 5], [-1, -1, -1, -1, -1]],
    BEFORE.key,
)
"""By hand: queries 1 and 3 gain 0.5 each, 4 gains 0.4, 2 stays, 0 and 5 lose 0.5 each."""


def page_of(corpus, after=AFTER, before=BEFORE):
    return examples_page(after, before, corpus, compare_scored([before, after], None, StatisticsOptions()))


def seen_size(picture):
    """Width and height of what is shown of a picture."""
    return Image.open(io.BytesIO(picture_file(picture))).size


class Reader(HTMLParser):
    """What a browser would make of the page; a tag that is closed out of turn is an error."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.articles, self.text = [], [], [], [], ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "article":
            self.articles.append({"title": "", "facts": "", "rows": []})
        elif tag == "h4":
            self.articles[-1]["rows"].append({"label": "", "what": "", "pages": []})
        elif tag == "figure":
            self.articles[-1]["rows"][-1]["pages"].append([dict(attributes).get("class") == "answers", ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        inside = self.articles[-1] if "article" in self.open else None
        if inside is None:
            return
        last = inside["rows"][-1] if inside["rows"] else {}
        if "h3" in self.open:
            inside["title"] += data
        elif "h4" in self.open:
            last["label"] += data
        elif "figcaption" in self.open:
            last["pages"][-1][1] += data
        elif "figure" not in self.open and self.open[-1] in ("p", "span", "bdi"):
            if inside["rows"]:
                last["what"] += data
            else:
                inside["facts"] += data


# --- which systems, which queries


def test_a_fusion_goes_before_run_files_and_these_before_late_interaction():
    def of(name, role, against="base: run"):
        return ranked(name, [0.5], [[0]], against, role)

    base, second, late, lexical = (
        of("base", "backbone", None),
        of("second", "backbone"),
        of("late", "late"),
        of("bm25", "lexical"),
    )
    one, two, file = of("one", "fusion"), of("two", "fusion"), of("file", "run")
    systems = [base, lexical, late, second, file, two, one]
    assert compared_pair(systems) == (two, base) and compared_pair(systems, "one: run") == (one, base)
    assert compared_pair(systems, "another: run") == (two, base)
    for gone, expected in ((2, file), (3, second), (4, late), (5, lexical)):
        assert compared_pair(systems[:-gone]) == (expected, base)
    assert compared_pair([base]) is None and compared_pair([]) is None
    hidden = replace(base, measures=replace(base.measures, hits=None))
    assert compared_pair([hidden, second]) is None  # there are no pages to show of it
    assert compared_pair([base, replace(second, role="bound")]) is None


def test_the_listed_queries_by_hand():
    found = find_examples(AFTER, BEFORE, planted(), "ndcg_at_5")
    assert [(e.query.query_id, e.gain) for e in found.gained] == [("q1", 0.5), ("q3", 0.5), ("q4", 0.4)]
    assert [(e.query.query_id, e.gain) for e in found.lost] == [("q0", -0.5), ("q5", -0.5)]  # equal: the first first
    assert (found.n_gained, found.n_lost) == (3, 2)


def test_as_many_queries_as_are_promised_and_the_largest_of_them():
    gains = np.arange(-15, 16) / 20
    rankings = [[n % N_PAGES] for n in range(31)]
    before = ranked("before", np.full(31, 0.5) - gains / 2, rankings)
    after = ranked("after", np.full(31, 0.5) + gains / 2, rankings, before.key)
    found = find_examples(after, before, planted(31), "ndcg_at_5")
    assert [e.query.query_id for e in found.gained] == [f"q{n}" for n in range(30, 30 - N_EXAMPLES, -1)]
    assert [e.query.query_id for e in found.lost] == [f"q{n}" for n in range(N_EXAMPLES)]
    assert (found.n_gained, found.n_lost) == (15, 15)


def test_means_over_seeds_that_differ_by_rounding_are_no_gain():
    values = np.array([0.1, 0.2, 0.3])
    seeds = np.stack([values, values + 0.1, values + 0.2])
    before = ranked("before", seeds.mean(axis=0) + 1e-12, [[0]] * 3)
    after = ranked("after", seeds, [[0]] * 3, before.key, seeds=(0, 1, 2))
    found = find_examples(after, before, planted(3), "ndcg_at_5")
    assert found.gained == found.lost == ()


def test_rows_hold_first_pages_ranks_and_what_answers():
    gained = {e.query.query_id: e for e in find_examples(AFTER, BEFORE, planted(), "ndcg_at_5").gained}
    before, after = gained["q1"].rows
    assert [(p.page_id, p.rank, p.grade) for p in after.pages] == [("d/1", 1, 1), ("d/4", 2, 0), ("d/5", 3, 0)]
    assert (after.label, after.what) == ("after: run", "nDCG@5 1.0000; the first page that answers is at rank 1.")
    assert before.what == "nDCG@5 0.5000; the first page that answers is at rank 2."
    before, after, answers = gained["q4"].rows  # d/4 is at rank 4 of the one, and not at all in the other
    assert after.what == "nDCG@5 0.4000; the first page that answers is at rank 4."
    assert before.what == "nDCG@5 0.0000; no page that answers is among its first 5."
    assert (answers.label, answers.what) == ("", "The page that answers.")
    assert [(p.page_id, p.rank, p.grade) for p in answers.pages] == [("d/4", None, 1)]


def test_no_results_are_said_and_of_many_answers_the_best_are_shown():
    grades = {"d/0": 1, "d/1": 3, "d/2": 1, "d/3": 2, "d/7": 1}
    corpus = planted(qrels=planted().qrels | {"q5": grades})
    before = ranked("before", [0.5] * 6, [[4, 5, 6, 0, 1]] * 6)
    lost = find_examples(AFTER, before, corpus, "ndcg_at_5").lost
    row = next(e for e in lost if e.query.query_id == "q5").rows
    assert row[1].pages == () and row[1].what == "nDCG@5 0.0000; it has no results for this query."
    assert [(p.page_id, p.grade) for p in row[2].pages] == [("d/1", 3), ("d/3", 2), ("d/0", 1)]
    assert row[2].what == "3 of the 5 pages that answer."


# --- the page


def test_the_page_says_what_was_found():
    read = Reader(page_of(planted()))
    assert [a["title"] for a in read.articles] == ["1. query 1", "2. query 3", "3. query 4", "1. query 0", "2. query 5"]
    assert read.articles[0]["facts"].strip() == "▲ +0.5000 nDCG@5 · document: d"
    assert read.articles[4]["facts"].strip() == "▼ -0.5000 nDCG@5 · document: d"
    first = read.articles[0]["rows"]
    assert [row["label"] for row in first] == ["before: run", "after: run"]
    assert first[1]["pages"] == [[True, "1. ✓ answers d/1"], [False, "2. d/4"], [False, "3. d/5"]]
    assert first[0]["pages"] == [[False, "1. d/0"], [True, "2. ✓ answers d/1"], [False, "3. d/4"]]
    assert read.articles[2]["rows"][2] == {
        "label": "What answers",
        "what": "The page that answers.",
        "pages": [[True, "✓ answers d/4"]],
    }
    assert read.articles[4]["rows"][1]["pages"] == []
    for words in (
        "What changed from before: run to after: run",
        "Of 6 queries of planted (test, verbatim), 3 gained, 2 lost and 1 stayed the same.",
        "The nDCG@5 of after: run less that of before: run is +0.0667 [",
        "thick double border and the words “✓ answers”",
    ):
        assert words in read.text, words
    assert "MAP0.25000.2833+0.0333" in read.text.replace("\n", "")  # the table: 1.5 / 6 and 1.7 / 6
    for words in ("no picture", "seeds", "without the words", "language", "grade"):
        assert words not in read.text


def test_each_page_is_drawn_once_and_shown_as_it_is():
    asked = []
    corpus = planted()
    counted = replace(corpus, renderer=lambda name, side: asked.append((name, side)) or corpus.renderer(name, side))
    html = page_of(counted)
    assert sorted(asked) == [(f"d/{n}", LONGEST_SIDE) for n in range(6)]
    picture = re.search(r'base64,([^"]+)" alt="page d/3"', html).group(1)
    seen = Image.open(io.BytesIO(base64.b64decode(picture)))
    assert (seen.format, seen.size) == ("JPEG", (300, 400)) and abs(np.asarray(seen).mean() - 30) < 2


def test_languages_grades_seeds_and_hidden_words_are_told_where_there_are_any():
    corpus = planted(form="hidden")
    queries = tuple(replace(query, language="french") for query in corpus.queries)
    corpus = replace(corpus, queries=queries, qrels=corpus.qrels | {"q1": {"d/1": 2}})
    values = AFTER.measures.values["ndcg_at_5"]
    measures = replace(AFTER.measures, values={"ndcg_at_5": np.concatenate([values, values])})
    read = Reader(page_of(corpus, replace(AFTER, measures=measures, seeds=(0, 1))))
    assert read.articles[0]["facts"].strip() == "▲ +0.5000 nDCG@5 · language: french · document: d"
    assert read.articles[0]["rows"][1]["pages"][0] == [True, "1. ✓ answers, grade 2 d/1"]
    assert "pages are those of the first seed" in read.text
    assert "Pages are shown without the words of their queries" in read.text


def test_where_nothing_changed_a_sentence_says_so():
    same = replace(BEFORE, model="again", backbone=BEFORE.key)
    html = page_of(planted(renderer=lambda *asked: pytest.fail("nothing is to be drawn")), same)
    read = Reader(html)
    assert read.articles == [] and "<img" not in html
    assert "No query gained." in read.text and "No query lost." in read.text
    assert "0 gained, 0 lost and 6 stayed the same" in read.text


def test_a_page_without_a_picture_shows_its_text():
    def render(page_id, side):
        if page_id in ("d/1", "d/4"):
            raise CorpusError("this page has <neither>, only text")
        return Image.new("RGB", (side, side), "white")

    corpus = planted(renderer=render)
    long = "word\n\n" * 200
    pages = tuple(replace(p, text={"d/1": long, "d/4": " \n"}.get(p.page_id, p.text)) for p in corpus.pages)
    html = page_of(replace(corpus, pages=pages))
    read = Reader(html)
    assert "2 of 6 pages have no picture, as d/1 (this page has <neither>, only text); their text" in read.text
    assert f"{('word ' * 60)[:299]}…" in read.text and "This page has no picture and no text." in read.text
    assert "text of page 0" not in read.text  # it has a picture
    none = Reader(page_of(replace(corpus, renderer=lambda page_id, side: render("d/1", side))))
    assert "img" not in none.tags and "text of page 0" in none.text


def test_texts_of_data_stay_texts():
    corpus = planted(name=HOSTILE)
    pages = tuple(replace(page, page_id=f"{page.page_id} {HOSTILE}", text=HOSTILE) for page in corpus.pages)
    corpus = replace(
        corpus,
        pages=pages,
        queries=tuple(
            replace(q, text=HOSTILE, doc_id=f"doc {HOSTILE}", language=f"in {HOSTILE}") for q in corpus.queries
        ),
        qrels={f"q{n}": {pages[n].page_id: 1} for n in range(6)},
        renderer=lambda page_id, side: (_ for _ in ()).throw(CorpusError(f"because {HOSTILE}")),
    )
    before = replace(BEFORE, model=f"before {HOSTILE}")
    html = page_of(corpus, replace(AFTER, model=f"after {HOSTILE}", backbone=before.key), before)
    read, shown = Reader(html), inert(HOSTILE)
    clean = Reader(page_of(planted(renderer=lambda *asked: (_ for _ in ()).throw(CorpusError("none")))))
    assert read.tags == clean.tags  # no text has become a tag
    assert {(tag, name) for tag, name, _ in read.attributes} == {(tag, name) for tag, name, _ in clean.attributes}
    assert read.articles[0]["title"] == f"1. {shown}"
    assert read.articles[0]["facts"].strip() == f"▲ +0.5000 nDCG@5 · language: in {shown} · document: doc {shown}"
    for words in (f"after {shown}: run", f"(because {shown})", f"2. d/4 {shown}", f"queries of {shown} ("):
        assert words in read.text, words
    assert "{{ 7 * 7 }}" in shown and "49" not in read.text
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)


def test_the_page_runs_nothing_and_loads_nothing():
    read = Reader(page_of(planted()))
    assert not {"script", "link", "a", "iframe", "form", "object", "base", "svg"} & set(read.tags)
    assert not [name for _, name, _ in read.attributes if name.startswith("on") or name in ("href", "style", "srcset")]
    sources = [value for _, name, value in read.attributes if name == "src"]
    assert sources and all(re.fullmatch(r"data:image/jpeg;base64,[A-Za-z0-9+/]+=*", source) for source in sources)
    policy = next(value for tag, _, value in read.attributes if tag == "meta" and "default-src" in (value or ""))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    assert "url(" not in read.text and "@import" not in read.text


def test_the_same_input_gives_the_same_bytes():
    assert page_of(planted()) == page_of(planted())


def test_the_page_is_no_larger_than_is_promised(monkeypatch):
    """Every page is noise, no page is shown twice, no ranking holds an answer, and every text is long."""
    rng = np.random.default_rng(0)
    n_queries, n_pages = 2 * N_EXAMPLES, 18 * N_EXAMPLES
    large = Image.fromarray(rng.integers(0, 256, (LONGEST_SIDE, LONGEST_SIDE, 3), dtype=np.uint8))
    sizes = ((side, side) for side in range(LONGEST_SIDE, 0, -10))
    noise = next(part for size in sizes if seen_size(part := large.crop((0, 0, *size))) == size)  # just fits
    asked = []
    names = [f"{n} {HOSTILE * 50}" for n in range(n_pages)]
    corpus = Corpus(
        HOSTILE * 10,
        "hidden",
        0,
        tuple(Page(name, "d", 1, HOSTILE * 50, "h") for name in names),
        tuple(Query(f"q{n}", HOSTILE * 50, "given", "d" * 1000, "l" * 1000) for n in range(n_queries)),
        {f"q{n}": {names[9 * n + place]: 2 for place in (6, 7, 8)} for n in range(n_queries)},
        {"d": "test"},
        renderer=lambda page_id, side: asked.append(page_id) or noise,
    )
    gains = np.where(np.arange(n_queries) % 2, 0.5, -0.5)
    pages = 9 * np.arange(n_queries)[:, None] + np.arange(3)
    before = ranked("b" * 1000, np.full(n_queries, 0.5), pages)
    after = ranked("a" * 1000, 0.5 + gains, pages + 3, before.key)
    html = page_of(corpus, after, before)
    assert len(asked) == len(set(asked)) == n_pages and html.count("<img") == n_pages
    assert 0.8 * MOST_BYTES < len(html.encode("utf-8")) < MOST_BYTES
    monkeypatch.setattr(module, "PICTURE_BYTES", 10 * PICTURE_BYTES)  # the negative control
    assert n_pages * len(picture_file(large)) * 4 / 3 > MOST_BYTES


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "RGBA", "CMYK", "P"])
def test_a_picture_is_its_pixels_alone(mode):
    picture = Image.new(mode, (900, 300))
    picture.info = {"comment": b"x" * 60_000, "icc_profile": b"y" * 50_000, "exif": b"Exif\x00\x00z", "dpi": (7, 7)}
    content = picture_file(picture)
    seen = Image.open(io.BytesIO(content))
    assert seen.size == (LONGEST_SIDE, round(LONGEST_SIDE / 3)) and seen.mode == "RGB"
    assert not {"comment", "icc_profile", "exif", "dpi"} & set(seen.info) and len(content) < 5_000
    assert picture.size == (900, 300) and "comment" in picture.info  # what was given is as it was


def test_noise_is_drawn_smaller_until_it_fits(rng):
    noise = Image.fromarray(rng.integers(0, 256, (300, 900, 3), dtype=np.uint8))
    content = picture_file(noise)
    width, height = seen_size(noise)
    assert len(content) <= PICTURE_BYTES and width == pytest.approx(3 * height, abs=2) and width > 100
