import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModel

from miner_diag.backbones import Backbone, BackboneError, load_backbone
from miner_diag.backbones.hooks import find_blocks
from miner_diag.backbones.options import LoadOptions
from tests.backbones.tiny import PAGES, QUERIES, Drawn, save_adapter, save_modernvbert, save_nemotron, save_qwen

TOLERANCE = 1e-5


def save_gme(folder):
    return save_qwen(folder / "tiny-gme", "qwen2_vl", chat=False)


def save_dse(folder):
    return save_qwen(folder / "tiny-dse-qwen2", "qwen2_vl", chat=False)


def save_qwen3(folder):
    return save_qwen(folder / "tiny", "qwen3_vl")


def save_biqwen(folder):
    """An adapter and its base model; the adapter names it by its folder."""
    base = save_qwen(folder / "Qwen2.5-VL-base", "qwen2_5_vl")
    save_adapter(folder / "tiny-adapter", AutoModel.from_pretrained(base), base_model_name_or_path=str(base))
    return folder / "tiny-adapter"


def save_jina(folder):
    """As its repository is: base weights under another model type, a projector, an adapter of three tasks."""
    whole = save_qwen(folder / "tiny-jina", "qwen2_5_vl", chat=False)
    save_adapter(whole / "adapters", AutoModel.from_pretrained(whole), part="retrieval")
    config = json.loads((whole / "config.json").read_text())
    config |= {"architectures": ["JinaEmbeddingsV4Model"], "auto_map": {"AutoModel": "modeling_jina_embeddings_v4.X"}}
    (whole / "config.json").write_text(json.dumps(config))
    return whole


SAVERS = {
    "qwen3_vl": save_qwen3,
    "gme": save_gme,
    "dse": save_dse,
    "biqwen2_5": save_biqwen,
    "jina_v4": save_jina,
    "eager": lambda folder: save_qwen(folder / "eager-embed-tiny", "qwen3_vl", chat=False),
    "moca": lambda folder: save_qwen(folder / "MoCa-tiny", "qwen2_5_vl", chat=False),
    "modernvbert": lambda folder: save_modernvbert(folder / "tiny"),
    "nemotron_vl": lambda folder: save_nemotron(folder / "tiny"),
}


PIXELS = {"moca": 300 * 28 * 28}
"""The budget of families whose smallest picture is above the others' budget here, 64 * 1024 pixels."""


@pytest.fixture(scope="module", params=SAVERS)
def backbone(request, tmp_path_factory):
    folder = SAVERS[request.param](tmp_path_factory.mktemp(request.param))
    pixels = PIXELS.get(request.param, 64 * 1024)
    loaded = load_backbone(LoadOptions(str(folder), device="cpu", max_pixels=pixels, max_tokens=96), render=Drawn())
    assert loaded.family == request.param  # found by its own files
    return loaded


def plain_states(backbone, inputs):
    """All hidden states of a plain forward of the library's own model."""
    if backbone.family == "modernvbert" and "pixel_values" in inputs:
        inputs = {**inputs, "pixel_values": inputs["pixel_values"][None]}
    return backbone.model(**inputs, output_hidden_states=True).hidden_states


def items_of(side):
    return QUERIES if side == "query" else PAGES


@pytest.mark.parametrize("side", ["query", "page"])
def test_chosen_layers_are_those_of_the_whole_forward_and_no_block_above_is_run(backbone, side):
    batch = backbone.prepare(items_of(side)[:1], side)
    whole = backbone.embed(batch)
    for layers in ([backbone.n_layers], [1], [1, 0], [1, 1, backbone.n_layers]):
        ran = []
        handle = backbone._blocks[1].register_forward_hook(lambda *_, ran=ran: ran.append(1))
        np.testing.assert_array_equal(backbone.embed_chosen(batch, layers), whole[:, layers])
        handle.remove()
        assert bool(ran) == (max(layers) > 1)


@pytest.mark.parametrize("side", ["query", "page"])
def test_pooled_layers_equal_a_plain_forward_pooled_by_hand(backbone, side):
    for item in backbone.prepare(items_of(side), side):
        inputs, pool_mask = backbone.collate([item])
        with torch.inference_mode():
            states = plain_states(backbone, inputs)
        assert len(states) == backbone.n_layers + 1
        kept = pool_mask[0].bool().numpy()
        by_hand = np.stack(
            [
                state[0].numpy()[kept][-1] if backbone.pooling == "last" else state[0].numpy()[kept].mean(axis=0)
                for state in states
            ]
        )
        np.testing.assert_allclose(backbone.embed([item])[0], by_hand, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("side", ["query", "page"])
def test_a_batch_of_one_equals_a_batch_of_eight_on_either_padding(backbone, side):
    batch = backbone.prepare(items_of(side), side)
    squares = backbone.family == "eager" and side == "page"  # which all have the same number of tokens
    assert (len({item.n_tokens for item in batch}) == 1) is squares
    alone = np.concatenate([backbone.embed([item]) for item in batch])
    assert alone.shape == (8, *backbone.layer_shape(side)) and alone.dtype == np.float32
    for padding in ("right", "left"):
        together = backbone.embed_collated(*backbone.collate(batch, padding))
        np.testing.assert_allclose(together[:, backbone.kept(side).layers], alone, rtol=0, atol=TOLERANCE)


def test_pages_differ_and_their_pixels_matter(backbone):
    pages = backbone.embed(backbone.prepare(PAGES, "page"))
    final = pages[:, -1] / np.linalg.norm(pages[:, -1], axis=1, keepdims=True)
    assert (final @ final.T - np.eye(8)).max() < 0.9999
    assert any("pixel_values" in backbone.collate([item])[0] for item in backbone.prepare(PAGES[:1], "page"))


def vision_model(backbone):
    return backbone.model.visual if hasattr(backbone.model, "visual") else backbone.model.vision_model


def test_visual_tokens_are_computed_once_a_page(backbone):
    """One call of the vision model for a batch, and as many visual tokens put in as came out of it."""
    calls = []
    handle = vision_model(backbone).register_forward_hook(lambda *_: calls.append(1))
    try:
        backbone.embed(backbone.prepare(PAGES, "page"))
        assert len(calls) == 1
        backbone.embed(backbone.prepare(PAGES[:1], "page"))
        assert len(calls) == 2
        if backbone.family != "dse":  # its queries hold a blank picture
            backbone.embed(backbone.prepare(QUERIES, "query"))
            assert len(calls) == 2
    finally:
        handle.remove()


def test_pictures_are_drawn_in_the_forward_and_not_kept(backbone):
    drawn = backbone.pictures.render
    backbone.prepare(PAGES, "page")  # proportions are known from here on
    before = drawn.count
    batch = backbone.prepare(PAGES, "page")
    assert drawn.count == before
    for _ in range(2):
        backbone.embed(batch[:3])
    assert drawn.count == before + 6
    held = [value.nbytes for item in batch for value in item.inputs.values()]
    assert sum(held) < 200 * 1024, "token ids only"


def test_empty_and_long_queries_keep_what_closes_the_message(backbone):
    batch = backbone.prepare(QUERIES, "query")
    assert [item.empty for item in batch] == [False, True, False, False, False, False, True, False]
    assert [item.truncated for item in batch] == [False] * 5 + [True] + [False] * 2
    assert batch[5].n_tokens == backbone.max_tokens("query") == 96
    closing = backbone._templates["query"].after
    for item in batch:
        ids = item.inputs["input_ids"]
        assert closing in backbone.tokenizer.decode(ids)
        if backbone.pooling == "last":  # the vector is read at the same closing token, cut or not
            assert ids[-1] == batch[0].inputs["input_ids"][-1]
    assert np.isfinite(backbone.embed(batch)).all()


OFFICIAL = {
    "qwen3_vl": (
        "<|im_start|>system\nRetrieve images or text relevant to the user's query.<|im_end|>\n<|im_start|>user\npage"
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nRepresent the user's input.<|im_end|>\n<|im_start|>user\n<|vision_start|>[P]"
        "<|vision_end|><|im_end|>\n<|im_start|>assistant\n",
    ),
    "gme": (
        "<|im_start|>system\nFind an image that matches the given text.<|im_end|>\n<|im_start|>user\npage<|im_end|>\n"
        "<|im_start|>assistant\n<|endoftext|>",
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>[P]"
        "<|vision_end|><|im_end|>\n<|im_start|>assistant\n<|endoftext|>",
    ),
    "dse": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
        "<|image_pad|><|image_pad|><|image_pad|><|image_pad|>"
        "<|vision_end|>Query: page<|im_end|>\n<|im_start|>assistant\n<|endoftext|>",
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>[P]"
        "<|vision_end|>What is shown in this image?<|im_end|>\n<|im_start|>assistant\n<|endoftext|>",
    ),
    "biqwen2_5": (
        "Query: page<|endoftext|>",
        "<|im_start|>user\n<|vision_start|>[P]<|vision_end|>Describe the image.<|im_end|><|endoftext|>",
    ),
    "jina_v4": (
        "Query: page",
        "<|im_start|>user\n<|vision_start|>[P]<|vision_end|>Describe the image.<|im_end|>\n",
    ),
    "eager": (
        "<|im_start|>user\nQuery: page<|im_end|>\n<|im_start|>assistant\n<|endoftext|>",
        "<|im_start|>user\n<|vision_start|>[P]<|vision_end|><|im_end|>\n<|im_start|>assistant\n<|endoftext|>",
    ),
    "moca": ("page", "<|vision_start|>[P]<|vision_end|>Represent the given document image.\n"),
    "modernvbert": (
        "[CLS]page[SEP]",
        "[CLS]<|begin_of_text|>User:[P]Describe the image.<end_of_utterance>\nAssistant:[SEP]",
    ),
    "nemotron_vl": ("<|begin_of_text|>query: page", "<|begin_of_text|>passage: <img>[P]</img> "),
}


def test_official_words_stand_around_queries_and_pages(backbone):
    """As the authors' code writes them, token for token; [P] is the picture's own tokens."""
    query, page = OFFICIAL[backbone.family]
    read = backbone.tokenizer.decode
    assert read(backbone.prepare(QUERIES[-1:], "query")[0].inputs["input_ids"]) == query
    before, after = page.split("[P]")
    told = read(backbone.prepare(PAGES[:1], "page")[0].inputs["input_ids"])
    assert told.startswith(before) and told.endswith(after)
    inside = told[len(before) : len(told) - len(after)]
    if backbone.family != "modernvbert":
        assert set(inside.split(backbone.placeholder)) == {""}


def test_a_query_of_dse_has_the_tokens_of_its_blank_picture(tmp_path):
    """56 x 56 pixels: what qwen_vl_utils makes of the 1 x 1 on the card, and four visual tokens."""
    backbone = load_backbone(LoadOptions(str(save_dse(tmp_path)), device="cpu"), render=Drawn())
    item = backbone.prepare(QUERIES[:1], "query")[0]
    assert item.pixels()["image_grid_thw"].tolist() == [[1, 4, 4]]
    assert int((item.inputs["input_ids"] == backbone._placeholder_id).sum()) == 4


def test_the_number_of_visual_tokens_follows_from_the_proportions(backbone):
    for item, page in zip(backbone.prepare(PAGES, "page"), PAGES, strict=True):
        pixels = item.pixels()
        seen = int((item.inputs["input_ids"] == backbone._placeholder_id).sum())
        if "image_grid_thw" in pixels:
            assert seen == pixels["image_grid_thw"].prod() // 4 and len(pixels["pixel_values"]) == 4 * seen
            grid = pixels["image_grid_thw"][0, 1:] * backbone.image_processor.patch_size
            assert backbone.min_pixels <= grid.prod() <= backbone.max_pixels
        else:
            assert seen % len(pixels["pixel_values"]) == 0
        assert item.item_id == page.page_id


def test_the_key_tells_the_family_the_template_and_the_pixels(backbone):
    query, page = backbone.key("query"), backbone.key("page")
    assert backbone.key() == {**query, **page}
    assert all(isinstance(value, str) for value in page.values())
    assert page["family"] == backbone.family and page["image_processor"] == backbone.image_processor_class
    assert page["page_pixels"].endswith(str(backbone.options.max_pixels)) and "page_pixels" not in query
    assert query["query_template"].count("{}") == 1 and query["query_max_tokens"] == "96"
    assert backbone.last_layer.startswith(f"Layer {backbone.n_layers} is last_hidden_state of ")
    assert "after the final norm" in backbone.last_layer


def test_it_follows_the_protocol(backbone):
    assert isinstance(backbone, Backbone)
    assert backbone.shared_layers and backbone.layer_shape("query") == backbone.layer_shape("page")
    assert backbone.dtype == torch.float32
    with pytest.raises(BackboneError, match="side must be one of query, page"):
        backbone.layer_shape("text")
    with pytest.raises(BackboneError, match="items must have a page_id; got a Query"):
        backbone.prepare(QUERIES, "page")
    with pytest.raises(BackboneError, match="batch must hold at least one item"):
        backbone.embed([])


def test_out_of_memory_halves_the_batch_and_changes_nothing(backbone, monkeypatch, caplog):
    from miner_diag.embeddings.forward import embed_halving

    batch = backbone.prepare(PAGES, "page")
    expected = backbone.embed(batch)
    forward, sizes = backbone.forward, []

    def small(inputs):
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(inputs)

    monkeypatch.setattr(backbone, "forward", small)
    np.testing.assert_allclose(embed_halving(backbone.embed, batch), expected, rtol=0, atol=TOLERANCE)
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    assert "out of memory with 8 items" in caplog.text


@pytest.mark.parametrize("side", ["query", "page"])
def test_bfloat16_on_a_cpu_is_run_and_keyed_as_such(backbone, side):
    options = replace(backbone.options, dtype="bfloat16")
    coarse = load_backbone(options, render=Drawn())
    assert {name for name, value in coarse.key().items() if backbone.key()[name] != value} == {"dtype"}
    assert coarse.key()["dtype"] == "bfloat16" and next(coarse.model.parameters()).dtype == torch.bfloat16
    one, other = (each.embed(each.prepare(items_of(side), side))[:, -1] for each in (coarse, backbone))
    assert one.dtype == np.float32 and not np.array_equal(one, other)
    cosines = (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)
    assert cosines.min() > 0.98


@pytest.mark.parametrize("side", ["query", "page"])
def test_bfloat16_weights_take_the_same_pictures_and_give_float32(backbone, monkeypatch, side):
    """What a GPU runs by default, here on the CPU: no input is of the wrong type, and directions stay."""
    batch = backbone.prepare(items_of(side), side)
    expected = backbone.embed(batch)[:, -1]
    model = copy.deepcopy(backbone.model).to(torch.bfloat16)
    monkeypatch.setattr(backbone, "model", model)
    monkeypatch.setattr(backbone, "_blocks", find_blocks(backbone.language_model(), backbone.n_layers))
    coarse = backbone.embed(batch)[:, -1]
    assert coarse.dtype == np.float32
    cosines = (coarse * expected).sum(-1) / np.linalg.norm(coarse, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert cosines.min() > 0.98
