"""Tables in BEIR form: pictures, PDFs and texts as pages; lines, ids and paths that are wrong."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from PIL import Image

from miner_diag.corpus import CorpusError, load_corpus
from miner_diag.corpus.options import DataOptions
from miner_diag.corpus.splits import resplit
from miner_diag.corpus.table import open_image


def names(corpus):
    return {item.name: item.reason for item in corpus.skipped}


def test_pictures_with_given_queries(small_table):
    corpus = load_corpus(small_table())
    assert [query.query_id for query in corpus.queries] == ["q0", "q1", "q2", "q3"]
    assert {query.kind for query in corpus.queries} == {"given"}
    assert corpus.qrels == {f"q{n}": {f"p{n}": 1} for n in range(4)}
    assert [page.text for page in corpus.pages] == [""] * 4
    np.testing.assert_array_equal(np.asarray(corpus.render("p2"))[0, 0], (120, 10, 10))


def test_pages_of_pdfs_with_their_text_and_document(make, tmp_path):
    folder = make.table(
        tmp_path / "table",
        [{"_id": "q", "text": "how high is the water"}],
        [{"_id": f"p{n}", "pdf": "book.pdf", "page": n} for n in (1, 2, 3)],
        [("q", "p2", "2"), ("q", "p3", "1")],
    )
    (folder / "book.pdf").write_bytes(make.handbook())
    corpus = load_corpus(folder)
    assert corpus.qrels == {"q": {"p2": 2, "p3": 1}}
    assert [page.page_number for page in corpus.pages] == [1, 2, 3]
    assert "running text about tides, page 2" in corpus.pages[1].text
    assert len({page.doc_id for page in corpus.pages}) == 1, "pages of one PDF are one document"
    assert corpus.render("p2", 300).size[1] == 300


def test_a_page_may_have_a_picture_and_a_text_and_name_its_document(small_table):
    rows = [{"_id": f"p{n}", "image": f"{n}.png", "text": f"words of {n}", "doc": "one"} for n in range(4)]
    corpus = load_corpus(small_table(corpus=rows))
    assert [page.text for page in corpus.pages] == [f"words of {n}" for n in range(4)]
    assert set(corpus.splits) == {"one"}


def test_lines_may_be_empty_or_end_like_on_windows_and_grades_of_0_do_not_count(small_table):
    folder = small_table(qrels=["q0\tp0\t1\r", "q0\tp1\t0", "", "q1\tp1\t2", "q2\tp2\t1", "q3\tp3\t1"])
    assert load_corpus(folder).qrels == {"q0": {"p0": 1}, "q1": {"p1": 2}, "q2": {"p2": 1}, "q3": {"p3": 1}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": [{"_id": "p0", "image": f"{n}.png"} for n in range(2)]}, r"corpus\.jsonl, line 2: .*'p0'.*unique"),
        ({"queries": [{"_id": "q0", "text": t} for t in ("a", "b")]}, r"queries\.jsonl, line 2: .*'q0'.*unique"),
        ({"qrels": [("q0", "p0", "1"), ("q9", "p1", "1")]}, r"qrels\.tsv, line 3 .*'q9'"),
        ({"qrels": [("q0", "p0", "1"), ("q1", "p9", "1")]}, r"qrels\.tsv, line 3 .*'p9'"),
        ({"qrels": [("q0", "p0", "1"), ("q0", "p0", "1")]}, r"qrels\.tsv, line 3.*twice"),
        ({"qrels": ["q0 p0 1"]}, r"qrels\.tsv, line 2: .*tab"),
        ({"qrels": [("q0", "p0", "much")]}, r"qrels\.tsv, line 2.*'much'"),
        ({"queries": ['{"_id": "q0", "text": ']}, r"queries\.jsonl, line 1 .*JSON"),
        ({"queries": ['["q0", "a"]']}, r"queries\.jsonl, line 1 .*object"),
        ({"queries": [{"text": "no id"}]}, r"queries\.jsonl, line 1.*_id"),
        ({"queries": [{"_id": "q0"}]}, r"queries\.jsonl, line 1.*text"),
        ({"corpus": [{"_id": 7, "image": "0.png"}]}, r"corpus\.jsonl, line 1.*_id.*7"),
        ({"corpus": [{"_id": "p0"}]}, r"corpus\.jsonl, line 1.*image.*pdf.*text"),
        ({"corpus": [{"_id": "p0", "image": "0.png", "page": 0}]}, r"corpus\.jsonl, line 1.*page.*0"),
    ],
)
def test_a_wrong_line_is_named(small_table, changes, message):
    with pytest.raises(CorpusError, match=message):
        load_corpus(small_table(**changes))


def test_a_missing_file_of_the_table_is_named(small_table):
    folder = small_table()
    (folder / "qrels.tsv").unlink()
    with pytest.raises(CorpusError, match=r"qrels\.tsv"):
        load_corpus(folder)


def test_a_file_that_is_no_text_is_named(small_table):
    folder = small_table()
    (folder / "queries.jsonl").write_bytes(b'{"_id": "q0", "text": "\xff\xfe"}\n')
    with pytest.raises(ValueError, match=r"queries\.jsonl"):
        load_corpus(folder)


@pytest.mark.parametrize("field", ["image", "pdf"])
@pytest.mark.parametrize("path", ["../private", "more/../../private", "{absolute}", "link"])
def test_a_path_that_leaves_the_folder_is_refused_and_not_read(make, small_table, tmp_path, field, path):
    folder = small_table()
    if field == "image":
        Image.new("RGB", (30, 40), "red").save(tmp_path / "private", format="png")
    else:
        (tmp_path / "private").write_bytes(make.handbook("secrets"))
    (folder / "link").symlink_to(tmp_path / "private")
    row = {"_id": "p9", field: path.format(absolute=tmp_path / "private")}
    rows = [{"_id": f"p{n}", "image": f"{n}.png"} for n in range(4)] + [row]
    with pytest.raises(CorpusError, match=r"corpus\.jsonl, line 5: .*(leaves|outside)") as raised:
        load_corpus(small_table(corpus=rows))
    assert row[field] in str(raised.value)


@pytest.mark.parametrize("path", [7, ["0.png"], True, ""])
def test_a_path_that_is_none_is_a_sentence_or_named(small_table, path):
    rows = [{"_id": "p0", "image": path}] + [{"_id": f"p{n}", "image": f"{n}.png"} for n in (1, 2, 3)]
    try:
        corpus = load_corpus(small_table(corpus=rows))
    except CorpusError as error:
        assert "corpus.jsonl, line 1" in str(error)
    else:
        assert "p0" in names(corpus)


BAD_PICTURES = {
    "bomb.png": ("50000 x 50000|pixels", lambda make: make.png(50_000, 50_000)),
    "wide-bomb.png": ("pixels", lambda make: make.png(2**31 - 1, 2**31 - 1)),
    "broken.png": ("not a readable|broken|truncated", lambda make: make.png(30, 40)),
    "no-picture.png": ("not a readable|cannot identify", lambda make: b"This is a letter." * 9),
    "empty.png": ("", lambda make: b""),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_one_bad_picture_is_left_out_by_name_and_the_rest_is_used(make, small_table, name):
    reason, content = BAD_PICTURES[name]
    rows = [{"_id": "p0", "image": name}] + [{"_id": f"p{n}", "image": f"{n}.png"} for n in (1, 2, 3)]
    folder = small_table(corpus=rows)
    (folder / name).write_bytes(content(make))
    corpus = load_corpus(folder)
    assert [page.page_id for page in corpus.pages] == ["p1", "p2", "p3"]
    assert [query.query_id for query in corpus.queries] == ["q1", "q2", "q3"]
    assert name in names(corpus)["p0"]
    assert re.search(reason, names(corpus)["p0"])
    assert any("q0" in item for item in names(corpus)), "a query that loses its page is named"


def test_a_missing_picture_and_a_missing_page_are_named(make, small_table):
    rows = [
        {"_id": "p0", "image": "nowhere.png"},
        {"_id": "p1", "pdf": "book.pdf", "page": 99},
        {"_id": "p2", "image": "2.png"},
        {"_id": "p3", "pdf": "book.pdf", "page": 3},
    ]
    folder = small_table(corpus=rows)
    (folder / "book.pdf").write_bytes(make.handbook())
    corpus = load_corpus(folder)
    assert {page.page_id for page in corpus.pages} == {"p2", "p3"}
    assert "nowhere.png" in names(corpus)["p0"]
    assert "99" in names(corpus)["p1"]


def test_a_bad_pdf_behind_a_page_is_named(make, small_table):
    rows = [{"_id": "p0", "pdf": "locked.pdf"}] + [{"_id": f"p{n}", "image": f"{n}.png"} for n in (1, 2, 3)]
    folder = small_table(corpus=rows)
    (folder / "locked.pdf").write_bytes(make.pdf([make.PdfPage((make.Text("secret"),))], password="secret"))
    corpus = load_corpus(folder)
    assert [page.page_id for page in corpus.pages] == ["p1", "p2", "p3"]
    assert "encrypted" in names(corpus)["p0"]


def test_a_query_without_a_page_is_left_out_by_name(small_table):
    corpus = load_corpus(small_table(qrels=[("q0", "p0", "1"), ("q1", "p1", "0"), ("q3", "p3", "1")]))
    assert [query.query_id for query in corpus.queries] == ["q0", "q3"]
    for query_id in ("q1", "q2"):
        assert any(query_id in name for name in names(corpus))
    assert len(corpus.pages) == 4


def test_nothing_usable_at_all_is_an_error(small_table):
    with pytest.raises(CorpusError, match=r"no query|nothing"):
        load_corpus(small_table(qrels=[]))
    with pytest.raises(CorpusError, match=r"nowhere"):
        load_corpus(small_table(corpus=[{"_id": f"p{n}", "image": f"nowhere{n}.png"} for n in range(4)]))


def many(small_table, n, *, colour=None, gold=lambda number: [number]):
    """Make a table of n pictures, each a document, and n queries; copies where `colour` says so."""
    folder = small_table()
    rows, queries, qrels = [], [], []
    for number in range(n):
        Image.new("RGB", (20, 20), colour(number) if colour else (number, 0, 200)).save(folder / f"x{number}.png")
        rows.append({"_id": f"p{number}", "image": f"x{number}.png"})
    for number in range(n):
        if pages := gold(number):
            queries.append({"_id": f"q{number}", "text": f"question {number}"})
            qrels += [(f"q{number}", f"p{page}", "1") for page in pages]
    return small_table(queries=queries, corpus=rows, qrels=qrels)


def test_of_equal_pictures_the_first_stays_and_takes_the_judgements(small_table):
    """Forty pictures, every second one red, each its own document: one red one stays, and no query is lost."""
    corpus = load_corpus(many(small_table, 40, colour=lambda number: "red" if number % 2 else (number, 0, 200)))
    assert [page.page_id for page in corpus.pages] == ["p0", "p1", *(f"p{n}" for n in range(2, 40, 2))]
    assert corpus.qrels == {f"q{n}": {"p1" if n % 2 else f"p{n}": 1} for n in range(40)}
    assert [item.name for item in corpus.skipped] == [f"p{n}" for n in range(3, 40, 2)]
    assert all("stands earlier in corpus.jsonl" in item.reason for item in corpus.skipped)
    for fold in range(1, 4):
        assert not [item for item in resplit(corpus, fold).skipped if item not in corpus.skipped]


def test_of_equal_texts_the_first_stays_and_the_higher_grade_counts(small_table):
    rows = [{"_id": f"p{n}", "text": "the same" if n in (1, 3) else f"text {n}"} for n in range(4)]
    qrels = [("q0", "p1", "1"), ("q0", "p3", "2"), ("q1", "p3", "1"), ("q2", "p2", "1")]
    corpus = load_corpus(small_table(corpus=rows, qrels=qrels))
    assert corpus.qrels == {"q0": {"p1": 2}, "q1": {"p1": 1}, "q2": {"p2": 1}}
    assert names(corpus)["p3"].startswith("a copy")


def test_queries_with_several_pages_are_not_lost_between_splits(small_table):
    """Sixty pictures, twenty queries of three pages each: all stay, and a query's pages are in one split."""
    folder = many(small_table, 60, gold=lambda number: range(3 * number, 3 * number + 3) if number < 20 else [])
    corpus = load_corpus(folder)
    assert (len(corpus.queries), len(corpus.pages), corpus.skipped) == (20, 60, ())
    assert all(len(gold) == 3 for gold in corpus.qrels.values())
    parts = [corpus.split(name) for name in ("train", "validation", "test")]
    assert sum(len(part.queries) for part in parts) == 20
    assert sum(len(part.pages) for part in parts) == 60
    for fold in range(1, 4):
        assert resplit(corpus, fold) == load_corpus(folder, fold=fold)


def test_queries_that_share_a_page_stay_together(small_table):
    corpus = load_corpus(many(small_table, 30, gold=lambda number: [number, number + 1] if number < 29 else []))
    assert len(corpus.queries) == 29, "a chain of shared pages is one group"
    assert len(set(corpus.splits.values())) == 1


@pytest.mark.parametrize("fold", range(12))
def test_no_split_of_five_documents_is_empty(small_table, fold):
    corpus = load_corpus(many(small_table, 5), fold=fold)
    assert {corpus.splits[query.doc_id] for query in corpus.queries} == {"train", "validation", "test"}


def test_a_title_is_joined_to_the_text(small_table):
    rows = [
        {"_id": "p0", "title": "Tides", "text": "rise and fall "},
        {"_id": "p1", "title": "", "text": " no title"},
        {"_id": "p2", "title": "Only a title", "text": ""},
        {"_id": "p3", "title": " ", "text": "a blank title", "metadata": {}},
        {"_id": "p4", "title": "left to its picture", "image": "0.png"},
        {"_id": "p5", "title": None, "text": "a title of null"},
    ]
    texts = ["Tides rise and fall", " no title", "Only a title", "a blank title", "", "a title of null"]
    assert [page.text for page in load_corpus(small_table(corpus=rows)).pages] == texts


def test_the_standard_layout_is_read_and_says_which_file(small_table):
    folder = small_table()
    (folder / "qrels").mkdir()
    lines = (folder / "qrels.tsv").read_text().splitlines()
    (folder / "qrels.tsv").unlink()
    (folder / "qrels" / "train.tsv").write_text("\n".join(lines[:2]))
    assert list(load_corpus(folder).qrels) == ["q0"]
    (folder / "qrels" / "test.tsv").write_text("\ufeff" + "\n".join([lines[0], *lines[2:4]]))
    corpus = load_corpus(folder)
    assert list(corpus.qrels) == ["q1", "q2"]
    assert names(corpus)["qrels/train.tsv"] == "judgements are read from qrels/test.tsv"
    assert names(corpus)["query q0"] == "qrels/test.tsv does not judge it"


def test_byte_order_marks_and_other_qrels_are_read_as_by_the_retrieval_command(small_table):
    folder = small_table()
    for name in ("queries.jsonl", "corpus.jsonl"):
        (folder / name).write_text("\ufeff" + (folder / name).read_text())
    expected = {f"q{n}": {f"p{n}": 1} for n in range(4)}
    for text in (
        "".join(f"q{n} 0 p{n} 1\n" for n in range(4)),
        "qid\tdocid\trel\n" + "".join(f"q{n}\tp{n}\t1.0\n" for n in range(4)),
        "".join(f"q{n}\tp{n}\t1\n" for n in range(4)) + "q0\tp1\t-1\n",
    ):
        (folder / "qrels.tsv").write_text(text)
        assert load_corpus(folder).qrels == expected
    (folder / "qrels.tsv").write_text("q0\tp0\t0.5\n")
    with pytest.raises(CorpusError, match=r"qrels\.tsv, line 1: .* whole number"):
        load_corpus(folder)


def items(small_table, **qrels):
    rows = [{"_id": f"i{n}", "text": f"claim {n}"} for n in range(6)]
    queries = [{"_id": f"i{n}", "text": f"claim {n}"} for n in range(3)]
    return small_table(
        queries=queries, corpus=rows, qrels=qrels.get("qrels", [(f"i{n}", f"i{n + 3}", "1") for n in range(3)])
    )


def test_queries_that_are_pages_are_told_and_can_be_ignored(small_table, caplog):
    folder = items(small_table)
    plain = load_corpus(folder)
    assert re.search(r"3 of 3 queries have the id of a page, the first is 'i0', and 3 .*--ignore-self", caplog.text)
    caplog.clear()
    corpus = DataOptions(str(folder), ignore_self=True).load()
    assert corpus.ignore_self and not plain.ignore_self and not caplog.text
    assert corpus.revision != plain.revision


def test_ignore_self_without_effect_or_against_the_answers_is_refused(small_table):
    with pytest.raises(CorpusError, match="no query has the id of a page, so --ignore-self has no effect"):
        load_corpus(small_table(), ignore_self=True)
    with pytest.raises(CorpusError, match="--ignore-self has an effect on tables only"):
        load_corpus("sample", ignore_self=True)
    with pytest.raises(CorpusError, match="1 queries are answered by the page of their own id, the first is 'i1'"):
        load_corpus(items(small_table, qrels=[("i0", "i3", "1"), ("i1", "i1", "1")]), ignore_self=True)


def test_a_pipe_and_a_loop_of_links_are_sentences(small_table):
    rows = [{"_id": "p0", "image": "pipe.png"}] + [{"_id": f"p{n}", "image": f"{n}.png"} for n in (1, 2, 3)]
    folder = small_table(corpus=rows)
    os.mkfifo(folder / "pipe.png")
    assert names(load_corpus(folder))["p0"] == "pipe.png is not a file"
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    for path in ("a", "a/x.png", "x\0.png", "x" * 5000):
        rows[0]["image"] = path
        try:
            assert "p0" in names(load_corpus(small_table(corpus=rows)))
        except CorpusError as error:
            assert "corpus.jsonl, line 1" in str(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": ['{"_id":' * 100_000]}, "queries.jsonl, line 1 is JSON nested too deeply"),
        ({"corpus": ["[" * 100_000]}, "corpus.jsonl, line 1 is JSON nested too deeply"),
        ({"corpus": ['{"_id": "p0", "page": ' + "9" * 5000 + "}"]}, "corpus.jsonl, line 1 is not JSON"),
        ({"corpus": [{"_id": "p0", "image": "0.png", "page": True}]}, "page must be a whole number from 1; got True"),
        ({"corpus": [{"_id": "p0", "text": "a", "title": 7}]}, "line 1: title must be a text; got 7"),
        ({"corpus": [{"_id": "p0", "image": "0.png", "text": ["a"]}]}, "line 1: text must be a text; got"),
        ({"corpus": [{"_id": "p0", "image": "0.png", "doc": ["a"]}]}, "line 1: doc must be the name of a document"),
        ({"queries": ['{"_id": "q0", "text": "\\ud800"}']}, "queries.jsonl, line 1: text holds half a character"),
        ({"qrels": [("q0", "p0", "9" * 400)]}, "line 2: .*whole number below 2"),
    ],
)
def test_hostile_lines_are_sentences(small_table, changes, message):
    with pytest.raises(CorpusError, match=message):
        load_corpus(small_table(**changes))


def test_the_stated_limit_of_pixels_is_the_one_that_holds(make, tmp_path):
    for width, reason in ((9_500, "not a readable picture"), (10_001, "at most 100,000,000"), (30_000, "100,000,000")):
        (tmp_path / "large.png").write_bytes(make.png(width, 10_000))
        with pytest.raises(CorpusError, match=reason):
            open_image(tmp_path / "large.png")


def test_a_query_whose_pages_are_of_several_documents_crosses_nothing(small_table):
    rows = [{"_id": f"p{n}", "image": f"{n % 4}.png", "doc": f"doc{n}"} for n in range(4)]
    qrels = [("q0", f"p{n}", "1") for n in range(3)] + [(f"q{n}", f"p{n}", "1") for n in (1, 2, 3)]
    corpus = load_corpus(small_table(corpus=rows, qrels=qrels))
    assert len(corpus.queries) == 4
    for name in set(corpus.splits.values()):
        part = corpus.split(name)
        own = {page.page_id for page in part.pages}
        assert all(own.issuperset(judged) for judged in part.qrels.values())
