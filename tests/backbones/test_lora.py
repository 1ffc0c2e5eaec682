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
        ({"use_qalora": True}, "sets use_qalora to True"),
        ({"alora_invocation_tokens": [1, 2]}, r"sets alora_invocation_tokens to \[1, 2\]"),
        ({"init_lora_weights": "pissa_niter_4"}, "sets init_lora_weights to 'pissa_niter_4', which changes the base"),
        ({"init_lora_weights": "olora"}, "sets init_lora_weights to 'olora', which changes the base"),
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
    [
        {},
        {"use_rslora": True},
        {"alpha_pattern": {"v_proj": 3}, "rank_pattern": {"v_proj": 2}},
        {
            "alpha_pattern": {r"layers\.[01]\..*q_proj": 3, "q_proj": 5},
            "rank_pattern": {"down_proj": 7},
            "use_rslora": True,
        },
    ],
    ids=["plain", "rank-stabilised", "patterns", "patterns of which the first counts"],
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
    ids = torch.arange(12)[None]
    with torch.inference_mode():
        states, theirs_states = (one.eval()(input_ids=ids).last_hidden_state for one in (ours, merged))
        plain = AutoModel.from_pretrained(base).eval()(input_ids=ids).last_hidden_state
    torch.testing.assert_close(states, theirs_states, rtol=0, atol=1e-5)
    assert (states - plain).abs().max() > 1e-3
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


def test_the_longest_ending_decides_where_a_shorter_one_fits_several(tmp_path):
    """A wrapper that was renamed changes nothing; neighbours of the same name are left alone."""

    def half():
        return nn.ModuleDict({"q_proj": nn.Linear(6, 5, bias=False)})

    added = save_adapter(tmp_path, nn.ModuleDict({"wrapper": nn.ModuleDict({"text": half()})}))
    model = nn.ModuleDict({"inner": nn.ModuleDict({"text": half(), "vision": half()})})
    before = weights(model)
    assert merge_adapter(model, tmp_path) == 1
    torch.testing.assert_close(
        model.state_dict()["inner.text.q_proj.weight"],
        before["inner.text.q_proj.weight"] + added["wrapper.text.q_proj"],
    )
    assert torch.equal(model.state_dict()["inner.vision.q_proj.weight"], before["inner.vision.q_proj.weight"])


def test_two_names_that_mean_one_module_are_refused(tmp_path):
    def half():
        return nn.ModuleDict({"q_proj": nn.Linear(6, 5, bias=False)})

    save_adapter(tmp_path, nn.ModuleDict({"first": half(), "second": half()}))
    with pytest.raises(CheckpointError, match=r"first\.q_proj, second\.q_proj of .* all mean text\.q_proj of Module"):
        merge_adapter(nn.ModuleDict({"text": half()}), tmp_path)


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", "orthogonal", None])
def test_starts_that_leave_the_base_model_alone_are_taken(model, tmp_path, start):
    save_adapter(tmp_path, model, init_lora_weights=start)
    assert merge_adapter(model, tmp_path) == 8
