import json

import pytest
import torch
from torch import nn
from transformers import AutoModel

from miner_diag.backbones import CheckpointError
from miner_diag.backbones.lora import merge_adapter
from tests.backbones.tiny import save_adapter, save_qwen


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_qwen(tmp_path_factory.mktemp("base") / "base", "qwen2_5_vl")


@pytest.fixture
def model(base):
    return AutoModel.from_pretrained(base)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("part", [None, "default", "retrieval"])
def test_the_weights_are_w_plus_scale_b_a_and_nothing_else_moves(model, tmp_path, part):
    added = save_adapter(tmp_path, model, part=part)
    before = weights(model)
    assert merge_adapter(model, tmp_path, part=part) == len(added) == 8
    for name, value in model.state_dict().items():
        delta = added.get(name.removesuffix(".weight"))
        expected = before[name] if delta is None else before[name] + delta
        torch.testing.assert_close(value, expected)


def test_rank_stabilised_and_patterned_scales(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj, self.down_proj = nn.Linear(6, 5, bias=False), nn.Linear(6, 5, bias=False)

    model = Two()
    added = save_adapter(tmp_path, model, use_rslora=True, alpha_pattern={"down_proj": 12})
    before = weights(model)
    merge_adapter(model, tmp_path)
    # save_adapter adds 6 / 4 B A; rank-stabilised is alpha / sqrt(4), with alpha 12 where the pattern says so
    torch.testing.assert_close(model.q_proj.weight, before["q_proj.weight"] + 2 * added["q_proj"])
    torch.testing.assert_close(model.down_proj.weight, before["down_proj.weight"] + 4 * added["down_proj"])


def test_another_tasks_adapter_is_left_alone(model, tmp_path):
    save_adapter(tmp_path, model, part="code")
    with pytest.raises(CheckpointError, match="lacks a factor of: everything"):
        merge_adapter(model, tmp_path, part="retrieval")


def test_a_foreign_adapter_is_refused_with_its_modules(model, tmp_path):
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj = nn.Linear(3, 3)

    other = nn.ModuleDict({"elsewhere": Other()})
    save_adapter(tmp_path, other)
    with pytest.raises(CheckpointError, match=r"1 adapted modules .* not, or not clearly, in .*elsewhere.q_proj"):
        merge_adapter(model, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "sets use_dora to True, which is more than W"),
        ({"bias": "all"}, "sets bias to 'all'"),
        ({"peft_type": "IA3"}, "adapter of type IA3; supported is LORA"),
    ],
)
def test_more_than_a_plain_adapter_is_refused(model, tmp_path, changes, message):
    save_adapter(tmp_path, model, **changes)
    with pytest.raises(CheckpointError, match=message):
        merge_adapter(model, tmp_path)


def test_missing_files_and_shapes(model, tmp_path):
    with pytest.raises(CheckpointError, match="must hold adapter_config.json and adapter_model.safetensors"):
        merge_adapter(model, tmp_path)
    save_adapter(tmp_path, model)
    model.language_model.layers[0].self_attn.q_proj = nn.Linear(7, 7)
    with pytest.raises(CheckpointError, match=r"changes a weight of shape \(64, 64\); the model's is \(7, 7\)"):
        merge_adapter(model, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 4


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks transformers by an old name
@pytest.mark.parametrize(
    "settings",
    [{}, {"use_rslora": True}, {"alpha_pattern": {"v_proj": 3}, "rank_pattern": {"v_proj": 2}}],
    ids=["plain", "rank-stabilised", "patterns"],
)
def test_merging_is_pefts(base, tmp_path, settings):
    """The adapter library itself saves the adapter and merges it."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"], **settings)
    theirs = peft.get_peft_model(AutoModel.from_pretrained(base), config)
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:  # zero in a fresh adapter
            nn.init.normal_(parameter, std=0.05)
    theirs.save_pretrained(tmp_path)
    ours = AutoModel.from_pretrained(base)
    n_changed = merge_adapter(ours, tmp_path)
    merged = theirs.merge_and_unload()
    expected = merged.state_dict()
    assert set(ours.state_dict()) == set(expected)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)
    before = AutoModel.from_pretrained(base).state_dict()
    assert sum(not torch.equal(value, before[name]) for name, value in ours.state_dict().items()) == n_changed


def test_a_module_that_two_places_could_mean_is_refused(tmp_path):
    """The longest ending decides; where it fits two modules nothing is guessed."""

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj = nn.Linear(6, 5, bias=False)

    save_adapter(tmp_path, nn.ModuleDict({"wrapper": nn.ModuleDict({"text": Half()})}))
    model = nn.ModuleDict({"first": nn.ModuleDict({"text": Half()}), "second": nn.ModuleDict({"text": Half()})})
    with pytest.raises(CheckpointError, match=r"1 adapted modules .* not, or not clearly"):
        merge_adapter(model, tmp_path)
