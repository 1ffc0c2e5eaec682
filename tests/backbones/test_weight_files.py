"""Checkpoints as downloads leave them: pointers, empty and cut files, odd settings; a sentence for each."""

from __future__ import annotations

import json
import re

import pytest
import torch

from miner_diag.backbones import BackboneError, CheckpointError, LoadOptions
from miner_diag.backbones.checkpoint import Checkpoint
from miner_diag.backbones.loading import load_model, load_tokenizer
from miner_diag.backbones.text_encoder import TextEncoder
from miner_diag.backbones.weight_files import check_safetensors, check_weight_files

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 90868376\n"
CPU = {"dtype": torch.float32, "device": torch.device("cpu")}


def load(folder):
    return TextEncoder(Checkpoint(folder, "tiny", LoadOptions(device="cpu", pooling="mean")))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(("content", "reason"), [(POINTER, "is a Git-LFS pointer.*git lfs pull"), (b"", "is empty")])
def test_pointers_and_empty_files_are_named(copy_of, tiny_bert, name, content, reason):
    folder = copy_of(tiny_bert)
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{re.escape(name)} {reason}"):
        load(folder)


def test_a_pointer_that_nothing_is_loaded_from_is_left_alone(copy_of, tiny_bert):
    folder = copy_of(tiny_bert)
    (folder / "pytorch_model.bin").write_bytes(POINTER)
    (folder / "tf_model.h5").write_bytes(POINTER)
    check_weight_files(folder)
    assert load(folder).n_layers == 3


@pytest.mark.parametrize("kept", [1, 7, 8, 100, 0.5, -1])
def test_weights_that_are_cut_short_are_named(copy_of, tiny_bert, kept):
    folder = copy_of(tiny_bert)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors has .*(cut short|damaged)"):
        load_model(folder, **CPU)


@pytest.mark.parametrize(
    "content",
    [
        b"\0" * 4096,
        b"<html>Not found</html>" * 50,
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": {}}',
        (2000).to_bytes(8, "little") + b"[" * 2000,
        (2).to_bytes(8, "little") + b"{}" + b"more than the header says",
    ],
)
def test_damaged_weights_are_sentences(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors has .*download it again"):
        check_safetensors(tmp_path / "model.safetensors")


@pytest.mark.parametrize("content", [b"\x80\x02}q\x00", b"PK\x03\x04 cut", b"no weights at all"])
def test_damaged_pickled_weights_are_sentences(copy_of, tiny_bert, content):
    folder = copy_of(tiny_bert)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_model(folder, **CPU)


@pytest.mark.parametrize("content", [b'{"version": "1.0", "model"', b"{}", b"[" * 100_000])
def test_a_damaged_tokenizer_is_a_sentence(copy_of, tiny_bert, content):
    folder = copy_of(tiny_bert)
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="no tokenizer can be loaded from"):
        load_tokenizer(folder)


@pytest.mark.parametrize("value", [0, -5, "many", 10**12, 1.5, True, [48], 10**400])
def test_odd_positions_are_sentences(copy_of, tiny_bert, tiny_decoder, value):
    for source in (tiny_bert, tiny_decoder):
        folder = copy_of(source)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": value}))
        with pytest.raises(BackboneError, match=r"cannot be loaded|do not fill|max_position_embeddings"):
            load(folder)


def test_dot_behind_normalize_is_the_cosine(copy_of, tiny_bert, pipeline_of):
    folder = pipeline_of(
        copy_of(tiny_bert),
        {"pooling_mode_mean_tokens": True},
        prompts={"similarity_fn_name": "dot", "truncate_dim": 32},
    )
    assert load(folder).pooling == "mean"
