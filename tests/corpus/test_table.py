"""Tables in BEIR form: pictures, PDFs and texts as pages; lines, ids and paths that are wrong."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from miner_diag.corpus import CorpusError, load_corpus


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
        ({"qrels": ["q0 p0 1"]}, r"qrels\.tsv, line 2 .*tab"),
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


def test_equal_pictures_do_not_cross_splits(small_table):
    """Forty pictures of two colours, each its own document: what stands in two splits is in none."""
    folder = small_table()
    rows, queries, qrels = [], [], []
    for number in range(40):
        colour = "red" if number % 2 else (number, 0, 200)
        Image.new("RGB", (20, 20), colour).save(folder / f"x{number}.png")
        rows.append({"_id": f"p{number}", "image": f"x{number}.png"})
        queries.append({"_id": f"q{number}", "text": f"question {number}"})
        qrels.append((f"q{number}", f"p{number}", "1"))
    corpus = load_corpus(small_table(queries=queries, corpus=rows, qrels=qrels))
    where = {}
    for page in corpus.pages:
        where.setdefault(page.page_hash, set()).add(corpus.splits[page.doc_id])
    assert all(len(splits) == 1 for splits in where.values())
    assert {query.query_id for query in corpus.queries} == {f"q{n}" for n in range(0, 40, 2)}


def test_a_query_whose_pages_are_in_two_splits_crosses_nothing(small_table):
    rows = [{"_id": f"p{n}", "image": "0.png" if n == 0 else f"{n % 4}.png", "doc": f"doc{n}"} for n in range(4)]
    qrels = [("q0", f"p{n}", "1") for n in range(4)] + [(f"q{n}", f"p{n}", "1") for n in (1, 2, 3)]
    corpus = load_corpus(small_table(corpus=rows, qrels=qrels))
    assert len(set(corpus.splits.values())) > 1, "the test needs documents of two splits"
    for name in set(corpus.splits.values()):
        try:
            part = corpus.split(name)
        except CorpusError:
            continue
        own = {page.page_id for page in part.pages}
        assert all(own.issuperset(judged) for judged in part.qrels.values())
    assert "q0" in {query.query_id for query in corpus.queries} or any("q0" in name for name in names(corpus))
