"""Faults that users meet with checkpoints that look at pages, and what the families do with their own files."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, Idefics3ImageProcessorPil, Idefics3Processor

from miner_diag.backbones import BackboneError, CheckpointError, load_backbone
from miner_diag.backbones.options import LoadOptions
from tests.backbones.tiny import PAGES, QUERIES, SIZES, Drawn, save_adapter, save_modernvbert, save_nemotron, save_qwen


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory):
    return save_qwen(tmp_path_factory.mktemp("checkpoints") / "tiny-qwen3-vl", "qwen3_vl")


@pytest.fixture
def copied(qwen3, tmp_path):
    return shutil.copytree(qwen3, tmp_path / "copied")


def load(folder, **options):
    render = options.pop("render", Drawn())
    if options.get("model_family") != "text":
        options.setdefault("max_pixels", 64 * 1024)
    return load_backbone(LoadOptions(str(folder), device="cpu", **options), render=render)


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_missing_and_unexpected_weights_are_refused_and_listed(copied):
    def spoil(weights):
        gone = next(name for name in weights if name.endswith("layers.2.mlp.down_proj.weight"))
        weights["model.surplus.weight"] = weights.pop(gone)

    change_weights(copied, spoil)
    with pytest.raises(
        CheckpointError, match=r"1 missing from the file .*layers.2.mlp.down_proj.weight; 1 in the file .*surplus"
    ):
        load(copied)


def test_a_head_for_another_task_is_harmless(copied):
    change_weights(copied, lambda weights: weights.update({"lm_head.weight": torch.zeros(3, 3)}))
    load(copied)


def test_files_that_are_not_there(copied):
    (copied / "preprocessor_config.json").unlink()
    with pytest.raises(
        CheckpointError, match="holds no preprocessor_config.json, so it is not known how pictures enter"
    ):
        load(copied)


def test_nothing_draws_the_pages(qwen3):
    backbone = load(qwen3, render=None)
    assert backbone.prepare(QUERIES[:1], "query")
    with pytest.raises(BackboneError, match=r"page p0 must be looked at, but nothing draws it; .*render=corpus.render"):
        backbone.prepare(PAGES, "page")


def test_options_out_of_range(qwen3):
    with pytest.raises(BackboneError, match="max_pixels must be at least 4096 for qwen3_vl; got 5"):
        load(qwen3, max_pixels=5)
    with pytest.raises(BackboneError, match=r"max_tokens must be at least \d+ for this template; got 7"):
        load(qwen3, max_tokens=7).prepare(QUERIES[5:6], "query")
    with pytest.raises(BackboneError, match="pooling must be one of last, mean, cls; got 'max'"):
        load(qwen3, pooling="max")
    with pytest.raises(BackboneError, match="model_family must be one of qwen3_vl"):
        load(qwen3, model_family="qwen4")


def test_bfloat16_on_a_cpu_is_honoured_with_a_warning(qwen3, caplog):
    assert load(qwen3, dtype="bfloat16").dtype == torch.bfloat16
    assert "tiny-qwen3-vl runs in bfloat16 on a CPU: its numbers are coarse" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_runs_bfloat16_by_default_and_gives_the_cpus_vectors(qwen3):
    small = load(qwen3)
    large = load_backbone(LoadOptions(str(qwen3), device="cuda", max_pixels=64 * 1024), render=Drawn())
    assert large.dtype == torch.bfloat16
    vectors = large.embed(large.prepare(PAGES, "page"))
    assert vectors.dtype == np.float32
    expected = small.embed(small.prepare(PAGES, "page"))
    cosine = (vectors * expected).sum(-1) / np.linalg.norm(vectors, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert cosine.min() > 0.99


def test_prompts_and_poolings_are_overruled(qwen3, caplog):
    backbone = load(qwen3, query_prompt="Find the page", page_prompt="A page!", pooling="mean")
    assert "--pooling mean overrules it" in caplog.text
    read = backbone.tokenizer.decode
    assert "system\nFind the page.<|im_end|>" in read(backbone.prepare(QUERIES[:1], "query")[0].inputs["input_ids"])
    assert "system\nA page!<|im_end|>" in read(backbone.prepare(PAGES[:1], "page")[0].inputs["input_ids"])


def test_an_empty_query_of_qwen3_is_null_and_its_own_template_is_the_official_one(qwen3, tmp_path):
    bare = save_qwen(tmp_path / "bare", "qwen3_vl", chat=False)
    with_chat, without = load(qwen3), load(bare)
    assert with_chat._templates == without._templates
    assert "user\nNULL<|im_end|>" in without.tokenizer.decode(
        without.prepare(QUERIES[1:2], "query")[0].inputs["input_ids"]
    )


def test_an_adapter_is_the_base_model_with_its_weights_changed(tmp_path):
    base = save_qwen(tmp_path / "base", "qwen2_5_vl")
    model = AutoModel.from_pretrained(base)
    added = save_adapter(tmp_path / "adapter", model)
    backbone = load(tmp_path / "adapter", base_model=str(base))
    for name, delta in added.items():
        expected = model.get_submodule(name).weight + delta
        torch.testing.assert_close(backbone.model.get_submodule(name).weight, expected)
    plain = load(base, model_family="biqwen2_5")
    batch = plain.prepare(PAGES[:2], "page")
    assert np.abs(plain.embed(batch) - backbone.embed(batch))[:, 1:].max() > 1e-3


def test_jinas_pages_are_pooled_over_the_picture_alone(tmp_path):
    folder = save_qwen(tmp_path / "jina-embeddings-v4-tiny", "qwen2_5_vl")
    backbone = load(folder)
    assert backbone.extra_key() == {"adapter": "merged in the file"}
    (item,) = backbone.prepare(PAGES[:1], "page")
    mask = backbone.collate([item])[1][0].numpy().astype(bool)
    pooled = backbone.tokenizer.decode(item.inputs["input_ids"][mask])
    assert pooled.startswith("<|vision_start|>") and pooled.endswith("<|vision_end|>")
    assert backbone.collate(backbone.prepare(QUERIES[:1], "query"))[1].all()


def test_modernvbert_sees_what_its_own_processor_shows(tmp_path):
    """Tokens and tiles equal those of the library's Idefics3Processor, which the authors use."""
    folder = save_modernvbert(tmp_path / "tiny")
    backbone = load(folder)
    images = Idefics3ImageProcessorPil.from_pretrained(folder)
    processor = Idefics3Processor(images, backbone.tokenizer, image_seq_len=backbone.model.image_seq_len)
    text = "<|begin_of_text|>User:<image>Describe the image.<end_of_utterance>\nAssistant:"
    for page, item in zip(PAGES, backbone.prepare(PAGES, "page"), strict=True):
        size = backbone.plan(backbone.pictures.proportion(page.page_id)).size
        made = processor(text=[text], images=[[backbone.pictures.draw(page.page_id, size)]], return_tensors="np")
        np.testing.assert_array_equal(item.inputs["input_ids"], made["input_ids"][0])
        np.testing.assert_allclose(item.pixels()["pixel_values"], made["pixel_values"][0], atol=1e-6)


@pytest.mark.parametrize("size", [*SIZES, (64, 64), (64, 1), (63, 64), (48, 33)])
def test_modernvberts_tiling_is_what_is_cut(tmp_path_factory, size):
    folder = tmp_path_factory.getbasetemp() / "modernvbert-tiling"
    backbone = load(folder if folder.exists() else save_modernvbert(folder, longest=96))
    from PIL import Image

    processor = backbone.image_processor
    made = processor(images=[[Image.new("RGB", size)]], return_row_col_info=True, return_tensors="np")
    assert backbone.tiling(size) == (made["rows"][0][0], made["cols"][0][0])


@pytest.mark.parametrize(("save", "largest"), [(save_modernvbert, 64**2), (save_nemotron, 4 * 32**2)])
def test_a_budget_above_what_the_processor_takes_is_warned_of(tmp_path, caplog, save, largest):
    folder = save(tmp_path / "tiny")
    load(folder, max_pixels=largest)
    assert "--max-pixels" not in caplog.text
    load(folder, max_pixels=largest + 1)
    assert f"--max-pixels {largest + 1} is above the {largest} pixels that the image processor of tiny" in caplog.text


def test_nemotron_folds_patches_as_its_own_code_does(tmp_path):
    backbone = load(save_nemotron(tmp_path / "tiny"))
    model = backbone.model
    tiles = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        states = model.vision_model(tiles).last_hidden_state
        n, patches, width = states.shape
        side = int(patches**0.5)
        # the checkpoint's pixel_shuffle, scale 0.5, step by step
        x = states.reshape(n, side, side, width)
        x = x.view(n, side, side // 2, width * 2).permute(0, 2, 1, 3).contiguous()
        x = x.view(n, side // 2, side // 2, width * 4).permute(0, 2, 1, 3).contiguous()
        expected = model.mlp1(x.reshape(n, -1, width * 4))
        torch.testing.assert_close(model.see(tiles), expected)
    assert model.language_model.config.is_causal is False
    assert backbone.image_processor.most == 4


def test_nemotrons_language_model_looks_both_ways(tmp_path):
    backbone = load(save_nemotron(tmp_path / "tiny"))
    one, other = backbone.prepare(QUERIES[:1], "query") * 2
    inputs, _ = backbone.collate([one, other])
    changed = inputs["input_ids"].clone()
    changed[1, -1] += 1
    with torch.inference_mode():
        states = backbone.forward({**inputs, "input_ids": changed})
    assert (states[0, 0] - states[1, 0]).abs().max() > 1e-4, "the first token sees the last"


def test_remote_code_runs_on_the_flag_only(copied):
    config = json.loads((copied / "config.json").read_text())
    config |= {"model_type": "something_new", "auto_map": {"AutoConfig": "made.Config", "AutoModel": "made.Model"}}
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "made.py").write_text("raise SystemExit('remote code ran')")
    with pytest.raises(CheckpointError, match="--trust-remote-code runs that code with your rights, so read the .py"):
        load(copied, model_family="qwen3_vl")
    with pytest.raises(CheckpointError, match="--trust-remote-code runs that code with your rights"):
        load(copied, pooling="mean", max_pixels=None)
