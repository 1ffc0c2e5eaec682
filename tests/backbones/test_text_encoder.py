import json
import warnings

import numpy as np
import pytest
import torch

from miner_diag.backbones import BackboneError, CheckpointError
from miner_diag.backbones.hooks import pooled_layers
from tests.backbones.helpers import text_encoder

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of libraries it imports
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

TOLERANCE = 1e-5


def normalised(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def final(backbone, items, side):
    """The normalised last layer of `items`, all in one batch."""
    return normalised(backbone.embed(backbone.prepare(items, side))[:, -1])


@pytest.fixture(scope="module")
def bert(tiny_bert):
    return text_encoder(tiny_bert, pooling="mean")


@pytest.fixture(scope="module")
def decoder(tiny_decoder):
    return text_encoder(tiny_decoder)


@pytest.mark.parametrize(("pooling", "theirs"), [("mean", "mean"), ("cls", "cls"), ("last", "lasttoken")])
def test_equals_sentence_transformers_as_saved_by_it(tiny_bert, tmp_path, texts, queries, pooling, theirs):
    made = SentenceTransformer(
        modules=[Transformer(str(tiny_bert), max_seq_length=16), Pooling(32, pooling_mode=theirs), Normalize()],
        prompts={"query": "find : ", "document": "read it : "},
        device="cpu",
    )
    made.save(str(tmp_path / "saved"))
    backbone = text_encoder(tmp_path / "saved")
    assert (backbone.pooling, backbone.max_tokens("query"), backbone.query_prompt) == (pooling, 16, "find : ")
    oracle = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(final(backbone, queries, "query"), oracle.encode_query(texts), rtol=0, atol=TOLERANCE)


def test_equals_sentence_transformers_in_its_older_files(copy_of, pipeline_of, tiny_bert, texts, queries, pages):
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    folder = pipeline_of(
        copy_of(tiny_bert),
        pooling,
        limits={"max_seq_length": 12, "do_lower_case": True},
        prompts={"prompts": {"query": "find : ", "document": "read it : "}},
    )
    backbone = text_encoder(folder)
    oracle = SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(final(backbone, queries, "query"), oracle.encode_query(texts), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(final(backbone, pages, "page"), oracle.encode_document(texts), rtol=0, atol=TOLERANCE)
    upper, lower = backbone.embed(backbone._encode(["a", "b"], ["Upper", "upper"], "query"))
    # the same tokens in two rows of a batch: equal but for the rounding of the row's place, with several threads
    np.testing.assert_allclose(upper, lower, rtol=0, atol=1e-6)


def test_equals_sentence_transformers_where_the_prompt_is_not_pooled(copy_of, pipeline_of, tiny_bert, texts, queries):
    folder = pipeline_of(
        copy_of(tiny_bert),
        {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "include_prompt": False},
        prompts={"prompts": {"query": "find : ", "document": ""}},
    )
    oracle = SentenceTransformer(str(folder), device="cpu").encode_query(texts)
    np.testing.assert_allclose(final(text_encoder(folder), queries, "query"), oracle, rtol=0, atol=TOLERANCE)


def test_a_decoder_equals_sentence_transformers_with_its_left_padding(decoder, tiny_decoder, texts, queries):
    """Last token, left padding there and right padding here, prompt of the query side."""
    oracle = SentenceTransformer(str(tiny_decoder), device="cpu")
    assert oracle.tokenizer.padding_side == "left"
    np.testing.assert_allclose(final(decoder, queries, "query"), oracle.encode_query(texts), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_a_decoders_layers_do_not_depend_on_the_padding_side(decoder, queries, padding_side):
    batch = decoder.prepare(queries, "query")
    alone = np.concatenate([decoder.embed_kept([item]) for item in batch])
    together = decoder.embed_collated(*decoder.collate(batch, padding_side))
    np.testing.assert_allclose(together, alone, rtol=0, atol=TOLERANCE)


def test_batch_of_one_equals_batch_of_many(bert, queries):
    batch = bert.prepare(queries, "query")
    alone = np.concatenate([bert.embed([item]) for item in batch])
    np.testing.assert_allclose(bert.embed(batch), alone, rtol=0, atol=TOLERANCE)
    assert alone.shape == (len(queries), 4, 32)
    assert alone.dtype == np.float32


def test_the_last_layer_is_the_plain_forward(bert, decoder, queries):
    for backbone in (bert, decoder):
        batch = backbone.prepare(queries, "query")
        np.testing.assert_array_equal(backbone.embed(batch)[:, -1], backbone.plain_forward(batch))


def test_it_says_which_state_the_last_layer_is(bert, decoder):
    assert "as it leaves the last block" in bert.last_layer
    assert "after the final norm" in decoder.last_layer
    for backbone in (bert, decoder):
        assert backbone.last_layer.startswith("Layer 3 is last_hidden_state")
        assert "retrieves with it" in backbone.last_layer


def test_empty_and_too_long_texts(bert, decoder, queries):
    for backbone in (bert, decoder):
        batch = backbone.prepare(queries, "query")
        assert [item.empty for item in batch] == [False, True, False, False, False, False]
        assert [item.truncated for item in batch] == [False, False, True, False, False, False]
        assert batch[2].n_tokens == backbone.max_tokens("query") == 24
        assert np.isfinite(backbone.embed(batch)).all()


def test_a_text_without_any_token_is_the_end_of_text_token(decoder, pages):
    item = decoder.prepare(pages[1:2], "page")[0]
    assert item.inputs["input_ids"].tolist() == [decoder.tokenizer.eos_token_id]
    assert item.empty


def test_no_items_and_wrong_items(bert, queries, pages):
    assert bert.prepare([], "query") == []
    with pytest.raises(BackboneError, match="side is 'page', so items must have a page_id; got a Query"):
        bert.prepare(queries, "page")
    with pytest.raises(BackboneError, match="side is 'query', so items must have a query_id; got a Page"):
        bert.prepare(pages, "query")
    with pytest.raises(BackboneError, match="side must be one of query, page; got 'document'"):
        bert.prepare(queries, "document")
    with pytest.raises(BackboneError, match="batch must hold at least one item"):
        bert.embed([])


def test_a_layer_that_does_not_pass_is_an_error(bert, queries, monkeypatch):
    def cut(blocks, pool, wanted, pool_last):
        return pooled_layers(torch.nn.ModuleList([*blocks, torch.nn.Identity()]), pool, wanted, pool_last)

    monkeypatch.setattr("miner_diag.backbones.hooks.pooled_layers", cut)
    monkeypatch.setattr(bert.model.encoder, "layer", bert.model.encoder.layer[:2])
    with pytest.raises(CheckpointError, match=r"layer\(s\) \[3\] of tiny-bert did not pass"):
        bert.embed(bert.prepare(queries[:1], "query"))


def test_pooling_stated_nowhere_is_asked_for(tiny_bert):
    with pytest.raises(
        CheckpointError, match=r"no file in .* states how it pools .* say it with --pooling last\|mean\|cls"
    ):
        text_encoder(tiny_bert)
    with pytest.raises(BackboneError, match="pooling must be one of last, mean, cls; got 'max'"):
        text_encoder(tiny_bert, pooling="max")


def test_overruling_a_stated_pooling_warns(tiny_decoder, caplog):
    assert text_encoder(tiny_decoder, pooling="mean").pooling == "mean"
    assert "states last pooling; --pooling mean overrules it" in caplog.text


def test_bfloat16_on_a_cpu_is_honoured_with_a_warning(tiny_bert, queries, caplog):
    backbone = text_encoder(tiny_bert, pooling="mean", dtype="bfloat16", device="cpu")
    assert backbone.dtype == torch.bfloat16 and backbone.key()["dtype"] == "bfloat16"
    assert "tiny-bert runs in bfloat16 on a CPU: its numbers are coarse, and it is slow on processors" in caplog.text
    exact = text_encoder(tiny_bert, pooling="mean", device="cpu")
    coarse, exact = (one.embed(one.prepare(queries, "query")) for one in (backbone, exact))
    assert coarse.dtype == np.float32
    np.testing.assert_allclose(coarse, exact, rtol=0, atol=0.1)
    assert not np.array_equal(coarse, exact)
    with pytest.raises(BackboneError, match="dtype must be one of auto, float32, bfloat16; got 'int8'"):
        text_encoder(tiny_bert, pooling="mean", dtype="int8")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_cpus_vectors(tiny_bert, bert, queries):
    backbone = text_encoder(tiny_bert, pooling="mean", device="cuda")
    expected = bert.embed(bert.prepare(queries, "query"))
    np.testing.assert_allclose(backbone.embed(backbone.prepare(queries, "query")), expected, rtol=0, atol=1e-4)


def test_limits(tiny_bert, copy_of):
    assert text_encoder(tiny_bert, pooling="mean", max_tokens=9).max_tokens("page") == 9
    with pytest.raises(BackboneError, match="max_tokens must be at most 48, the model's positions; got 4000"):
        text_encoder(tiny_bert, pooling="mean", max_tokens=4000)
    with pytest.raises(BackboneError, match="max_tokens must be at least 3 for this tokenizer; got 2"):
        text_encoder(tiny_bert, pooling="mean", max_tokens=2)
    folder = copy_of(tiny_bert)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"query_length": 5, "document_length": 20}))
    backbone = text_encoder(folder, pooling="mean")
    assert (backbone.max_tokens("query"), backbone.max_tokens("page")) == (5, 20)


def test_the_key_holds_what_changes_a_number_of_its_side(bert, decoder):
    query, page, both = decoder.key("query"), decoder.key("page"), decoder.key()
    assert both == {**query, **page}
    assert query["query_prompt"] == "find : " and "reader" not in query and "page_prompt" not in query
    assert page["reader"] == "text-layer" and page["page_max_tokens"] == "24"
    assert both["backbone_revision"] == decoder.revision != bert.revision
    assert all(isinstance(value, str) for value in both.values())
    assert both["dtype"] == "float32"


def test_layers_are_shared_by_both_sides(bert):
    assert bert.shared_layers
    assert bert.layer_shape("query") == bert.layer_shape("page") == (4, 32)
    with pytest.raises(BackboneError, match="side must be one of query, page"):
        bert.layer_shape("text")


def test_another_models_tokenizer_is_refused(copy_of, tiny_bert):
    folder = copy_of(tiny_bert)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["beyond"] = 64
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="token ids up to 64, the model embeddings for 64 tokens"):
        text_encoder(folder, pooling="mean")
