import math

import pytest
import torch

from miner_diag.probes import base_probe, projection_probe
from miner_diag.probes.kinds import both_probes


def test_base_by_hand():
    # h = (3, 4) at length one is (0.6, 0.8); gated by (2, 1): (1.2, 0.8), whose length is sqrt(2.08)
    z = base_probe(torch.tensor([2.0, 1.0]), torch.tensor([[3.0, 4.0]]))
    assert z[0].tolist() == pytest.approx([1.2 / math.sqrt(2.08), 0.8 / math.sqrt(2.08)], rel=1e-6)


def test_projection_by_hand():
    # the mean of (1, 2, 6) over neurons is 3: (-2, -1, 3); W keeps the first two: length sqrt(5)
    weight = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0]])
    z = projection_probe(weight, torch.tensor([[1.0, 2.0, 6.0]]))
    assert z[0].tolist() == pytest.approx([-2 / math.sqrt(5), -1 / math.sqrt(5), 0], abs=1e-6)


def test_a_gate_of_ones_is_the_layer_itself_and_scale_of_vectors_means_nothing():
    vectors = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    z = base_probe(torch.ones(8), vectors)
    torch.testing.assert_close(z, vectors / vectors.norm(dim=1, keepdim=True))
    gate, weight = torch.rand(8) + 0.1, torch.randn(8, 8)
    torch.testing.assert_close(both_probes(gate, weight, vectors), both_probes(gate, weight, 100 * vectors))


def test_projection_does_not_see_a_shift_of_all_neurons_and_base_does():
    vectors = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    weight, gate = torch.eye(8), torch.ones(8)
    torch.testing.assert_close(projection_probe(weight, vectors + 3), projection_probe(weight, vectors))
    assert not torch.allclose(base_probe(gate, vectors + 3), base_probe(gate, vectors), atol=1e-2)


def test_layers_at_once_are_layers_one_by_one():
    make = torch.Generator().manual_seed(2)
    vectors, gate = torch.randn(4, 5, 8, generator=make), torch.rand(4, 8, generator=make)
    weight = torch.randn(4, 8, 8, generator=make)
    together = both_probes(gate, weight, vectors)
    for layer in range(4):
        torch.testing.assert_close(together[:, layer], both_probes(gate[layer], weight[layer], vectors[layer]))


def test_a_zero_vector_stays_zero():
    assert not both_probes(torch.ones(4), torch.eye(4), torch.zeros(1, 4)).any()
