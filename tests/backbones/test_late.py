"""The late-interaction partner of a text encoder: its own forward, token by token."""

import numpy as np
import pytest
import torch

from miner_diag.backbones.base import BackboneError, UnknownBackboneError
from miner_diag.backbones.late import LateBackbone
from miner_diag.backbones.options import LoadOptions
from miner_diag.backbones.registry import load_late_backbone
from miner_diag.corpus.core import Query
from tests.backbones.helpers import late_partner, text_encoder

SPECIAL = (2, 3)  # [CLS], [SEP] of the tiny tokenizer


@pytest.fixture(scope="module")
def encoder(tiny_bert):
    return text_encoder(tiny_bert, pooling="mean", device="cpu")


def plain(encoder, item):
    """Token states of one item alone, normalised by hand, and its token ids."""
    ids = torch.from_numpy(item.inputs["input_ids"].astype(np.int64))[None]
    with torch.inference_mode():
        states = encoder.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].numpy()
    return states / np.linalg.norm(states, axis=1, keepdims=True), ids[0].numpy()


@pytest.mark.parametrize("keep", ["all", "text"])
@pytest.mark.parametrize("side", ["query", "page"])
def test_token_vectors_are_the_plain_forwards(encoder, queries, pages, side, keep):
    late = late_partner(encoder, kept_tokens=keep)
    assert isinstance(late, LateBackbone)
    items = late.prepare(queries if side == "query" else pages, side)
    for item, tokens in zip(items, late.embed_tokens(items), strict=True):
        states, ids = plain(encoder, item)
        own = ~np.isin(ids, SPECIAL)
        expected = states[own] if keep == "text" and own.any() else states
        assert tokens.dtype == np.float32 and tokens.shape == expected.shape
        np.testing.assert_allclose(tokens, expected, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(tokens, axis=1), 1, atol=1e-6)


def test_unknown_words_are_words_and_an_empty_text_keeps_its_special_tokens(encoder):
    late = late_partner(encoder, kept_tokens="text")
    some = [Query("a", "nosuchword w3", "given", "d"), Query("b", "", "given", "d"), Query("c", "  ", "given", "d")]
    assert [len(tokens) for tokens in late.embed_tokens(late.prepare(some, "query"))] == [2, 2, 2]


def test_a_batch_of_one_is_a_batch_of_several(encoder, pages):
    late = late_partner(encoder, kept_tokens="all")
    items = late.prepare(pages, "page")
    for item, tokens in zip(items, late.embed_tokens(items), strict=True):
        np.testing.assert_allclose(late.embed_tokens([item])[0], tokens, atol=1e-5)


def test_the_mean_of_all_states_is_the_encoders_own_embedding(encoder, pages):
    items = encoder.prepare(pages, "page")
    states, seen, _ = encoder.token_states(items)
    means = [state[mask].mean(dim=0).numpy() for state, mask in zip(states, seen, strict=True)]
    np.testing.assert_allclose(np.stack(means), encoder.embed(items)[:, -1], atol=1e-5)


def test_a_prompt_is_no_text(tiny_decoder):
    encoder = text_encoder(tiny_decoder, device="cpu")  # puts "find : " before a query, and pools it too
    late = {keep: late_partner(encoder, kept_tokens=keep) for keep in ("all", "text")}
    item = late["all"].prepare([Query("a", "w1 w2 w3", "given", "d")], "query")
    everything, own = (late[keep].embed_tokens(item)[0] for keep in ("all", "text"))
    assert (len(everything), len(own)) == (5, 3)
    np.testing.assert_array_equal(everything[2:], own)


def test_key_says_what_changes_a_number_and_nothing_of_pooling(encoder):
    keys = {keep: late_partner(encoder, kept_tokens=keep).key() for keep in ("all", "text")}
    assert {name for name in keys["all"] if keys["all"][name] != keys["text"][name]} == {"kept_tokens"}
    assert not {"pooling", "prompt_pooled"} & set(keys["all"])
    assert keys["all"]["backbone"] == "tiny-bert-late"
    assert set(encoder.key()) - set(keys["all"]) == {"pooling", "prompt_pooled"}
    assert "query_prompt" not in late_partner(encoder).key("page")


def test_bad_arguments_are_named(encoder):
    with pytest.raises(BackboneError, match="kept_tokens must be one of all, text; got 'some'"):
        late_partner(encoder, kept_tokens="some")
    with pytest.raises(BackboneError, match="at least one item"):
        late_partner(encoder).embed_tokens([])


def test_names_are_found_and_others_refused(tiny_bert, pages):
    # its files state no pooling; none is needed
    late = load_late_backbone(LoadOptions(str(tiny_bert), device="cpu", kept_tokens="all"))
    assert late.name == "tiny-bert-late" and late.width == 32
    assert "layer 3, L2-normalised; an item has all tokens" in late.last_layer
    with pytest.raises(UnknownBackboneError, match="vidore/colpali is not a local folder, not in the hub's cache"):
        load_late_backbone("vidore/colpali")
    with pytest.raises(UnknownBackboneError, match="unknown model 'page-txt'.* for late interaction: page-text-late"):
        load_late_backbone("page-txt")


@pytest.mark.parametrize("model", ["page-text", "page-vision", "Qwen/Qwen3-VL-Embedding-2B"])
def test_single_vector_models_are_named_as_such(model):
    with pytest.raises(UnknownBackboneError, match=f"'{model}' gives one vector a page; expected a late-interaction"):
        load_late_backbone(model)


def test_a_folder_with_one_vector_a_page_is_refused_by_its_files(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(UnknownBackboneError, match="gives one vector a page; .*page-text-late"):
        load_late_backbone(str(tmp_path))


def test_page_text_late_reads_what_page_text_reads():
    late = load_late_backbone(LoadOptions("page-text-late", reader="text-layer", device="cpu"))
    assert (late.name, late.width, late.kept_tokens) == ("page-text-late", 384, "text")
    some = [Query("a", "Average reaction time", "given", "d"), Query("b", "", "given", "d")]
    items = late.prepare(some, "query")
    assert [item.n_tokens for item in items] == [item.n_tokens for item in late.encoder.prepare(some, "query")]
    assert [tokens.shape for tokens in late.embed_tokens(items)] == [(3, 384), (2, 384)]
