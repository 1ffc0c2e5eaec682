"""The state of a training: what is written comes back, and nothing else is taken for it."""

import numpy as np
import pytest
import torch

from miner_diag.training_state import fill_optimizer, keep_state, part_of, take_state


class StateError(ValueError):
    pass


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
    noted, found = take_state(tmp_path / "state", "key", StateError)
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
    assert take_state(tmp_path / "state", "key", StateError) is None
    assert take_state(None, "key", StateError) is None


def test_another_training_and_damage_are_refused(tmp_path):
    path = tmp_path / "state"
    keep_state(path, "key", {}, {"a": torch.ones(2)})
    with pytest.raises(StateError, match="state is the state of another training; delete it, or choose another --out"):
        take_state(path, "another key", StateError)
    whole = path.read_bytes()
    for damage in (b"", b"no state", whole[:-3]):
        path.write_bytes(damage)
        with pytest.raises(StateError, match="state is no state of a training: .*; delete it"):
            take_state(path, "key", StateError)
