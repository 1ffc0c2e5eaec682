"""Data sets laid out as ViDoRe V1, V2 and V3: whose judgements are whose, grades, copies, damage, languages."""

from __future__ import annotations

import io
import json
import logging
import tracemalloc
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from miner_diag.corpus import Corpus, CorpusError, load_corpus
from miner_diag.corpus.benchmark import is_benchmark_folder
from miner_diag.corpus.benchmark_lock import lock_path
from miner_diag.corpus.core import Benchmark
from miner_diag.corpus.options import DataOptions
from miner_diag.corpus.splits import resplit
from miner_diag.sealed import sealed
from tests.corpus.benchmarks import (
    COMMIT,
    LANGUAGES,
    N_PAGES,
    image,
    picture,
    shared_tables,
    tables_by_language,
    write_benchmark,
    write_manifest,
)
from tests.corpus.parquet_files import png, save

BOTH = pytest.mark.parametrize("tables_of", [shared_tables, tables_by_language])


@pytest.fixture
def load(tmp_path):
    def write_and_load(tables, split="test", **options) -> Corpus:
        return load_corpus(write_benchmark(tmp_path / "data", tables, split), **options)

    return write_and_load


def by_text(corpus):
    """Return what judges each query, by its words: ids are not the same in both layouts."""
    number = {page.page_id: page.page_id.removeprefix("page-") for page in corpus.pages}
    return {
        query.text: {number[page_id]: grade for page_id, grade in corpus.qrels[query.query_id].items()}
        for query in corpus.queries
    }


# --- what is read


@BOTH
def test_each_query_has_the_judgements_of_its_language_alone_and_grades_stay(load, tables_of):
    """Qrels hold the judgements of all languages, in the one table of V2 as in each of V3's."""
    corpus = load(tables_of())
    expected = {"0": {"0": 2, "1": 1}, "1": {"2": 1}, "2": {"5": 2}, "3": {"4": 1}}
    assert by_text(corpus) == {
        f"{language} question {number}": judged for language in LANGUAGES for number, judged in expected.items()
    }
    assert corpus.languages == LANGUAGES
    assert {query.text.split()[0] for query in corpus.queries if query.language == "spanish"} == {"spanish"}
    assert corpus.form == "verbatim" and all(page.text == "" for page in corpus.pages)


@BOTH
def test_a_language_is_a_subset_over_the_same_pages(load, tables_of):
    tables = tables_of()
    every, spanish = load(tables), load(tables, subset="spanish")
    assert spanish.pages == every.pages and spanish.name == "data-spanish" and spanish.languages == ("spanish",)
    assert spanish.queries == tuple(query for query in every.queries if query.language == "spanish")
    assert spanish.qrels == {query.query_id: every.qrels[query.query_id] for query in spanish.queries}
    assert spanish.revision != every.revision
    with pytest.raises(CorpusError, match="subset must be one of french, spanish, english, german for data; got 'en'"):
        load(tables, subset="en")


def test_a_data_set_of_one_language_needs_no_column_that_says_so(load):
    corpus = load(shared_tables(["english"], column=False))
    assert corpus.languages == () and len(corpus.queries) == 4
    with pytest.raises(CorpusError, match="subset must be one of none, since the data do not name languages for data"):
        load(shared_tables(["english"], column=False), subset="english")


@pytest.mark.parametrize("id_column", ["id", "_id"])
def test_ids_that_stand_in_several_languages_are_told_apart(load, id_column):
    """The same ids in each language, and tables of qrels that judge their own language alone."""
    corpus = load(tables_by_language(id_column=id_column, prefix=False))
    assert [query.query_id for query in corpus.queries][:5] == [
        *(f"french/query-test-{number}" for number in range(4)),
        "spanish/query-test-0",
    ]
    assert by_text(corpus) == by_text(load(tables_by_language()))


@pytest.mark.parametrize("split", ["test", "train"])
def test_the_test_split_is_read_or_the_only_one(load, split):
    assert len(load(shared_tables(), split).queries) == 16


def test_two_other_splits_are_no_choice(tmp_path):
    folder = write_benchmark(tmp_path / "data", shared_tables(), "dev")
    card = (
        (folder / "README.md").read_text().replace("  - split: dev\n", "  - split: old\n    path: x\n  - split: dev\n")
    )
    (folder / "README.md").write_text(card)
    with pytest.raises(CorpusError, match=r"data \(queries\) has no split test; it has old, dev"):
        load_corpus(folder)


def test_pictures_are_drawn_one_at_a_time_from_their_rows(load):
    corpus = load(shared_tables())
    for number in (4, 0, 1):
        kind = "JPEG" if number == 1 else "PNG"
        expected = {4: 3}.get(number, number)
        expected = Image.open(io.BytesIO(picture(expected, kind))).convert("RGB")
        np.testing.assert_array_equal(np.asarray(corpus.render(str(number))), np.asarray(expected))
    assert max(corpus.render("0", 50).size) == 50


def test_pictures_are_never_in_memory_together(tmp_path):
    """Of 50 pictures of a megabyte a small part is allocated, by Python and by Arrow, though each is drawn."""
    rows = [{"corpus-id": number, "image": image(png(number, (600, 600)))} for number in range(50)]
    total = sum(len(row["image"]["bytes"]) for row in rows)
    asked = {"queries": [{"query-id": 0, "query": "q"}], "qrels": [{"query-id": 0, "corpus-id": 0, "score": 1}]}
    tables = {"corpus": rows, **asked}
    folder = write_benchmark(tmp_path / "data", tables)
    del rows, tables
    load_corpus(folder)  # the library's copy is made and pictures are noted
    held = pa.total_allocated_bytes()
    tracemalloc.start()
    corpus = load_corpus(folder)
    for page in corpus.pages:
        corpus.render(page.page_id)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(corpus.pages) == 50 and total > 45e6
    assert peak < total / 5 and pa.total_allocated_bytes() - held < total / 5


# --- grades of 0, copies, damage


@BOTH
def test_a_grade_of_0_is_no_answer_and_a_query_without_any_is_left_out_by_name(load, tables_of):
    grades = {0: {0: 0, 1: 3}, 1: {2: 0, 3: 0}, 2: {}}
    corpus = load(tables_of(["english"], grades=grades))
    assert list(by_text(corpus).values()) == [{"1": 3}]
    reasons = {item.name: item.reason for item in corpus.skipped if item.name.startswith("query")}
    assert sorted(reasons.values()) == ["its judgements are all 0", "qrels do not judge it"]


@BOTH
def test_a_page_and_its_copy_are_one_answer_whichever_is_judged_and_the_higher_grade_counts(load, tables_of):
    """Pages 2 and 3 have the same picture."""
    grades = {0: {3: 1}, 1: {2: 2}, 2: {2: 1, 3: 2}, 3: {2: 0, 3: 1}}
    corpus = load(tables_of(["english"], grades=grades))
    assert list(by_text(corpus).values()) == [{"2": 1}, {"2": 2}, {"2": 2}, {"2": 1}]
    assert len(corpus.pages) == N_PAGES - 1
    told = [item for item in corpus.skipped if "earlier page" in item.reason]
    assert [item.name for item in told] == ["1 pages"]


@BOTH
@pytest.mark.parametrize("damaged", [0, 1])
def test_a_damaged_picture_is_left_out_with_its_judgements_and_a_sentence_says_so(load, tables_of, damaged, caplog):
    """Page 0 is a PNG, page 1 a JPEG; both are cut in their middle. Query 0 keeps its other answer."""
    corpus = load(tables_of(damaged=damaged))
    other = {0: {"1": 1}, 1: {"0": 2}}[damaged]
    assert {by_text(corpus)[f"{language} question 0"] == other for language in LANGUAGES} == {True}
    assert len(corpus.pages) == N_PAGES - 2 and len(corpus.queries) == 16
    assert "1 of 6 pages of data are left out with 4 judgements, because their picture cannot be used" in caplog.text
    reasons = {item.name.removeprefix("page-"): item.reason for item in corpus.skipped}
    assert "not a readable picture" in reasons[str(damaged)]
    assert reasons["4 judgements"] == "are of pages whose picture cannot be used"


@BOTH
def test_a_query_whose_only_page_is_damaged_is_left_out_by_name(load, tables_of):
    corpus = load(tables_of(damaged=4))
    assert len(corpus.queries) == 12 and not any(text.endswith("3") for text in by_text(corpus))
    assert sum(item.reason == "no usable page answers it" for item in corpus.skipped) == 4


def test_a_row_without_a_picture_is_damaged_too(load):
    tables = shared_tables(["english"])
    tables["corpus"][4]["image"] = {"bytes": None, "path": "/etc/hostname"}
    assert "it holds no picture" in {item.reason for item in load(tables).skipped}


# --- what is wrong is named


@BOTH
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("corpus-id", 77, r"qrels\), row 6 judges page '\S*77', which is not among the pages"),
        ("query-id", 77, r"qrels\), row 6 judges query '\S*77', which is not among the queries"),
    ],
)
def test_qrels_that_name_what_is_not_there_are_an_error(load, tables_of, column, value, message):
    tables = tables_of()
    config = next(config for config in tables if config.endswith("qrels"))
    tables[config][6] = tables[config][6] | {column: value if tables_of is shared_tables else f"page-{value}"}
    with pytest.raises(CorpusError, match=message):
        load(tables)


def test_a_pair_stands_once_and_ids_do(load):
    tables = shared_tables()
    with pytest.raises(CorpusError, match=r"data \(qrels\), row 24 judges page '0' for query '0' once more"):
        load(tables | {"qrels": [*tables["qrels"], tables["qrels"][0] | {"score": 1}]})
    for config in ("queries", "corpus"):
        with pytest.raises(CorpusError, match=rf"data \({config}\), row 1: the id '0' stands twice; ids must be uniq"):
            first = tables[config][0]
            load(tables | {config: [first, *({**row} for row in [first, *tables[config][1:]])]})


def test_a_language_with_other_pages_is_named(load):
    tables = tables_by_language()
    tables["english-corpus"] = [*tables["english-corpus"][1:], {"id": "page-9", "image": image(picture(7))}]
    with pytest.raises(
        CorpusError, match=r"english-corpus has 6 pages and french-corpus 6, and 1 of the former are not am"
    ):
        load(tables)
    tables["english-corpus"] = tables["english-corpus"][:-1]
    with pytest.raises(
        CorpusError, match="english-corpus has 5 pages and french-corpus 6, and 0 of the former are not"
    ):
        load(tables)


def test_the_pages_of_other_languages_are_compared_by_their_ids_and_not_drawn(load):
    """Their pictures are never looked at: those of english are no pictures at all here."""
    tables = tables_by_language()
    tables["english-corpus"] = [row | {"image": image(b"no picture")} for row in tables["french-corpus"]]
    corpus = load(tables)
    assert len(corpus.pages) == N_PAGES - 1 and len(corpus.queries) == 16


def without(row, name):
    return {key: value for key, value in row.items() if key != name}


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        ("qrels", lambda row: row | {"score": 0.5}, r"data \(qrels\): column score must be int8 or .*; got Value"),
        ("qrels", lambda row: without(row, "score"), r"data \(qrels\) has no column score; it has query-id, corpus-id"),
        (
            "queries",
            lambda row: without(row, "query"),
            r"data \(queries\) has no column query or text; it has query-id",
        ),
        ("queries", lambda row: row | {"query": 7}, r"data \(queries\): column query must be string or large_string"),
        ("corpus", lambda row: without(row, "image"), r"data \(corpus\) has no column image; it has corpus-id, doc"),
        ("corpus", lambda row: without(row, "corpus-id"), r"data \(corpus\) has no column corpus-id or id or _id"),
    ],
)
def test_columns_that_are_none_are_named(load, config, change, message):
    tables = shared_tables()
    with pytest.raises(CorpusError, match=message):
        load(tables | {config: [change(row) for row in tables[config]]})


def test_an_empty_question_is_left_out_by_name(load):
    tables = shared_tables(["english"])
    tables["queries"][1]["query"] = "  "
    assert [item.name for item in load(tables).skipped if item.reason == "it has no text"] == ["query 1"]


def test_grades_below_0_count_as_0_with_a_sentence(load, caplog):
    corpus = load(shared_tables(["english"], grades={0: {0: -1, 1: 1}}))
    assert corpus.qrels == {"0": {"1": 1}} and "1 of 2 grades are below 0" in caplog.text


# --- a copy of a shipped data set


def test_a_folder_with_the_name_of_a_shipped_data_set_is_that_one_or_refused(tmp_path, monkeypatch):
    """What no hub is reached for is fetched elsewhere and brought here; then counts and the lock hold all the same."""
    folder = write_benchmark(tmp_path / "vidore-v1-tabfquad", shared_tables())
    with pytest.raises(
        CorpusError, match="vidore-v1-tabfquad holds 6 pages instead of 70; 5 pictures instead of 70; 16"
    ):
        load_corpus(folder)
    write_manifest(tmp_path / "vidore-v1-tabfquad.yaml", shared_tables())
    monkeypatch.setattr("miner_diag.corpus.benchmark.manifest_folder", lambda: tmp_path)
    corpus = load_corpus(folder, subset="german")
    assert corpus.benchmark == Benchmark("ViDoRe V2", "Vidore9Task", "ndcg_at_5", "Find a page.")
    assert corpus.name == "vidore-v1-tabfquad-german"
    lock = lock_path(folder.name, COMMIT)
    assert not lock.exists(), "a folder makes no lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    facts = {"format": 1, "name": folder.name, "hub_id": f"owner/{folder.name}", "revision": COMMIT}
    lock.write_text(json.dumps(sealed(facts | {"counts": {}, "sha256": "0" * 64})))
    with pytest.raises(
        CorpusError, match="is not what it was when it was first loaded from the hub: counts was .*; sha25"
    ):
        load_corpus(folder)
    lock.unlink()
    write_benchmark(folder, shared_tables(["english"]))
    with pytest.raises(CorpusError, match=r"holds 0 queries in french, .*A copy in a folder is not whole then"):
        load_corpus(folder)


# --- test data alone


def test_nothing_can_be_fitted_to_it(load):
    corpus = load(shared_tables())
    assert corpus.split("test").queries == corpus.queries == corpus.split("all").queries
    for split in ("train", "validation"):
        with pytest.raises(CorpusError, match=f"data is test data alone and has no {split} split: .* --split test"):
            corpus.split(split)
    with pytest.raises(
        CorpusError, match="data is test data alone: it is not dealt to other splits, so fold 3 has none"
    ):
        resplit(corpus, 3)


def test_options_without_effect_are_refused(tmp_path):
    folder = str(write_benchmark(tmp_path / "data", shared_tables()))
    with pytest.raises(CorpusError, match="--fold has no effect on data .*: it is test data alone"):
        DataOptions(folder, fold=1).load()
    with pytest.raises(CorpusError, match="--queries has no effect on data"):
        DataOptions(folder, queries="verbatim").load()
    assert len(DataOptions(folder, limit=3).load("test").pages) == 3


def test_the_layout_is_told_by_the_card(tmp_path):
    assert is_benchmark_folder(write_benchmark(tmp_path / "a", shared_tables()))
    assert is_benchmark_folder(write_benchmark(tmp_path / "b", tables_by_language()))
    rows = [{"query": "q", "image": image(picture(0))}]
    assert not is_benchmark_folder(save(tmp_path / "c", "train", rows))


def test_the_folder_may_have_any_name(tmp_path):
    folder = write_benchmark(tmp_path / "a [1] *é", shared_tables())
    assert len(load_corpus(folder).queries) == 16


def test_languages_are_part_of_the_revision_and_of_what_a_reader_is_told(load, caplog):
    with caplog.at_level(logging.WARNING):
        corpus = load(shared_tables())
    assert "12 of 16 queries of data are in french, spanish, german: the embedded models" in caplog.text
    mixed = replace(corpus, queries=tuple(replace(query, language="english") for query in corpus.queries))
    unknown = replace(corpus, queries=tuple(replace(query, language="") for query in corpus.queries))
    assert len({corpus.revision, mixed.revision, unknown.revision}) == 3
