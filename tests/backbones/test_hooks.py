import weakref

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    LlamaConfig,
    ModernBertConfig,
    MPNetConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    XLMRobertaConfig,
)

from miner_diag.backbones.base import POOLINGS, CheckpointError
from miner_diag.backbones.hooks import find_blocks, passes_final_norm, pooled_forward, pooled_layers
from miner_diag.backbones.pooling import Pooler, pool

SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}
DECODER = {**SMALL, "num_key_value_heads": 2}
CONFIGS = {
    "bert": BertConfig(**SMALL),
    "roberta": RobertaConfig(**SMALL),
    "xlm-roberta": XLMRobertaConfig(**SMALL),
    "mpnet": MPNetConfig(**SMALL),
    "distilbert": DistilBertConfig(
        vocab_size=60, dim=32, n_layers=3, n_heads=4, hidden_dim=40, max_position_embeddings=40, pad_token_id=1
    ),
    "modernbert": ModernBertConfig(
        **SMALL, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3, attn_implementation="sdpa"
    ),
    "electra": ElectraConfig(**SMALL, embedding_size=16),
    "qwen2": Qwen2Config(**DECODER),
    "qwen3": Qwen3Config(**DECODER, head_dim=8),
    "llama": LlamaConfig(**DECODER),
}
NORM_BEHIND_BLOCKS = {"modernbert", "qwen2", "qwen3", "llama"}


def model_of(name):
    torch.manual_seed(1)
    return AutoModel.from_config(CONFIGS[name]).eval()


def batch():
    """Two items of 9 and 5 tokens, padded on the right."""
    torch.manual_seed(2)
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 5:] = 0
    ids = torch.randint(4, 60, (2, 9)) * mask + (1 - mask)
    return {"input_ids": ids, "attention_mask": mask}


def hooks_on(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def all_layers(model, inputs, pooling):
    pooler = Pooler(inputs["attention_mask"], pooling)
    with torch.inference_mode(), pooled_layers(find_blocks(model, 3), pooler) as layers:
        last = pooler(model(**inputs).last_hidden_state)
    return [*layers, last]


@pytest.mark.parametrize("name", CONFIGS)
def test_hooks_equal_output_hidden_states_pooled_by_hand(name):
    model, inputs = model_of(name), batch()
    layers = {pooling: all_layers(model, inputs, pooling) for pooling in POOLINGS}
    with torch.inference_mode():
        states = model(**inputs, output_hidden_states=True).hidden_states
    assert len(states) == 4
    for pooling, found in layers.items():
        assert len(found) == 4
        for layer, vectors in enumerate(found):
            expected = pool(states[layer], inputs["attention_mask"], pooling)
            torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5, msg=f"{pooling}, layer {layer}")


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_does_not_change_a_vector(name):
    """One item alone equals the same item padded, on every layer."""
    model, inputs = model_of(name), batch()
    alone = {key: value[1:, :5] for key, value in inputs.items()}
    for together, single in zip(all_layers(model, inputs, "mean"), all_layers(model, alone, "mean"), strict=True):
        torch.testing.assert_close(together[1:], single, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["roberta", "mpnet", "qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_left_and_right_padding_agree(name, pooling):
    """For models whose positions do not count the padding."""
    model, right = model_of(name), batch()
    left = {key: value.clone() for key, value in right.items()}
    for value in left.values():
        value[1] = value[1].roll(4)
    for one, other in zip(all_layers(model, right, pooling), all_layers(model, left, pooling), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_final_norm_is_noticed(name):
    model = model_of(name)
    assert passes_final_norm(model, find_blocks(model, 3), batch()) == (name in NORM_BEHIND_BLOCKS)


def test_hooks_are_removed_also_after_an_exception():
    model, inputs = model_of("bert"), batch()
    assert hooks_on(model) == 0
    all_layers(model, inputs, "mean")
    assert hooks_on(model) == 0

    def stop(_states):
        raise RuntimeError("in the middle of the forward")

    with pytest.raises(RuntimeError, match="in the middle"), pooled_layers(find_blocks(model, 3), stop):
        assert hooks_on(model) == 3
        model(**inputs)
    assert hooks_on(model) == 0


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("chosen", [[0], [1], [2, 0], [1, 1, 3], [3]])
def test_chosen_layers_are_those_of_the_whole_forward_bit_for_bit(name, chosen):
    model, inputs = model_of(name), batch()
    blocks, pooler = find_blocks(model, 3), Pooler(inputs["attention_mask"], "mean")

    def forward():
        return model(**inputs).last_hidden_state

    ran = []
    for number, block in enumerate(blocks, start=1):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    found = pooled_forward(forward, blocks, pooler, name, chosen=chosen)
    assert ran == list(range(1, max(chosen) + 1))
    np.testing.assert_array_equal(found, pooled_forward(forward, blocks, pooler, name)[:, chosen])


@pytest.mark.parametrize("chosen", [[], [4], [-1, 2]])
def test_layers_that_there_are_not_are_refused(chosen):
    model, inputs = model_of("bert"), batch()
    pooler = Pooler(inputs["attention_mask"], "mean")
    with pytest.raises(ValueError, match="chosen must name layers of it, 0 to 3; got"):
        pooled_forward(lambda: model(**inputs).last_hidden_state, find_blocks(model, 3), pooler, "it", chosen=chosen)


def test_token_states_of_earlier_layers_are_freed_during_the_forward():
    model, inputs = AutoModel.from_config(BertConfig(**{**SMALL, "num_hidden_layers": 8})).eval(), batch()
    pooler = Pooler(inputs["attention_mask"], "last")
    alive, most = [], []

    def watching(states):
        alive.append(weakref.ref(states))
        most.append(sum(state() is not None for state in alive))
        return pooler(states)

    with torch.inference_mode(), pooled_layers(find_blocks(model, 8), watching):
        model(**inputs)
    assert len(most) == 8
    assert max(most) <= 3  # the embedding output, which the model itself keeps, and a block's input and output


def test_a_model_whose_blocks_are_shared_is_refused():
    torch.manual_seed(0)
    small = {**SMALL, "embedding_size": 16}
    with pytest.raises(CheckpointError, match="AlbertModel has no list of 3 transformer blocks"):
        find_blocks(AutoModel.from_config(AlbertConfig(**small)), 3)


def test_two_lists_equally_far_out_are_refused():
    model = nn.Module()
    model.left = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    model.right = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    with pytest.raises(CheckpointError, match="several lists of 2 blocks: left, right"):
        find_blocks(model, 2)


class Odd(nn.Module):
    """Calls its blocks in the wrong order."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

    def forward(self, states):
        return self.blocks[0](self.blocks[1](states))


def test_a_model_without_last_hidden_state_or_order_is_refused():
    model = Odd()
    with pytest.raises(CheckpointError, match="Odd returns no last_hidden_state"):
        passes_final_norm(model, model.blocks, {"states": torch.zeros(1, 3, 2)})
    model.forward = lambda states: type("Out", (), {"last_hidden_state": Odd.forward(model, states)})()
    with pytest.raises(CheckpointError, match=r"calls its blocks as \[2, 1\]; expected each once, in order"):
        passes_final_norm(model, model.blocks, {"states": torch.zeros(1, 3, 2)})


def test_states_that_are_not_tokens_by_width_are_refused():
    model = Odd()
    pooler = Pooler(torch.ones(1, 3), "mean")
    with pytest.raises(CheckpointError, match=r"layer 0 must be a tensor \[B, T, D\]; got shape \(3, 2\)"):
        with pooled_layers(model.blocks, pooler):
            model(torch.zeros(3, 2))
