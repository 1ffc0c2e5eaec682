import numpy as np
import pytest
import torch

from miner_diag.backbones import Backbone, BackboneError, load_backbone
from miner_diag.backbones.options import LoadOptions
from tests.backbones.tiny import PAGES, QUERIES, Drawn, save_dual_encoder

TOLERANCE = 1e-5
KINDS = ["clip", "siglip", "siglip2"]


@pytest.fixture(scope="module", params=KINDS)
def backbone(request, tmp_path_factory):
    folder = save_dual_encoder(tmp_path_factory.mktemp("encoders") / "tiny", request.param)
    loaded = load_backbone(LoadOptions(str(folder), device="cpu"), render=Drawn())
    assert loaded.family == request.param
    return loaded


def items_of(side):
    return QUERIES if side == "query" else PAGES


def test_the_encoders_have_their_own_shapes(backbone):
    assert isinstance(backbone, Backbone)
    assert not backbone.shared_layers
    assert backbone.layer_shape("query") == (4, 48)
    assert backbone.layer_shape("page") == (5, 40 if backbone.family == "clip" else 32)
    assert "a dual encoder" in backbone.last_layer


@pytest.mark.parametrize("side", ["query", "page"])
def test_layers_equal_a_plain_forward_of_the_whole_model(backbone, side):
    """Inner layers pooled by hand, the last one as the library's own ``get_…_features`` has it."""
    for item in backbone.prepare(items_of(side), side):
        inputs, pool_mask = backbone.collate([item])
        kept = pool_mask[0].bool()
        with torch.inference_mode():
            states = backbone.encoders[side](**inputs, output_hidden_states=True).hidden_states
            whole = backbone.model.get_text_features if side == "query" else backbone.model.get_image_features
            final = whole(**inputs).pooler_output[0].numpy()
        picked = {
            "last": lambda s, k=kept: s[0][k][-1],
            "cls": lambda s, k=kept: s[0][k][0],
            "mean": lambda s, k=kept: s[0][k].mean(dim=0),
        }[backbone.poolings[side]]
        n_states, width = backbone.layer_shape(side)
        embedded = backbone.embed([item])[0]
        assert embedded.shape == (n_states, width)
        for layer in range(n_states - 1):
            by_hand = picked(states[layer]).numpy()
            np.testing.assert_allclose(embedded[layer, : len(by_hand)], by_hand, rtol=0, atol=TOLERANCE)
            assert not embedded[layer, len(by_hand) :].any()
        np.testing.assert_allclose(embedded[-1, : len(final)], final, rtol=0, atol=TOLERANCE)
        assert len(final) == backbone.embedding_width and not embedded[-1, len(final) :].any()


@pytest.mark.parametrize("side", ["query", "page"])
def test_a_batch_of_one_equals_a_batch_of_eight(backbone, side):
    batch = backbone.prepare(items_of(side), side)
    alone = np.concatenate([backbone.embed([item]) for item in batch])
    np.testing.assert_allclose(backbone.embed(batch), alone, rtol=0, atol=TOLERANCE)
    assert np.isfinite(alone).all() and np.ptp(alone[:, -1], axis=0).any()


def test_empty_and_long_queries(backbone):
    batch = backbone.prepare(QUERIES, "query")
    assert [item.empty for item in batch] == [False, True, False, False, False, False, True, False]
    assert batch[5].truncated and not batch[7].truncated
    assert max(item.n_tokens for item in batch) == 24


def test_what_has_no_effect_is_refused(tmp_path):
    folder = str(save_dual_encoder(tmp_path / "tiny-siglip", "siglip"))
    with pytest.raises(BackboneError, match="--pooling mean has no effect on tiny-siglip: it has no pooling of"):
        load_backbone(LoadOptions(folder, device="cpu", pooling="mean"))
    with pytest.raises(BackboneError, match="--max-pixels 4096 has no effect on tiny-siglip: it has no budget"):
        load_backbone(LoadOptions(folder, device="cpu", max_pixels=4096))
    with pytest.raises(BackboneError, match="--page-prompt page: +has no effect on tiny-siglip: .*without words"):
        load_backbone(LoadOptions(folder, device="cpu", page_prompt="page: "))


def test_limits_of_queries(tmp_path):
    folder = str(save_dual_encoder(tmp_path / "tiny-clip", "clip"))
    messages = {25: "at most 24, the model's positions; got 25", 2: "at least 3 for this tokenizer; got 2"}
    for given, message in messages.items():
        with pytest.raises(BackboneError, match=f"max_tokens must be {message}"):
            load_backbone(LoadOptions(folder, device="cpu", max_tokens=given))


@pytest.mark.parametrize("side", ["query", "page"])
def test_bfloat16_on_a_cpu_gives_like_vectors_in_float32(backbone, side, caplog):
    coarse = load_backbone(LoadOptions(backbone.options.model, device="cpu", dtype="bfloat16"), render=Drawn())
    assert coarse.dtype == torch.bfloat16 and coarse.key(side)["dtype"] == "bfloat16"
    assert "runs in bfloat16 on a CPU" in caplog.text
    items = items_of(side)
    one, other = (each.embed(each.prepare(items, side))[:, -1] for each in (coarse, backbone))
    assert one.dtype == np.float32 and not np.array_equal(one, other)
    cosines = (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)
    assert cosines.min() > 0.98
