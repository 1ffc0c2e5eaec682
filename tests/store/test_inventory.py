"""What is kept is listed whole, and only what is named, a store, and inside the folder is deleted."""

import json
import re
from dataclasses import replace

import pytest

from miner_diag.embeddings import EmbeddedCorpus, StoreError, StoreOptions, TokenCorpus
from miner_diag.store import delete_stores, list_stores, store_table
from tests.damage import seal_again
from tests.embeddings.helpers import (
    PretendBackbone,
    PretendLate,
    PretendReadout,
    damage,
    make_corpus,
    shard_bytes,
    three_splits,
)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def filled(root):
    """Pooled layers and token vectors of the two forms of a corpus."""
    options = StoreOptions(root, token_budget=60)
    hidden, verbatim = three_splits(), three_splits(form="verbatim")
    backbone = PretendBackbone()
    EmbeddedCorpus(hidden, backbone, options, progress=False).take(hidden.split("validation"))
    EmbeddedCorpus(verbatim, backbone, options, progress=False).take(verbatim.split("validation"))
    limited = hidden.sample_pages(100)
    TokenCorpus(limited, PretendLate(), options, progress=False).take(limited)
    return root


def test_what_is_kept_is_listed(filled):
    stores = {(store.model, store.side): store for store in list_stores(filled)}
    assert set(stores) == {(model, side) for model in ("pretend", "pretend-late") for side in ("query", "page")}
    part = three_splits().split("validation")
    altered = sum(page.words_hidden for page in part.pages)
    pages = stores["pretend", "page"]
    assert pages.items == len(part.pages) + altered, "unaltered pages are shared"
    assert stores["pretend", "query"].items == len(part.queries)
    assert (pages.layers, pages.width, pages.shape, pages.kind) == (4, 6, "4 x 6", "pooled layers")
    assert pages.data == ("tiny (hidden, all)", "tiny (verbatim, all)")
    assert pages.revision == "sha256:0" and re.fullmatch(r"\d{4}-\d\d-\d\dT.*", pages.last_used)
    assert pages.size == sum(path.stat().st_size for path in (filled / pages.name).rglob("*") if path.is_file())
    tokens = stores["pretend-late", "page"]
    assert (tokens.items, tokens.layers, tokens.shape, tokens.kind) == (100, None, "tokens x 6", "token vectors")
    assert tokens.data == ("tiny (hidden, all, 100 pages)",)
    assert not any(store.problems for store in stores.values())
    table = store_table(list(stores.values()))
    assert list(table["items"]) == [store.items for store in stores.values()] and len(table) == 4


def test_two_poolings_of_the_inner_layers_are_listed(root):
    corpus = three_splits()
    for layer_pooling in ("readout", "mean"):
        EmbeddedCorpus(corpus, PretendReadout(layer_pooling), StoreOptions(root), progress=False).take(corpus)
    stores = list_stores(root)
    assert [(store.layers, store.kept, store.shape) for store in stores] == [(4, 7, "4 + 3 x 6")] * 2


def test_the_last_use_is_the_latest(filled):
    page = next(store for store in list_stores(filled) if (store.model, store.side) == ("pretend", "page"))
    notes = sorted((filled / page.name / "uses").glob("*.json"))
    for path, moment in zip(notes, ("2031-01-02T03:04:05+00:00", "2030-01-02T03:04:05+00:00"), strict=True):
        seal_again(path, {**json.loads(path.read_text()), "last_used": moment})
    (again,) = [store for store in list_stores(filled) if store.name == page.name]
    assert again.last_used.startswith("2031")


def test_nothing_kept_is_no_error(root):
    assert list_stores(root) == []
    root.mkdir()
    (root / "notes.txt").write_text("mine")
    (root / "folder").mkdir()
    assert list_stores(root) == []


def test_what_cannot_be_used_is_named_and_not_an_error(filled):
    stores = list_stores(filled)
    shard = next(iter(shard_bytes(filled)))
    damage(filled / shard, 9)
    old = filled / "old"
    old.mkdir()
    (old / "key.json").write_text(json.dumps({"format": 1, "key": {"backbone": "x", "side": "page"}, "ids": ["a"]}))
    broken = filled / "broken"
    broken.mkdir()
    (broken / "key.json").write_text("{")
    note = next((filled / stores[-1].name / "uses").glob("*.json"))
    note.write_text("{}")
    problems = {store.name: store.problems for store in list_stores(filled) if store.problems}
    assert set(problems) == {"old", "broken", shard.split("/")[0], stores[-1].name}
    assert problems["old"][0].startswith("it has store format 1, this version reads 4, so it is not used; --delete old")
    assert "key.json is damaged" in problems["broken"][0] and "lacks 'last_used'" in problems[stores[-1].name][0]
    assert "safetensors is damaged" in problems[shard.split("/")[0]][0]
    assert [store.name for store in delete_stores(filled, ["old", "broken"])] == ["old", "broken"]
    assert not old.exists() and not broken.exists()


def test_only_what_is_named_is_deleted_and_it_is_embedded_again_when_needed(filled):
    before = {store.name: store for store in list_stores(filled)}
    pages = next(name for name in before if name.startswith("pretend-page-layers"))
    kept = {name: content for name, content in shard_bytes(filled).items() if not name.startswith(pages)}
    assert delete_stores(filled, [pages, pages]) == [before[pages]]
    assert set(store.name for store in list_stores(filled)) == set(before) - {pages}
    assert shard_bytes(filled) == kept
    backbone, corpus = PretendBackbone(), three_splits()
    EmbeddedCorpus(corpus, backbone, StoreOptions(filled, token_budget=60), progress=False).take(
        corpus.split("validation")
    )
    assert set(backbone.embedded()) == {page.page_id for page in corpus.split("validation").pages}


def test_nothing_outside_and_nothing_that_is_no_store_is_deleted(filled, tmp_path):
    name = list_stores(filled)[0].name
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "key.json").write_text(json.dumps({"format": 2, "key": {}}))
    (filled / "link").symlink_to(outside, target_is_directory=True)
    (filled / "folder").mkdir()
    (filled / "file").write_text("")
    before = shard_bytes(filled)
    for wrong, why in (
        ("../outside", "name must be that of a folder in"),
        (str(outside), "name must be that of a folder in"),
        (f"{name}/shards", "name must be that of a folder in"),
        (".", "name must be that of a folder in"),
        ("..", "name must be that of a folder in"),
        ("", "name must be that of a folder in"),
        ("link", "holds no store 'link'; it holds pretend-"),
        ("nothing", "holds no store 'nothing'; it holds pretend-"),
        ("file", "holds no store 'file'"),
        ("folder", "is not a store .it has no key.json., so it is not deleted"),
    ):
        with pytest.raises(StoreError, match=why):
            delete_stores(filled, [name, wrong])
    assert shard_bytes(filled) == before and (outside / "key.json").exists(), "all names are checked before"
    assert "link" not in {store.name for store in list_stores(filled)}


def test_a_deletion_that_was_killed_is_finished(filled):
    name = list_stores(filled)[0].name
    (filled / ".deleted-abc").mkdir()
    (filled / name).rename(filled / ".deleted-abc" / name)
    assert name not in {store.name for store in list_stores(filled)}
    assert not (filled / ".deleted-abc").exists()


def test_a_store_itself_and_a_file_are_no_folder_of_stores(filled, tmp_path):
    one = filled / list_stores(filled)[0].name
    with pytest.raises(StoreError, match=rf"is one store, .* pass {filled} with --store"):
        list_stores(one)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is no folder; --store names the folder in which"):
        delete_stores(tmp_path / "file", ["x"])


def test_another_corpus_in_the_same_store_is_named_too(filled):
    corpus, options = make_corpus({"d0": 4}, name="other"), StoreOptions(filled, token_budget=60)
    EmbeddedCorpus(corpus, PretendBackbone(), replace(options), progress=False).take(corpus)
    pages = next(store for store in list_stores(filled) if (store.model, store.side) == ("pretend", "page"))
    assert pages.data == ("other (hidden, all)", "tiny (hidden, all)", "tiny (verbatim, all)")
