import json
import logging

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import dynamic_module_utils

from miner_diag.backbones import BackboneError, UnknownBackboneError, load_backbone, load_late_backbone
from miner_diag.backbones.hub import fetch, looks_like_hub_id
from miner_diag.backbones.known import known_model
from miner_diag.backbones.options import LoadOptions
from tests.backbones.tiny import Drawn, save_adapter, save_qwen

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A pretend hub that has one checkpoint, and notes what is fetched."""
    fetched = []
    folder = save_qwen(tmp_path / "snapshots" / COMMIT, "qwen3_vl")

    def snapshot_download(repo_id, revision=None, **options):
        fetched.append((repo_id, revision, options["allow_patterns"]))
        if repo_id not in ("Qwen/Qwen3-VL-Embedding-2B", "Somebody/else"):
            raise LocalEntryNotFoundError("no connection")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return fetched


def test_names():
    assert looks_like_hub_id("Qwen/Qwen3-VL-Embedding-2B")
    assert not any(looks_like_hub_id(name) for name in ("page-text", "./a/b", "/a/b", "a/b/c", "~/a"))


@pytest.mark.parametrize("name", ["a/b--c", "a/..b", "ä/b", "-a/b", "a/" + "b" * 200, "a/b\n", "a/b?x=1"])
def test_names_that_no_hub_has(name):
    assert not looks_like_hub_id(name)
    with pytest.raises(UnknownBackboneError, match="is no hub id; expected owner/name"):
        fetch(name, None)


@pytest.mark.parametrize("revision", ["../../etc/passwd", "a//b", "-x", "", "main?x=1", "/tmp/x", "a b", "main\n"])
def test_a_revision_that_leads_elsewhere_is_refused_before_anything_is_fetched(hub, revision):
    with pytest.raises(UnknownBackboneError, match="expected a commit hash, or the name of a branch or tag"):
        fetch("Somebody/else", revision)
    assert hub == []


@pytest.mark.parametrize("revision", [COMMIT, "main", "refs/pr/7", "v1.0"])
def test_a_revision_that_can_be_one_is_fetched(hub, revision):
    fetch("Somebody/else", revision)
    assert [taken[1] for taken in hub] == [revision]


def test_the_pinned_revision_is_fetched_and_named(hub):
    backbone = load_backbone(LoadOptions("Qwen/Qwen3-VL-Embedding-2B", device="cpu"), render=Drawn())
    assert (backbone.name, backbone.family) == ("Qwen3-VL-Embedding-2B", "qwen3_vl")
    pinned = known_model("Qwen3-VL-Embedding-2B").revision
    assert [fetch[:2] for fetch in hub] == [("Qwen/Qwen3-VL-Embedding-2B", pinned)] * 2
    assert hub[0][2] == ["*.json"], "what it is is read before the weights are fetched"
    assert "*.safetensors" in hub[1][2] and "*.py" not in hub[1][2]


def test_revision_overrules_and_python_files_come_with_the_flag_only(hub, monkeypatch, tmp_path):
    folder = tmp_path / "snapshots" / COMMIT
    (folder / "made.py").write_text(
        "from transformers import Qwen3VLModel\n\n\nclass Remote(Qwen3VLModel):\n    pass\n"
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "made.Remote"}}))
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    options = LoadOptions("Qwen/Qwen3-VL-Embedding-2B", device="cpu", revision=COMMIT, trust_remote_code=True)
    backbone = load_backbone(options)
    assert {fetch[1] for fetch in hub} == {COMMIT} and "*.py" in hub[-1][2]
    assert type(backbone.model).__name__ == "Remote" and backbone.key()["remote_code"] == "run"
    plain = load_backbone(LoadOptions("Qwen/Qwen3-VL-Embedding-2B", device="cpu", revision=COMMIT))
    assert type(plain.model).__name__ == "Qwen3VLModel" and "remote_code" not in plain.key()


def test_the_newest_commit_is_taken_with_a_warning_and_for_all_files(hub, caplog):
    with caplog.at_level(logging.WARNING):
        load_backbone(LoadOptions("Somebody/else", device="cpu"))
    assert caplog.text.count(f"Somebody/else has no pinned revision; its newest, {COMMIT}, is used") == 1
    assert [fetch[1] for fetch in hub] == [None, COMMIT]


def test_an_unknown_family_is_told_before_anything_is_fetched(hub):
    with pytest.raises(BackboneError, match="model_family must be one of qwen3_vl, .*, text; got 'nonsense'"):
        load_backbone(LoadOptions("Somebody/else", model_family="nonsense"))
    assert hub == []


@pytest.mark.parametrize("load", [load_backbone, load_late_backbone])
def test_a_model_of_the_other_kind_is_told_before_anything_is_fetched(hub, load):
    model = "vidore/colpali-v1.3-hf" if load is load_backbone else "Qwen/Qwen3-VL-Embedding-2B"
    with pytest.raises(UnknownBackboneError, match="expected (one vector a page|a late-interaction model)"):
        load(model)
    assert hub == []


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
