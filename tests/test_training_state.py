"""The state of a training: what is written comes back, and nothing else is taken for it."""

import logging

import numpy as np
import pytest
import torch

from miner_diag.training_state import fill_optimizer, keep_state, part_of, take_state
from tests.damage import one_bit_flipped


def step(net, optimizer):
    optimizer.zero_grad()
    net(torch.ones(1, 3)).square().sum().backward()
    optimizer.step()


@pytest.fixture
def trained():
    """A net and its optimizer after three steps."""
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    for _ in range(3):
        step(net, optimizer)
    return net, optimizer


def test_a_training_goes_on_from_its_state_with_the_same_numbers(tmp_path, trained):
    net, optimizer = trained
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    keep_state(tmp_path / "state", "key", {"step": 3}, tensors | {"scores": np.arange(4.0)[::2]}, optimizer)
    step(net, optimizer)

    other = torch.nn.Linear(3, 2)
    resumed = torch.optim.AdamW(other.parameters(), lr=0.1)
    noted, found = take_state(tmp_path / "state", "key")
    other.load_state_dict(part_of(found, "net."))
    fill_optimizer(resumed, found)
    step(other, resumed)
    assert noted == {"step": 3} and found["scores"].tolist() == [0.0, 2.0]
    for name, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_moments_matter(trained):
    net, optimizer = trained
    other = torch.nn.Linear(3, 2)
    other.load_state_dict(net.state_dict())
    step(net, optimizer)
    step(other, torch.optim.AdamW(other.parameters(), lr=0.1))
    assert not torch.equal(net.weight, other.weight)


def test_no_file_is_no_state(tmp_path):
    assert take_state(tmp_path / "state", "key") is None
    assert take_state(None, "key") is None


def test_another_training_and_damage_are_put_aside_with_a_sentence(tmp_path, caplog):
    path = tmp_path / "state.safetensors"
    keep_state(path, "key", {}, {"a": torch.ones(2)})
    whole = path.read_bytes()
    assert take_state(path, "another key") is None and not path.exists()
    assert (tmp_path / "state-aside-1.safetensors").read_bytes() == whole
    assert f"{path} is the state of another training; it is put aside as state-aside-1.safetensors" in caplog.text
    for number, damage in enumerate((b"", b"no state", whole[:-3]), start=2):
        path.write_bytes(damage)
        assert take_state(path, "key") is None
        assert (tmp_path / f"state-aside-{number}.safetensors").read_bytes() == damage
        assert f"{path} is damaged (" in caplog.messages[-1] and "the training starts anew" in caplog.messages[-1]


def test_a_flipped_bit_is_never_trained_on(tmp_path, caplog):
    caplog.set_level(logging.CRITICAL)
    path = tmp_path / "state.safetensors"
    tensors = {"a": torch.arange(6.0), "b": torch.ones(2, 3)}
    keep_state(path, "key", {"step": 3, "curve": [0.25, 0.5]}, tensors)
    noted, found = take_state(path, "key")
    for changed in one_bit_flipped(path.read_bytes(), 120):
        path.write_bytes(changed)
        taken = take_state(path, "key")
        if taken is not None:
            assert taken[0] == noted and all(torch.equal(taken[1][name], value) for name, value in found.items())
