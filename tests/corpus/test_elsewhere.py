"""Pages that show a query's words without being its answer: counted, and taken out on request."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from miner_diag.corpus import CorpusError, load_corpus
from miner_diag.corpus.elsewhere import elsewhere_summary, without_elsewhere, words_elsewhere
from miner_diag.corpus.options import DataOptions
from miner_diag.corpus.run import CorpusOptions, run

TITLES = [f"Heights of {about} in the harbour" for about in ("tides", "waves", "walls")]


@pytest.fixture
def shelf(make, folder):
    """Contents, three pages with a title, the last of which repeats the first title in its header, and a caption."""
    pages = [make.PdfPage(tuple(make.Text(f"{title} . . . {n}", y=700 - 30 * n) for n, title in enumerate(TITLES)))]
    pages += [make.PdfPage((make.Text(title),)) for title in TITLES[:2]]
    pages += [make.PdfPage((make.Text(TITLES[0], y=800), make.Text(TITLES[2])))]
    pages += [make.PdfPage((make.Text("Table 1: Average level of tides in harbours"),))]
    pages += [make.PdfPage((make.Text("Running text of its own."),))]
    other = make.pdf([make.PdfPage((make.Text(TITLES[0]),))] * 2, [("Lengths of piers in winter", 0)])
    return folder({"a.pdf": make.pdf(pages, [(title, n + 1) for n, title in enumerate(TITLES)]), "b.pdf": other})


def test_pages_of_the_document_that_show_the_words_are_found(shelf):
    corpus = load_corpus(shelf, queries="verbatim")
    found = {query.text: words_elsewhere(corpus).get(query.query_id) for query in corpus.queries}
    assert found == {
        TITLES[0]: ("a/1", "a/4"),
        TITLES[1]: ("a/1",),
        TITLES[2]: ("a/1",),
        "Average level of tides in harbours": None,
        "Lengths of piers in winter": None,
    }
    rows = elsewhere_summary(corpus).set_index("kind")
    assert rows.loc["outline"].tolist() == [4, 3, 2, 1]
    assert rows.loc["table"].tolist() == [1, 0, 0, 0]


def test_hidden_words_stand_nowhere(shelf):
    assert words_elsewhere(load_corpus(shelf)) == {}


def test_dropping_takes_out_what_answers_nothing_and_names_it(shelf):
    before = load_corpus(shelf, queries="verbatim")
    after = DataOptions(str(shelf), "verbatim", elsewhere="drop").load()
    assert {page.page_id for page in before.pages} - {page.page_id for page in after.pages} == {"a/1"}
    assert (after.queries, after.qrels) == (before.queries, before.qrels)
    assert [item.name for item in after.skipped if "answers none itself" in item.reason] == ["a/1"]
    assert after.revision != before.revision
    assert without_elsewhere(after).pages == after.pages


@pytest.mark.parametrize("queries", [None, "hidden"])
def test_dropping_is_refused_where_it_has_no_effect(shelf, queries):
    with pytest.raises(CorpusError, match=r"elsewhere drop has no effect.*--queries verbatim"):
        DataOptions(str(shelf), queries, elsewhere="drop").load()


def test_the_command_counts_them_by_kind(shelf, tmp_path, capsys):
    run(CorpusOptions(DataOptions(str(shelf), "verbatim"), out=tmp_path / "out"))
    assert (
        "the words of 3 of 4 outline queries stand on another page of their document too: on 2 pages, 1 of which "
        in (capsys.readouterr().out)
    )
    table = pd.read_csv(tmp_path / "out" / "elsewhere.csv").set_index("kind")
    assert table.loc["outline", "elsewhere"] == 3
    rows = [json.loads(row) for row in (tmp_path / "out" / "records.jsonl").read_text().splitlines()]
    values = {row["measure"]: row["value"] for row in rows}
    assert values["n_outline_elsewhere"] == 3 and values["n_outline_elsewhere_pages_without_query"] == 1
    assert values["n_table_elsewhere"] == 0
