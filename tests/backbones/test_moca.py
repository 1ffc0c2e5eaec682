"""MoCa looks both ways: a later token changes an earlier state, padding and other items of a batch change none."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from miner_diag.backbones import CheckpointError, load_backbone
from miner_diag.backbones.moca import look_both_ways
from miner_diag.backbones.options import LoadOptions
from miner_diag.corpus.core import Page, Query
from tests.backbones.tiny import PAGES, QUERIES, Drawn, save_qwen

PIXELS = 256 * 28 * 28


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_qwen(tmp_path_factory.mktemp("moca") / "MoCa-tiny", "qwen2_5_vl", chat=False)


@pytest.fixture(scope="module")
def moca(folder):
    return load_backbone(LoadOptions(str(folder), device="cpu", max_pixels=PIXELS), render=Drawn())


def states_of(backbone, inputs):
    with torch.inference_mode():
        return torch.stack(backbone.model(**inputs, output_hidden_states=True).hidden_states)


@pytest.mark.parametrize("side", ["query", "page"])
def test_a_later_token_changes_every_earlier_state(moca, side):
    (item,) = moca.prepare((QUERIES if side == "query" else PAGES)[:1], side)
    inputs, _ = moca.collate([item])
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][0, -1] += 1
    moved = (states_of(moca, inputs) - states_of(moca, changed)).abs().amax(dim=-1)[:, 0]  # [L, T]
    assert (moved[0, :-1] == 0).all(), "the embeddings of the other tokens are what they were"
    assert (moved[1:] > 0).all(), "every block hands the change to every token"


@pytest.mark.parametrize("padding", ["right", "left"])
def test_padding_and_other_items_of_a_batch_change_nothing(moca, padding):
    for items, side in ((QUERIES, "query"), (PAGES, "page")):
        batch = moca.prepare(items[:4], side)
        inputs, pool_mask = moca.collate(batch, padding)
        assert not inputs["attention_mask"].all(), "some are padded"
        filled = {**inputs, "input_ids": inputs["input_ids"].clone()}
        filled["input_ids"][inputs["attention_mask"] == 0] = 99
        np.testing.assert_array_equal(moca.embed_collated(filled, pool_mask), moca.embed_collated(inputs, pool_mask))
        alone = np.concatenate([moca.embed([item]) for item in batch])
        np.testing.assert_allclose(moca.embed_collated(inputs, pool_mask), alone, rtol=0, atol=1e-5)


def test_it_is_the_library_s_model_with_another_mask_and_says_so(moca, folder):
    """The causal model over the same weights and inputs gives other states behind the first block."""
    causal = AutoModel.from_pretrained(folder).eval()
    inputs, _ = moca.collate(moca.prepare(QUERIES[:1], "query"))
    with torch.inference_mode():
        theirs = torch.stack(causal(**inputs, output_hidden_states=True).hidden_states)
    ours = states_of(moca, inputs)
    torch.testing.assert_close(ours[0], theirs[0])
    # the last token sees the whole input either way: its state after one block is the same
    torch.testing.assert_close(ours[1, 0, -1], theirs[1, 0, -1])
    assert (ours[1, 0, 0] - theirs[1, 0, 0]).abs().max() > 1e-3
    assert moca.key()["attention_mask"] == "bidirectional"


def decoder_of(folder):
    return AutoModel.from_pretrained(folder).eval().language_model


def test_another_inside_of_the_library_is_refused(folder, monkeypatch):
    name = "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl.create_causal_mask"
    stubborn, forgetful = decoder_of(folder), decoder_of(folder)

    monkeypatch.setattr(name, lambda config, **rest: torch.ones(1, 1, 3, 3, dtype=torch.bool).tril())
    with pytest.raises(CheckpointError, match="does not: the first token does not see a later one"):
        look_both_ways(stubborn)
    monkeypatch.setattr(name, lambda config, **rest: None)
    with pytest.raises(CheckpointError, match="does not: a token sees padding"):
        look_both_ways(forgetful)


def test_attention_stays_causal_without_padding_if_the_library_does_not_hand_the_setting_on(folder):
    """Where no token is padding no mask is made, and the attention function goes by what it is handed."""
    decoder = decoder_of(folder)
    forward = type(decoder).forward.__wrapped__
    decoder.forward = lambda **inputs: forward(decoder, **inputs)
    with pytest.raises(CheckpointError, match="does not: the first token does not see a later one"):
        look_both_ways(decoder)


def test_files_that_are_the_base_models_are_asked_for(tmp_path):
    bare = save_qwen(tmp_path / "MoCa-bare", "qwen2_5_vl", chat=False)
    (bare / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"MoCa's authors take them from Qwen/Qwen2\.5-VL-3B-Instruct: copy"):
        load_backbone(LoadOptions(str(bare), device="cpu"))


WEIGHTS, PICTURE = os.environ.get("MINER_DIAG_MOCA", ""), os.environ.get("MINER_DIAG_MOCA_PICTURE", "")


@pytest.mark.skipif(
    not (Path(WEIGHTS).is_dir() and Path(PICTURE).is_file() and WEIGHTS),
    reason="needs MoCa-Qwen25VL-3B: MINER_DIAG_MOCA names its folder (with the base model's tokenizer and processor "
    "files), MINER_DIAG_MOCA_PICTURE the figures/example.jpg of its card",
)
@pytest.mark.parametrize(
    ("page_prompt", "query", "cosine"),
    [
        ("Represent the given image with the following question: What is in the image", "A cat and a dog", 0.4824),
        ("Represent the given image with the following question: What is in the image", "A cat and a tiger", 0.3613),
    ],
)
def test_the_cosines_of_the_model_card(page_prompt, query, cosine):
    """Golden values of huggingface.co/moca-embed/MoCa-Qwen25VL-3B, within what bfloat16 leaves open.

    The picture keeps the size that the authors' processor gives it: a page is drawn as large as the budget.
    """
    picture = Image.open(PICTURE).convert("RGB")
    height, width = smart_resize(picture.height, picture.width, 28, 256 * 28 * 28, 1024 * 28 * 28)
    backbone = load_backbone(
        LoadOptions(WEIGHTS, model_family="moca", page_prompt=page_prompt, max_pixels=height * width),
        render=lambda page_id, longest_side: picture,
    )
    assert backbone.plan(picture.width / picture.height).size == (width, height)
    (text,) = backbone.embed(backbone.prepare([Query("q", query, "given", "d")], "query"))[:, -1]
    (page,) = backbone.embed(backbone.prepare([Page("p", "d", 1, "", "hash")], "page"))[:, -1]
    got = float(text @ page / np.linalg.norm(text) / np.linalg.norm(page))
    assert got == pytest.approx(cosine, abs=0.01)
