"""ColPali, ColQwen2, ColModernVBERT: tiny random checkpoints of the real classes against a plain forward."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from miner_diag.backbones.base import BackboneError, CheckpointError
from miner_diag.backbones.col_vision import PROCESSORS
from miner_diag.backbones.families import late_class
from miner_diag.backbones.late import LateBackbone
from miner_diag.backbones.options import LoadOptions
from miner_diag.backbones.registry import load_late_backbone
from miner_diag.corpus.core import Page, Query
from tests.backbones import late_checkpoints as checkpoints
from tests.backbones.helpers import col_vision

SIZES = {"p0": (400, 300), "p1": (33, 201), "p2": (500, 71), "p3": (64, 64), "p4": (301, 402)}
PAGES = [Page(name, "d", 1, "", "hash") for name in SIZES]
QUERIES = [Query(name, text, "given", "d") for name, text in (("q0", "what is it"), ("q1", ""), ("q2", "a"))]


@pytest.fixture(scope="module", params=checkpoints.CLASSES)
def folder(request, tmp_path_factory):
    return checkpoints.save_late(tmp_path_factory.mktemp("col") / request.param, request.param)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return {n: Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for n, size in SIZES.items()}


@pytest.fixture(scope="module")
def backbone(folder, pictures):
    return load_late_backbone(LoadOptions(str(folder), device="cpu"), render=lambda page_id, side: pictures[page_id])


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("side", ["query", "page"])
def test_token_vectors_are_those_of_the_class_and_its_processor(folder, backbone, pictures, side, padding):
    """The documented way: its processor over the whole batch, its forward, the tokens that are no padding."""
    architecture = late_class(folder).name
    model = getattr(transformers, architecture).from_pretrained(folder).eval()
    processor = getattr(transformers, PROCESSORS[architecture]).from_pretrained(folder, backend="pil")
    processor.tokenizer.padding_side = padding
    items = QUERIES if side == "query" else PAGES
    if side == "query":
        inputs = processor.process_queries(text=[query.text for query in QUERIES])
    else:
        inputs = processor.process_images(images=[pictures[page.page_id] for page in PAGES])
    inputs.pop("labels", None)
    with torch.inference_mode():
        expected = model(**inputs).embeddings
    found = backbone.embed_tokens(backbone.prepare(items, side))
    assert isinstance(backbone, LateBackbone)
    for tokens, row, mask in zip(found, expected, inputs["attention_mask"], strict=True):
        assert tokens.dtype == np.float32 and tokens.shape == (int(mask.sum()), backbone.width)
        np.testing.assert_allclose(tokens, row[mask.bool()].numpy(), atol=1e-5)


@pytest.mark.parametrize("side", ["query", "page"])
def test_a_batch_of_one_is_a_batch_of_several_also_of_pictures_of_odd_sizes(backbone, side):
    items = backbone.prepare(QUERIES if side == "query" else PAGES, side)
    together = backbone.embed_tokens(items)
    for item, tokens in zip(items, together, strict=True):
        assert len(tokens) == item.n_tokens
        np.testing.assert_allclose(backbone.embed_tokens([item])[0], tokens, atol=1e-5)
    backwards = backbone.embed_tokens(items[::-1])[::-1]
    for one, other in zip(together, backwards, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_picture_is_seen_and_pages_of_other_shapes_have_other_token_counts(backbone, pictures):
    first = backbone.embed_tokens(backbone.prepare(PAGES[:1], "page"))[0]
    kept, pictures["p0"] = pictures["p0"], Image.new("RGB", (300, 400), "white")
    blank = backbone.embed_tokens(backbone.prepare(PAGES[:1], "page"))[0]
    pictures["p0"] = kept
    assert first.shape == blank.shape and np.abs(first - blank).max() > 1e-2
    counts = {item.n_tokens for item in backbone.prepare(PAGES, "page")}
    assert len(counts) == 1 if backbone.architecture == "ColPaliForRetrieval" else len(counts) > 1


def test_an_empty_query_has_its_prompt_and_augmentation(backbone):
    items = backbone.prepare(QUERIES, "query")
    assert [item.empty for item in items] == [False, True, False]
    assert min(len(tokens) for tokens in backbone.embed_tokens(items)) >= 10
    assert items[0].n_tokens - items[1].n_tokens == len("what is it")  # a byte is a token here


def test_a_long_query_is_cut_and_its_augmentation_stays(folder):
    backbone = col_vision(folder, max_tokens=40, device="cpu")
    short, long = backbone.prepare([Query("a", "x", "given", "d"), Query("b", "xy " * 200, "given", "d")], "query")
    assert (short.truncated, long.truncated, long.n_tokens) == (False, True, 40)
    np.testing.assert_array_equal(long.inputs["input_ids"][-10:], short.inputs["input_ids"][-10:])
    with pytest.raises(BackboneError, match="max_tokens is 5, which the prompt and the augmentation"):
        col_vision(folder, max_tokens=5, device="cpu").prepare([Query("a", "x", "given", "d")], "query")


def test_a_page_with_more_tokens_than_the_model_takes_is_refused(folder, pictures):
    backbone = col_vision(folder, max_tokens=30, device="cpu", render=lambda page_id, side: pictures[page_id])
    with pytest.raises(BackboneError, match=r"page 'p0' has \d+ tokens, .* takes 30; lower the size"):
        backbone.prepare(PAGES, "page")


def test_pages_need_something_that_draws_them(folder):
    with pytest.raises(BackboneError, match="nothing draws page p0; give render=corpus"):
        col_vision(folder, device="cpu").prepare(PAGES, "page")
    with pytest.raises(BackboneError, match="items must have a page_id; got a Query"):
        col_vision(folder, device="cpu").prepare(QUERIES, "page")
    with pytest.raises(BackboneError, match="at least one item"):
        col_vision(folder, device="cpu").embed_tokens([])


def test_key_names_prompts_backend_and_pixels(backbone):
    key = backbone.key()
    assert key["image_processor"].endswith("Pil")  # the same pixels with and without torchvision
    assert key["architecture"] == backbone.architecture and key["longest_side"] == "1024"
    assert key["query_prompt"] == backbone.processor.query_prefix
    assert "image_processor" not in backbone.key("query") and "query_prompt" not in backbone.key("page")


def test_prompts_can_be_given(folder):
    backbone = col_vision(folder, device="cpu", query_prompt="Find: ")
    assert backbone.key("query")["query_prompt"] == "Find: "
    default = col_vision(folder, device="cpu")
    assert len(default.processor.query_prefix) - len("Find: ") == (
        default.prepare(QUERIES, "query")[0].n_tokens - backbone.prepare(QUERIES, "query")[0].n_tokens
    )


def test_a_prompt_of_pages_must_hold_the_picture(folder, pictures):
    own = col_vision(folder, device="cpu")
    token, default = own.processor.image_token, own.processor.visual_prompt_prefix
    render = {"render": lambda page_id, side: pictures[page_id]}
    longer = col_vision(folder, device="cpu", page_prompt=f"Look. {default}", **render)
    assert longer.key("page")["page_prompt"] == f"Look. {default}"
    more = (
        longer.prepare(PAGES[:1], "page")[0].n_tokens
        - col_vision(folder, **render).prepare(PAGES[:1], "page")[0].n_tokens
    )
    assert more == len("Look. ")  # a byte is a token here
    wrong = "Look." if token in default else f"{token}Look."
    with pytest.raises(BackboneError, match=f"--page-prompt of {folder.name} must hold the picture's token"):
        col_vision(folder, device="cpu", page_prompt=wrong)


def test_bfloat16_on_a_cpu_gives_like_tokens(folder, backbone, pictures):
    """Coarse, but the same directions; tokens stay float32 and of unit length."""
    coarse = col_vision(folder, device="cpu", dtype="bfloat16", render=lambda page_id, side: pictures[page_id])
    assert coarse.key()["dtype"] == "bfloat16"
    for side, items in (("query", QUERIES), ("page", PAGES)):
        for one, other in zip(
            coarse.embed_tokens(coarse.prepare(items, side)),
            backbone.embed_tokens(backbone.prepare(items, side)),
            strict=True,
        ):
            assert one.dtype == np.float32 and one.shape == other.shape
            assert np.median((one * other).sum(axis=1)) > 0.98


def test_a_checkpoint_that_does_not_fill_the_model_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    weights.pop("embedding_proj_layer.weight")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="1 missing from the file .*: embedding_proj_layer.weight"):
        col_vision(copy, device="cpu")


def test_a_folder_without_processor_or_with_another_architecture_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    with pytest.raises(CheckpointError, match="Processor can be loaded from"):
        col_vision(copy, device="cpu")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    with pytest.raises(CheckpointError, match="many vectors a page; .* one of ColPaliForRet.*names BertModel"):
        load_late_backbone(LoadOptions(str(copy), device="cpu"))
    (copy / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"], "model_type": "bert"}))
    assert late_class(copy) is None
    with pytest.raises(CheckpointError, match="must name one of ColPaliForRetrieval, ColQwen2"):
        col_vision(copy, device="cpu")
    (copy / "config.json").write_text("[")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read as JSON"):
        late_class(copy)
