"""Long texts in windows: every token passes once, and an item has one vector a layer."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from miner_diag.backbones import BackboneError, windows
from miner_diag.backbones.checkpoint import Checkpoint
from miner_diag.backbones.late import LastLayerTokens, late_text_encoder
from miner_diag.backbones.options import LoadOptions
from miner_diag.backbones.registry import load_backbone
from miner_diag.corpus.core import Page, Query
from tests.backbones.conftest import save_tiny, tiny_bert_config, word_tokenizer, write_pipeline
from tests.backbones.helpers import text_encoder

LIMIT = 24
"""Tokens of an input of the tiny checkpoint; two of them are special."""

BODY = LIMIT - 2


def words(n, start=0):
    return " ".join(f"w{(start + number) % 40}" for number in range(n))


def pages_of(*texts):
    return [Page(f"d/{number}", "d", number, text, f"hash {number}") for number, text in enumerate(texts, start=1)]


@pytest.fixture(scope="module")
def cut(tiny_bert):
    return text_encoder(tiny_bert, pooling="mean")


@pytest.fixture(scope="module")
def whole(tiny_bert):
    return text_encoder(tiny_bert, pooling="mean", long_pages="windows")


def test_a_text_within_the_limit_is_the_same_input_and_the_same_vector(cut, whole):
    pages = pages_of(words(3), words(BODY), "")
    for one, other in zip(cut.prepare(pages, "page"), whole.prepare(pages, "page"), strict=True):
        assert other.windows == ()
        np.testing.assert_array_equal(one.inputs["input_ids"], other.inputs["input_ids"])
        np.testing.assert_array_equal(cut.embed([one]), whole.embed([other]))


def test_the_first_window_is_what_is_left_of_a_text_that_is_cut(cut, whole):
    pages = pages_of(words(100))
    left, item = cut.prepare(pages, "page")[0], whole.prepare(pages, "page")[0]
    assert (left.truncated, item.truncated) == (True, False)
    np.testing.assert_array_equal(item.inputs["input_ids"][:LIMIT], left.inputs["input_ids"])
    assert item.windows == (LIMIT, LIMIT, LIMIT, LIMIT, 100 - 4 * BODY + 2)
    assert item.n_tokens == sum(item.windows) == len(item.inputs["input_ids"])


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 200), limit=st.integers(5, 24), overlap=st.integers(0, 8), prompt=st.integers(0, 2))
def test_every_token_stands_in_a_window_and_twice_only_in_an_overlap(n, limit, overlap, prompt):
    tokenizer = word_tokenizer(special=True, max_length=24, padding_side="right")
    said = words(prompt, start=30) + " " if prompt else ""
    encoding = tokenizer([said + words(n)], truncation=True, max_length=limit).encodings[0]
    if not encoding.overflowing:
        return
    room = limit - 2 - prompt
    if overlap >= room:
        with pytest.raises(BackboneError, match=f"window_overlap must be below {room}, .* got {overlap}"):
            windows.text_windows(encoding, limit, overlap, len(said))
        return
    parts = [ids for ids, _ in windows.text_windows(encoding, limit, overlap, len(said))]
    everything = tokenizer([words(n)]).input_ids[0][1:-1]
    spoken = tokenizer([said]).input_ids[0][1:-1]
    rebuilt = []
    for number, ids in enumerate(parts):
        assert len(ids) <= limit and ids[:1] == [2] and ids[-1:] == [3]
        assert ids[1 : 1 + prompt] == spoken
        text = ids[1 + prompt : -1]
        assert len(text) > (overlap if number else 0)  # something new stands in each
        assert text[: overlap if number else 0] == rebuilt[len(rebuilt) - overlap :][: overlap if number else 0]
        rebuilt += text[overlap if number else 0 :]
    assert rebuilt == everything


def test_mean_pooling_is_the_mean_over_all_tokens_of_all_windows_in_every_layer(whole):
    """By hand, from the model's own hidden states of each window."""
    item = whole.prepare(pages_of(words(50)), "page")[0]
    assert len(item.windows) == 3
    states = []
    for ids in np.split(item.inputs["input_ids"], np.cumsum(item.windows)[:-1]):
        with torch.inference_mode():
            out = whole.model(input_ids=torch.tensor(ids[None], dtype=torch.int64), output_hidden_states=True)
        states.append(torch.stack(out.hidden_states, dim=2)[0].numpy())  # [T, L, D]
    by_hand = np.concatenate(states).mean(axis=0)
    np.testing.assert_allclose(whole.embed([item])[0], by_hand, rtol=0, atol=1e-6)
    np.testing.assert_allclose(whole.plain_forward([item])[0], by_hand[-1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "last", "mean"])
@pytest.mark.parametrize("how", ["tokens", "windows"])
def test_windows_weigh_their_tokens_or_one_each(tiny_bert, pooling, how):
    backbone = text_encoder(tiny_bert, pooling=pooling, long_pages="windows", window_pooling=how)
    item = backbone.prepare(pages_of(words(BODY + 3)), "page")[0]
    first, second = (backbone.embed([one])[0] for one in windows.windows_of([item]))
    weights = {"tokens": (LIMIT / (LIMIT + 5), 5 / (LIMIT + 5)), "windows": (0.5, 0.5)}[how]
    expected = weights[0] * first + weights[1] * second
    np.testing.assert_allclose(backbone.embed([item])[0], expected, rtol=0, atol=1e-6)


def test_long_and_short_items_of_a_batch_do_not_touch_each_other(whole, monkeypatch):
    items = whole.prepare(pages_of(words(70), words(2), words(BODY + 1), "", words(300, start=7)), "page")
    alone = np.concatenate([whole.embed([item]) for item in items])
    np.testing.assert_allclose(whole.embed(items), alone, rtol=0, atol=1e-6)
    monkeypatch.setattr(windows, "WINDOWS_AT_ONCE", 2)  # an item of many windows passes in several forwards
    np.testing.assert_allclose(whole.embed(items[-1:])[0], alone[-1], rtol=0, atol=1e-6)


def test_what_stands_behind_the_limit_changes_the_vector_only_with_windows(cut, whole):
    pages = pages_of(words(60), words(BODY) + " " + words(38, start=5))
    one, other = cut.embed(cut.prepare(pages, "page"))
    np.testing.assert_array_equal(one, other)
    one, other = whole.embed(whole.prepare(pages, "page"))
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("pooled", [True, False])
def test_the_prompt_stands_before_every_window(tmp_path, pooled):
    folder = write_pipeline(
        save_tiny(tmp_path / "tiny", tiny_bert_config()),
        {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "include_prompt": pooled},
        prompts={"prompts": {"query": "find : ", "document": "read it : "}},
    )
    backbone = text_encoder(folder, long_pages="windows")
    item = backbone.prepare(pages_of(words(60)), "page")[0]
    parts = windows.windows_of([item])
    spoken = backbone.tokenizer(["read it :"]).input_ids[0][1:-1]
    assert len(parts) == 4
    assert all(part.inputs["input_ids"][1:4].tolist() == spoken for part in parts)
    # with the prompt left out of the pooling, only 20 words and the closing token of each window are pooled
    left_out = 0 if pooled else 4
    assert all(part.prompt_tokens == left_out for part in parts)
    mask = backbone.collate([item])[1]
    assert mask.sum(dim=1).tolist() == [part.n_tokens - left_out for part in parts]


def test_long_queries_are_read_in_windows_too(whole):
    item = whole.prepare([Query("q", words(50), "given", "d")], "query")[0]
    assert len(item.windows) == 3 and not item.truncated


def test_how_much_of_a_text_was_read_is_counted_in_characters(cut, whole):
    text = words(BODY) + " " + words(10)
    kept = len(words(BODY))
    assert [(i.characters_read, i.characters) for i in cut.prepare(pages_of(text, "w1", ""), "page")] == [
        (kept, len(text)),
        (2, 2),
        (0, 0),
    ]
    item = whole.prepare(pages_of(text), "page")[0]
    assert (item.characters_read, item.characters) == (len(text), len(text))


def test_an_overlap_without_room_is_told_before_anything_runs(tiny_bert):
    with pytest.raises(BackboneError, match="window_overlap must be below 22, .* got 22. Take less overlap or longer"):
        text_encoder(tiny_bert, pooling="mean", long_pages="windows", window_overlap=22)
    with pytest.raises(BackboneError, match="window_overlap must be at least 0 tokens; got -1"):
        LoadOptions("page-text", window_overlap=-1)


def test_late_interaction_keeps_the_tokens_of_all_windows(tiny_bert):
    checkpoint = Checkpoint(tiny_bert, "late", LoadOptions(str(tiny_bert), long_pages="windows"), progress=False)
    late = late_text_encoder(checkpoint)
    assert isinstance(late, LastLayerTokens)
    items = late.prepare(pages_of(words(50), words(3)), "page")
    tokens = late.embed_tokens(items)
    assert [len(one) for one in tokens] == [50, 3]
    alone = [late.embed_tokens([part])[0] for part in windows.windows_of(items[:1])]
    np.testing.assert_allclose(tokens[0], np.concatenate(alone), rtol=0, atol=1e-6)
    assert "window_pooling" not in late.key()


@pytest.mark.parametrize("long_pages", ["windows", "truncate"])
def test_a_picture_is_read_to_its_end_only_with_windows(long_pages, monkeypatch):
    """page-vision stops reading where the encoder stops; with windows nothing stops it."""
    asked = []

    class Reader:
        longest_side = 32

        def __init__(self, max_words):
            asked.append(max_words)

        def describe(self):
            return "a test"

        def read_page(self, _page, _render, *, draw_again):
            return words(1000 if asked[-1] is None else asked[-1])

    monkeypatch.setattr("miner_diag.backbones.page_vision.backbone.LinePictureReader", Reader)
    backbone = load_backbone(
        LoadOptions("page-vision", long_pages=long_pages), render=lambda *_: Image.new("RGB", (32, 32)), progress=False
    )
    item = backbone.prepare(pages_of(""), "page")[0]
    assert item.truncated is (long_pages == "truncate")
    assert set(asked) == ({None} if long_pages == "windows" else {256})
    # how much stands behind the place where the reading stopped is not known, so it is not counted
    assert (item.characters > 0) is (long_pages == "windows")


def test_embedded_retrievers_read_all_and_checkpoints_keep_their_recipe(tiny_bert):
    assert load_backbone("page-text").long_pages == "windows"
    assert text_encoder(tiny_bert, pooling="mean").long_pages == "truncate"


def test_the_key_tells_windows_and_stays_what_it_was_without(tiny_bert, cut, whole):
    assert not {"long_pages", "window_pooling"} & set(cut.key())
    key = {name: value for name, value in whole.key().items() if cut.key().get(name) != value}
    assert key == {"long_pages": "windows, 0 tokens of overlap", "window_pooling": "tokens"}
    overlapping = text_encoder(tiny_bert, pooling="mean", long_pages="windows", window_overlap=4)
    assert json.dumps(overlapping.key()) != json.dumps(whole.key())


def test_a_window_of_an_item_is_an_item_of_its_own(whole):
    item = whole.prepare(pages_of(words(50)), "page")[0]
    for part in windows.windows_of([item]):
        assert part.windows == ()
        assert part.n_tokens == len(part.inputs["input_ids"])
