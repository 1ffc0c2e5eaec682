"""Data sets of a hub, on folders of the same layout: rows with a picture, a question or none, mined negatives."""

from __future__ import annotations

import io
import os
import re
from dataclasses import replace

import huggingface_hub
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from miner_diag.corpus import CorpusError, load_corpus
from miner_diag.corpus.benchmark_manifest import is_benchmark_manifest
from miner_diag.corpus.hub_data import load_hub_data, load_hub_folder
from miner_diag.corpus.hub_manifest import COLUMNS, is_hub_manifest, read_hub_manifest
from miner_diag.corpus.manifest_file import manifest_folder
from miner_diag.corpus.options import DataOptions
from miner_diag.corpus.splits import deal_with_negatives, resplit
from tests.corpus.parquet_files import png, save, write_card


def row(number, query="", picture=None, negatives=(), **more):
    picture = png(number) if picture is None else picture
    image = picture if isinstance(picture, dict) else {"bytes": picture, "path": None}
    return {"id": str(number), "query": query, "image": image, "negatives": [str(n) for n in negatives], **more}


def save_languages(folder, **rows):
    """Write a data set with one subset a language, declared in its README.md as on a hub."""
    for language, of_language in rows.items():
        save(folder / language, "train", of_language)
    write_card(folder, {language: f"{language}/train-*" for language in rows})
    return folder


def many(n=40, every=2, n_negatives=0):
    """Rows in pairs: a page with a question and the page that was mined for it."""
    return [
        row(number, f"question {number}" if number % every == 0 else "", negatives=[number + 1][:n_negatives])
        for number in range(n)
    ]


def test_rows_are_pages_and_those_with_a_question_are_queries(tmp_path):
    rows = [row(0, "what"), row(1, ""), {**row(2), "query": None}, row(3, "  "), row(4, "why", negatives=[1, 2])]
    corpus = load_corpus(save(tmp_path / "data", "train", rows))
    assert [page.page_id for page in corpus.pages] == ["0", "1", "2", "3", "4"]
    assert [(query.query_id, query.text) for query in corpus.queries] == [("0", "what"), ("4", "why")]
    assert corpus.qrels == {"0": {"0": 1}, "4": {"4": 1}}
    assert corpus.negatives == {"4": ("1", "2")}
    assert (corpus.form, corpus.name, corpus.skipped) == ("verbatim", "data", ())


def test_a_page_is_drawn_from_its_row_and_hashes_its_file(tmp_path):
    corpus = load_corpus(save(tmp_path / "data", "train", [row(number, "q") for number in range(7)]))
    for number in (6, 0, 3):
        expected = np.asarray(Image.open(io.BytesIO(png(number))))
        np.testing.assert_array_equal(np.asarray(corpus.render(str(number))), expected)
    assert max(corpus.render("2", 15).size) == 15
    assert len({page.page_hash for page in corpus.pages}) == 7
    with pytest.raises(CorpusError, match="there is no page 'x'"):
        corpus.render("x")


def test_pictures_are_never_in_memory_together(tmp_path):
    """Of 60 pictures of a megabyte, twice over, a small part is allocated, by Python and by Arrow."""
    import tracemalloc

    rows = [row(number, "q", picture=png(number, (600, 600))) for number in range(60)]
    folder = save(tmp_path / "data", "train", rows, group_size=4)
    total = sum(len(one["image"]["bytes"]) for one in rows)
    del rows
    load_corpus(folder)  # the library's own modules are loaded and its copy is made
    held = pa.total_allocated_bytes()
    tracemalloc.start()
    corpus = load_corpus(folder)
    for page in corpus.pages:
        corpus.render(page.page_id)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > 50e6
    assert peak < total / 5 and pa.total_allocated_bytes() - held < total / 5


def test_subsets_are_read_one_or_all_under_ids_of_their_own(tmp_path):
    rows = {
        "en": [row(0, "what", negatives=[1]), row(1)],
        "de": [row(0, "was", png(10), negatives=[1]), row(1, "", png(11))],
    }
    folder = save_languages(tmp_path / "vdr", **rows)
    both = load_corpus(folder)
    assert [page.page_id for page in both.pages] == ["en/0", "en/1", "de/0", "de/1"]
    assert both.negatives == {"en/0": ("en/1",), "de/0": ("de/1",)}
    german = DataOptions(str(folder), subset="de").load()
    assert german.name == "vdr-de" and [query.text for query in german.queries] == ["was"]
    assert set(german.qrels) == {"de/0"}, "the id is the same as with all subsets"
    with pytest.raises(CorpusError, match="subset must be one of en, de for vdr; got 'pt'"):
        load_corpus(folder, subset="pt")


def test_rows_of_one_picture_are_one_page_that_keeps_every_question(tmp_path):
    same = png(0)
    rows = [
        row(0, "first", negatives=[2, 1]),
        row(1, "second", same, negatives=[0, 2]),
        row(2, "third", negatives=[1, 1]),
    ]
    corpus = load_corpus(save(tmp_path / "data", "train", rows))
    assert [page.page_id for page in corpus.pages] == ["0", "2"]
    assert corpus.qrels == {"0": {"0": 1}, "1": {"0": 1}, "2": {"2": 1}}
    # the copy is the question's own page, so it is no negative of it; elsewhere the page that stays stands for it
    assert corpus.negatives == {"0": ("2",), "1": ("2",), "2": ("0",)}
    assert [(item.name, "earlier row" in item.reason) for item in corpus.skipped] == [("1 rows", True)]


def test_rows_without_a_usable_picture_or_id_are_left_out_by_name(tmp_path):
    rows = [
        row(0, "good", negatives=[1, 2, 9, 4]),
        row(1, "broken", b"no picture"),
        row(2, "path alone", {"bytes": None, "path": "/etc/passwd"}),
        row(0, "again", png(3)),
        row(4),
    ]
    corpus = load_corpus(save(tmp_path / "data", "train", rows))
    assert [page.page_id for page in corpus.pages] == ["0", "4"] and corpus.negatives == {"0": ("4",)}
    reasons = {item.name: item.reason for item in corpus.skipped}
    assert reasons["0"] == "its id stands in an earlier row"
    assert "not a readable picture" in reasons["1"] and reasons["2"] == "it holds no picture"
    assert reasons["3 negatives"] == "name rows that are not there or have no usable picture"


def test_rows_without_ids_are_numbered_and_other_columns_do_not_matter(tmp_path):
    rows = [{"query": f"q{n}", "image": row(n)["image"], "source": "web", "answer": "x"} for n in range(3)]
    corpus = load_corpus(save(tmp_path / "data", "train", rows))
    assert [page.page_id for page in corpus.pages] == ["0", "1", "2"] and corpus.negatives == {}


def splits_of(corpus):
    return {
        name: {p.page_id for p in corpus.pages if corpus.splits[p.doc_id] == name}
        for name in set(corpus.splits.values())
    }


@pytest.mark.parametrize("fold", [0, 3])
def test_pages_go_to_splits_with_the_queries_that_they_were_mined_for(tmp_path, fold):
    corpus = load_corpus(save(tmp_path / "data", "train", many(40, n_negatives=1)), fold=fold)
    assert {"train", "validation", "test"} == set(splits_of(corpus))
    for name in ("train", "validation", "test"):
        part = corpus.split(name)
        assert {q: corpus.negatives[q] for q in part.qrels} == part.negatives, "none is lost between two splits"
    assert resplit(corpus, 7).splits == load_corpus(tmp_path / "data", fold=7).splits


def test_negatives_that_join_everything_do_not_decide_the_splits_and_none_crosses(tmp_path, caplog):
    """As in a large data set, where the nearest pages of all queries form one group."""
    rows = [row(n, f"question {n}", negatives=[(n + 1) % 30, (n + 2) % 30]) for n in range(30)]
    corpus = load_corpus(save(tmp_path / "data", "train", rows))
    assert "mined negatives join the pages of 30 of 30 queries into one group" in caplog.text
    kept = 0
    for name in ("train", "validation", "test"):
        part = corpus.split(name)
        pages = {page.page_id for page in part.pages}
        assert all(pages.issuperset(mined) for mined in part.negatives.values())
        kept += sum(map(len, part.negatives.values()))
    assert 0 < kept < 60
    hashes = [{page.page_hash for page in corpus.split(name).pages} for name in ("train", "validation", "test")]
    assert not (hashes[0] & hashes[1] or hashes[0] & hashes[2] or hashes[1] & hashes[2])


def test_without_negatives_splits_are_those_of_tables():
    documents = {name: name for name in "abcdef"}
    qrels = {name: {name: 1} for name in "ace"}
    from miner_diag.corpus.splits import deal_splits

    dealt = deal_splits(list(documents), [[name] for name in "ace"], 0)
    assert deal_with_negatives(list(documents), documents, qrels, {}, 0) == dealt


def test_negatives_change_the_revision_and_shrink_with_the_pages(tmp_path):
    corpus = load_corpus(save(tmp_path / "data", "train", many(40, n_negatives=1)))
    assert replace(corpus, negatives={}).revision != corpus.revision
    small = corpus.sample_pages(25)
    pages = {page.page_id for page in small.pages}
    assert small.negatives and all(pages.issuperset(mined) for mined in small.negatives.values())
    for wrong in ({"0": ("0",)}, {"0": ("nowhere",)}, {"nobody": ("1",)}):
        with pytest.raises(CorpusError, match="negatives of data must name queries and pages that are there"):
            replace(corpus, negatives=wrong)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"queries": "hidden"}, "--queries has no effect on data .*: it brings its own queries"),
        ({"ignore_self": True}, "--ignore-self has no effect on data"),
        (
            {"data_revision": "0" * 40},
            "--data-revision has no effect on data .*: only a data set of a hub has revisions",
        ),
    ],
)
def test_options_without_effect_are_refused(tmp_path, given, message):
    folder = save(tmp_path / "data", "train", [row(0, "q")])
    with pytest.raises(CorpusError, match=message):
        load_corpus(folder, **given)


def test_subsets_are_of_hub_data_alone():
    with pytest.raises(CorpusError, match="--subset has no effect on data 'sample': only a data set of a hub, or a fo"):
        load_corpus("sample", subset="en")


def test_a_folder_that_is_none_is_a_sentence(tmp_path):
    rows = [{"question": "q", "image": row(0)["image"]}]
    with pytest.raises(CorpusError, match="data has no column query; it has question, image"):
        load_corpus(save(tmp_path / "data", "train", rows))
    for name, value, message in (
        ("query", 7, "column query must be string or large_string; got Value"),
        ("negatives", "1, 2", "column negatives must hold a list of ids; got Value"),
        ("id", 0.5, "column id must be string or large_string or int32 or int64; got Value"),
    ):
        with pytest.raises(CorpusError, match=message):
            load_corpus(save(tmp_path / f"odd-{name}", "train", [{**row(0, "q"), name: value}]))
    with pytest.raises(CorpusError, match="empty has no row with a question and a usable picture"):
        load_corpus(save(tmp_path / "empty", "train", [row(0)]))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "train.parquet").write_bytes(b"PAR1 is not enough")
    with pytest.raises(CorpusError, match="odd cannot be read: "):
        load_corpus(tmp_path / "odd")


def test_no_code_and_no_file_of_elsewhere_is_read(tmp_path):
    folder = save(tmp_path / "data", "train", [row(0, "q")])
    (folder / "data.py").write_text("raise SystemExit('code ran')")
    with pytest.raises(CorpusError, match="Dataset scripts are no longer supported"):
        load_corpus(folder)
    save(tmp_path / "private", "train", [row(1, "secret")])
    inside = save(tmp_path / "inside", "train", [row(0, "q")])
    path = f"{tmp_path}/private/train-00000-of-00001.parquet"
    write_card(inside, {"default": path})
    with pytest.raises(CorpusError, match="inside names the file .*private.*, which is not its own"):
        load_corpus(inside)


def test_other_files_than_parquet_are_refused(tmp_path):
    (tmp_path / "table.csv").write_text("query,image\nq,x\n")
    with pytest.raises(CorpusError, match="is no data set of parquet files but of csv, which is not read"):
        load_hub_folder(tmp_path)


HUB = [
    path
    for path in sorted(manifest_folder().glob("*.yaml"))
    if is_hub_manifest(path) and not is_benchmark_manifest(path)
]


@pytest.mark.parametrize("path", HUB, ids=lambda path: path.stem)
def test_a_manifest_of_a_hub_is_whole_and_pinned_or_says_that_it_is_not(path):
    manifest = read_hub_manifest(path)
    assert manifest.name == path.stem and set(manifest.columns) <= set(COLUMNS)
    assert 0 < manifest.counts["queries"] <= manifest.counts["rows"]
    if manifest.revision is None:
        assert "--data-revision" in manifest.notes
        with pytest.raises(CorpusError, match="is pinned to no commit: .* give all 40 digits with --data-revision"):
            load_corpus(manifest.name)
    with pytest.raises(
        CorpusError, match="data_revision must be a full commit hash, 40 hexadecimal digits; got 'main'"
    ):
        load_corpus(manifest.name, data_revision="main")


def test_the_training_sets_are_there():
    assert {path.stem for path in HUB} == {"vdr-multilingual-train", "vdr-multilingual-test", "colpali-train-set"}


def test_a_hub_that_does_not_answer_is_a_sentence():
    if not os.environ.get("HF_HUB_OFFLINE"):
        pytest.skip("a hub may answer here")
    with pytest.raises(
        CorpusError,
        match="llamaindex/vdr-multilingual-test, commit .*cannot be fetched: .*bring that folder here, and give its pa",
    ):
        load_corpus("vdr-multilingual-test", subset="en")


@pytest.mark.skipif(not os.environ.get("MINER_DIAG_HUB"), reason="needs a hub: MINER_DIAG_HUB=1 HF_HUB_OFFLINE=0")
def test_the_multilingual_test_set_is_what_its_manifest_says():
    corpus = load_corpus("vdr-multilingual-test", subset="en")
    assert len(corpus.queries) == 300 and len(corpus.pages) >= 2990


@pytest.fixture
def hub(monkeypatch):
    """A hub that is played by a folder; it notes what it is asked for."""
    asked = []

    def answer_with(folder):
        def snapshot_download(hub_id, *, repo_type, revision, allow_patterns, tqdm_class):
            asked.append((hub_id, repo_type, revision, tuple(allow_patterns)))
            return str(folder)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return asked

    return answer_with


MULTILINGUAL = manifest_folder() / "vdr-multilingual-test.yaml"


def test_the_commit_and_the_files_of_a_subset_are_asked_for_and_no_others(tmp_path, hub):
    asked = hub(save_languages(tmp_path / "hub", en=[row(0, "what")], de=[row(0, "was", png(1))]))
    manifest = replace(read_hub_manifest(MULTILINGUAL), subsets=("en", "de"))
    corpus = load_hub_data(manifest)
    pinned = ("llamaindex/vdr-multilingual-test", "dataset", manifest.revision)
    assert asked == [(*pinned, (name,)) for name in ("README.md", "en/train-*", "de/train-*")]
    assert corpus.name == "vdr-multilingual-test" and len(corpus.queries) == 2
    asked.clear()
    load_hub_data(manifest, revision="1" * 40, subset="de")
    assert asked == [(*pinned[:2], "1" * 40, (name,)) for name in ("README.md", "de/train-*")]


def test_columns_that_the_manifest_names_must_be_there(tmp_path, hub):
    hub(save(tmp_path / "hub", "train", [{"query": "what", "image": row(0)["image"]}]))
    with pytest.raises(CorpusError, match="must have the columns id, query, image, as its manifest says; it has query"):
        load_hub_data(replace(read_hub_manifest(MULTILINGUAL), subsets=("default",)))


def test_counts_that_differ_are_said(tmp_path, hub, caplog):
    hub(save(tmp_path / "hub", "train", [row(0, "what"), row(1)]))
    load_hub_data(replace(read_hub_manifest(MULTILINGUAL), subsets=("default",)))
    assert "has 2 rows and 1 queries, its manifest says 15000 and 1500" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("revision: 9e26", "revision: main-9e26", "revision must be a full commit hash or null"),
        ("source: hub", "source: debian", "source must be hub"),
        ("hub_id: llamaindex/", "hub_id: ", "hub_id must match"),
        ("split: train", "split: ../train", "split must match"),
        ("licence: Apache-2.0", "colour: red", "HubManifest has unknown fields ['colour']"),
        ("[en, es, it, de, fr]", "[en, 7]", "subsets must be a text; got 7"),
        ("[en, es, it, de, fr]", "en", "subsets must be a list of texts; got 'en'"),
        ("[id, query, image]", "[id, query]", "columns must be query, image and any of id, negatives"),
        ("[id, query, image]", "[query, image, script]", "columns must be query, image and any of id, negatives"),
        ("  rows: 15000\n", "", "counts must hold rows and queries; got ['queries']"),
        ("rows: 15000", "rows: many", "counts of rows must be a whole number"),
    ],
)
def test_a_manifest_that_is_wrong_is_named(tmp_path, old, new, message):
    text = (manifest_folder() / "vdr-multilingual-test.yaml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "changed.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(CorpusError, match=re.escape(message)):
        read_hub_manifest(path)


def test_a_manifest_file_of_ones_own_is_read(tmp_path):
    text = (manifest_folder() / "vdr-multilingual-test.yaml").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("name: vdr-multilingual-test", "name: mine"), encoding="utf-8")
    with pytest.raises(CorpusError, match="subset must be one of en, es, it, de, fr for mine; got 'pt'"):
        load_corpus(path, subset="pt")
