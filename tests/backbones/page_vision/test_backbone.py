"""page-vision as it is shipped: real weights, pages of the sample, nothing but pictures."""

import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import yaml
from PIL import Image

from miner_diag.backbones import Backbone, BackboneError, load_backbone
from miner_diag.backbones.__main__ import main as list_backbones
from miner_diag.backbones.late import LateBackbone
from miner_diag.backbones.options import LoadOptions
from miner_diag.backbones.page_vision.picture_reader import LinePictureReader
from miner_diag.backbones.page_vision.trained import FILE, load_line_reader, trained_facts, trained_sha256
from miner_diag.backbones.registry import load_late_backbone
from miner_diag.corpus import load_corpus
from miner_diag.corpus.hiding import plain_letters

PAGES = ["hcl-colors/2", "iranges-overview/1", "minimap2-paper/2"]
"""Of documents the line reader was not trained on; the last has two columns."""


@pytest.fixture(scope="module", autouse=True)
def nothing_read_before(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("miner_diag.backbones.ocr.cache_folder", lambda: folder)
        yield


@pytest.fixture(scope="module")
def corpus():
    return load_corpus("sample", queries="verbatim")


@pytest.fixture(scope="module")
def pages(corpus):
    by_id = {page.page_id: page for page in corpus.pages}
    return [by_id[page_id] for page_id in PAGES]


@pytest.fixture(scope="module")
def backbone(corpus):
    return load_backbone(LoadOptions("page-vision", device="cpu"), render=corpus.render, progress=False)


def test_shape_and_facts(backbone):
    assert isinstance(backbone, Backbone)
    assert (backbone.name, backbone.n_layers, backbone.width, backbone.pooling) == ("page-vision", 6, 384, "mean")
    assert backbone.shared_layers
    assert "line reader" in backbone.key("page")["reader"]


def test_the_revision_is_not_that_of_page_text(backbone):
    text = load_backbone(LoadOptions("page-text", device="cpu"))
    assert backbone.revision != text.revision
    assert backbone.key("query")["backbone"] != text.key("query")["backbone"]


def words_of(page):
    return {word.casefold() for word in page.text.split() if len(word) > 3 and word.isascii() and word.isalpha()}


def share_read(picture, page):
    words = words_of(page)
    assert len(words) > 50
    return len(words & set(LinePictureReader().read(picture).split())) / len(words)


def test_most_words_of_a_page_are_read(corpus, pages):
    """Measured: 1.00, 0.99 and 0.99 of the words of four letters and more."""
    for page in pages:
        assert share_read(corpus.render(page.page_id, LinePictureReader.longest_side), page) > 0.95, page.page_id


def test_nothing_is_read_where_the_same_pixels_stand_elsewhere(corpus, pages):
    pixels = np.asarray(corpus.render(pages[1].page_id, LinePictureReader.longest_side).convert("L"))
    rng = np.random.default_rng(0)
    across, upside_down = rng.permuted(pixels, axis=1), pixels[::-1, ::-1]
    assert share_read(Image.fromarray(across), pages[1]) == 0
    assert share_read(Image.fromarray(np.ascontiguousarray(upside_down)), pages[1]) < 0.1


@pytest.mark.parametrize("size", [(1, 1), (7, 1200), (1200, 5), (333, 801)])
def test_pictures_of_odd_sizes(size):
    assert LinePictureReader().read(Image.new("RGB", size, "white")) == ""
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    assert isinstance(LinePictureReader().read(Image.fromarray(noise)), str)


def test_reading_stops_where_the_encoder_does_and_loses_nothing(corpus, pages, backbone):
    picture = corpus.render(pages[2].page_id, LinePictureReader.longest_side)
    limit = backbone.max_tokens("page")
    some, whole = LinePictureReader(limit).read(picture), LinePictureReader().read(picture)
    assert whole.startswith(some) and len(some) < 0.5 * len(whole)
    encode = partial(backbone.tokenizer, truncation=True, max_length=limit)
    assert encode(some)["input_ids"] == encode(whole)["input_ids"]


def test_a_page_does_not_depend_on_its_company(backbone, corpus):
    eight = [page for page in corpus.pages if page.doc_id == "hcl-colors"][:8]
    encoded = backbone.prepare(eight, "page")
    together = backbone.embed(encoded)
    (alone,) = backbone.prepare(eight[3:4], "page")
    np.testing.assert_array_equal(alone.inputs["input_ids"], encoded[3].inputs["input_ids"])
    np.testing.assert_allclose(backbone.embed([alone])[0], together[3], atol=1e-5)


def test_the_text_layer_is_not_asked(backbone, pages):
    blind = [replace(page, text="something else entirely") for page in pages]
    np.testing.assert_array_equal(
        backbone.embed(backbone.prepare(pages, "page")), backbone.embed(backbone.prepare(blind, "page"))
    )


def test_a_page_lies_near_its_own_text(backbone, pages):
    text = load_backbone(LoadOptions("page-text", device="cpu", reader="text-layer"))
    seen = backbone.embed(backbone.prepare(pages, "page"))[:, -1]
    told = text.embed(text.prepare(pages, "page"))[:, -1]
    seen, told = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (seen, told))
    cosines = seen @ told.T
    assert (cosines.argmax(axis=1) == np.arange(len(pages))).all()
    assert cosines.diagonal().min() > 0.8


def test_hidden_words_are_not_seen(corpus):
    hidden = load_corpus("sample", queries="hidden")
    query = next(q for q in hidden.queries if q.doc_id == "jflex-manual" and len(plain_letters(q.text)) > 12)
    (page_id,) = hidden.qrels[query.query_id]
    seen, there = (
        plain_letters(LinePictureReader().read(c.render(page_id, LinePictureReader.longest_side)))
        for c in (hidden, corpus)
    )
    assert plain_letters(query.text) in there and plain_letters(query.text) not in seen


def test_a_blank_page_is_empty(corpus, pages):
    backbone = load_backbone(
        LoadOptions("page-vision", device="cpu"),
        render=lambda _id, side: Image.new("RGB", (side, side), "white"),
        progress=False,
    )
    (encoded,) = backbone.prepare(pages[:1], "page")
    assert encoded.empty
    assert np.isfinite(backbone.embed([encoded])).all()


def test_what_was_read_is_remembered(corpus, pages, monkeypatch):
    picture = corpus.render(pages[0].page_id, LinePictureReader.longest_side)
    first = LinePictureReader().read(picture)
    monkeypatch.setattr(LinePictureReader, "_recognise", lambda *_: pytest.fail("looked twice"))
    assert LinePictureReader().read(picture) == first


def test_what_it_read_is_told_without_drawing(backbone, pages, monkeypatch):
    backbone.prepare(pages, "page")
    read = backbone.reader.read(pages)
    monkeypatch.setattr(backbone.reader, "render", lambda *_: pytest.fail("drew a page"))
    assert backbone.texts_read(pages) == read and any(read)


def test_the_late_partner_sees_the_same_tokens(backbone, corpus, pages):
    late = load_late_backbone(LoadOptions("page-vision-late", device="cpu"), render=corpus.render, progress=False)
    assert late.long_pages == "windows"
    assert isinstance(late, LateBackbone)
    assert (late.name, late.width, late.kept_tokens) == ("page-vision-late", 384, "text")
    (encoded,) = backbone.prepare(pages[:1], "page")
    (vectors,) = late.embed_tokens(late.prepare(pages[:1], "page"))
    n_windows = len(encoded.windows) or 1
    assert len(vectors) == encoded.n_tokens - 2 * n_windows  # not [CLS], not [SEP]
    states, seen, _ = backbone.token_states([encoded])
    expected = np.concatenate([row[kept][1:-1].numpy() for row, kept in zip(states, seen, strict=True)])
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)


def test_another_reader_or_no_picture_is_an_error(pages):
    with pytest.raises(BackboneError, match="--reader ocr has no effect on page-vision"):
        load_backbone(LoadOptions("page-vision", reader="ocr"))
    with pytest.raises(BackboneError, match="nothing draws it"):
        backbone = load_backbone(LoadOptions("page-vision", device="cpu"))
        backbone.prepare(pages, "page")


def test_the_shipped_file_is_small_and_says_where_it_comes_from():
    assert FILE.stat().st_size <= 8_000_000
    facts = trained_facts()
    assert facts["trained_on"] == "debian-docs-large, train split, fold 0"
    assert {"seed", "steps", "n_lines", "words_read"} <= set(facts)
    assert facts["character_error"] < 0.02


def test_what_is_told_of_the_weights_is_of_these_weights():
    told = yaml.safe_load(FILE.with_suffix(".yaml").read_text(encoding="utf-8"))
    facts = trained_facts()
    assert told["weights"] == FILE.name and told["sha256"] == trained_sha256()
    assert told["parameters"] == sum(value.numel() for value in load_line_reader().parameters())
    assert told["held_out"]["character_error"] == pytest.approx(facts["character_error"], abs=5e-5)
    assert told["held_out"]["words_read"] == pytest.approx(facts["words_read"], abs=5e-5)
    assert told["trained_on"].startswith(facts["trained_on"]) and f"{facts['n_lines']:,} lines" in told["trained_on"]
    assert facts["bfloat16"] is ("--bfloat16" in told["trained_with"])
    for score in told["scores"]:
        value, low, high = score["ndcg_at_5"]
        assert low < value < high


def test_the_main_job_runs_on_pictures(tmp_path, capsys):
    from miner_diag.cka.__main__ import main as diagnose

    diagnose(["--model", "page-vision", "--limit", "12", "--device", "cpu", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "page-vision on sample" in printed
    told = json.loads((tmp_path / "run.json").read_text())
    assert "line reader" in told["backbone"]["reader"] and told["pages_without_text"] == 0


def test_it_is_listed(capsys):
    list_backbones([])
    assert re.search(r"^  page-vision +the layers of page-text over", capsys.readouterr().out, re.MULTILINE)
