import json
import logging

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from miner_diag.backbones import UnknownBackboneError, load_backbone
from miner_diag.backbones.hub import fetch, looks_like_hub_id
from miner_diag.backbones.known import known_model
from miner_diag.backbones.options import LoadOptions
from tests.backbones.tiny import Drawn, save_adapter, save_qwen

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A pretend hub that has one checkpoint, and notes what it was asked."""
    asked = []
    folder = save_qwen(tmp_path / "snapshots" / COMMIT, "qwen3_vl")

    def snapshot_download(repo_id, revision=None, **options):
        asked.append((repo_id, revision, options["allow_patterns"]))
        if repo_id not in ("Qwen/Qwen3-VL-Embedding-2B", "Somebody/else"):
            raise LocalEntryNotFoundError("no connection")
        if "*.py" in options["allow_patterns"]:
            (folder / "modeling.py").touch()
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_names():
    assert looks_like_hub_id("Qwen/Qwen3-VL-Embedding-2B")
    assert not any(looks_like_hub_id(name) for name in ("page-text", "./a/b", "/a/b", "a/b/c", "~/a"))


def test_the_pinned_revision_is_fetched_and_named(hub):
    backbone = load_backbone(LoadOptions("Qwen/Qwen3-VL-Embedding-2B", device="cpu"), render=Drawn())
    assert (backbone.name, backbone.family) == ("Qwen3-VL-Embedding-2B", "qwen3_vl")
    assert [ask[:2] for ask in hub] == [("Qwen/Qwen3-VL-Embedding-2B", known_model("Qwen3-VL-Embedding-2B").revision)]
    assert "*.py" not in hub[0][2]


def test_revision_overrules_and_python_files_come_with_the_flag_only(hub, caplog):
    load_backbone(LoadOptions("Qwen/Qwen3-VL-Embedding-2B", device="cpu", revision=COMMIT, trust_remote_code=True))
    assert hub[0][1] == COMMIT and "*.py" in hub[0][2]
    with caplog.at_level(logging.WARNING):
        load_backbone(LoadOptions("Somebody/else", device="cpu"))
    assert f"Somebody/else has no pinned revision; its newest, {COMMIT}, is used" in caplog.text


def test_without_a_hub_the_error_says_how_to_pass_a_folder(hub):
    with pytest.raises(UnknownBackboneError, match=r"hf download a/b --revision x --local-dir FOLDER\), bring FOLDER"):
        fetch("a/b", "x")


def test_an_adapters_base_model_is_asked_for(hub, tmp_path):
    from transformers import AutoModel

    base = save_qwen(tmp_path / "base", "qwen2_5_vl")
    save_adapter(tmp_path / "adapter", AutoModel.from_pretrained(base))
    with pytest.raises(
        UnknownBackboneError, match=r"adapter of Qwen/Qwen2.5-VL-3B-Instruct, which is needed too: .*--base-model"
    ):
        load_backbone(LoadOptions(str(tmp_path / "adapter"), device="cpu"))
    backbone = load_backbone(LoadOptions(str(tmp_path / "adapter"), device="cpu", base_model=str(base)), render=Drawn())
    assert backbone.key()["base_revision"].startswith("sha256:")
    named = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text()) | {"base_model_name_or_path": "x"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(named))
    with pytest.raises(ValueError, match="is an adapter of x, which is no folder here; pass .* with --base-model"):
        load_backbone(LoadOptions(str(tmp_path / "adapter"), device="cpu"))
