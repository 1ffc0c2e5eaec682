"""A state without a direction, a side that there is not, and half a mask never become a vector of length one."""

import numpy as np
import pytest
import torch

from miner_diag.fusion import Fusion, FusionError, apply, encode, merge
from miner_diag.fusion.baselines import LayerMix, MeanOfLast, ResidualHead, SingleProbe
from miner_diag.probes.probe_stack import Probe
from tests.fusion.helpers import retrieval_data

WIDTH, N_LAYERS = 6, 4


def fusion(masks=None, **changed):
    rng = np.random.default_rng(0)
    parts = {
        "maps": [rng.normal(size=(2, WIDTH)), rng.normal(size=(2, WIDTH, WIDTH))],
        "masks": np.ones((2, WIDTH), dtype=bool) if masks is None else masks,
        "layer_weights": np.array([0.4, 1.0]),
        "bias": rng.normal(size=WIDTH),
    }
    return Fusion((1, 3), ["base", "normalized_projection"], **{**parts, **changed}, n_layers=N_LAYERS)


def systems():
    whole = fusion()
    probe = Probe(1, "base", np.ones((2, WIDTH), np.float32))
    rng = np.random.default_rng(1)
    return {
        "fusion": whole,
        "merged": merge(whole),
        "mix": LayerMix(N_LAYERS, "ratio"),
        "mean": MeanOfLast(N_LAYERS, 3),
        "residual": ResidualHead(N_LAYERS, WIDTH, 3, rng),
        "probe": SingleProbe(probe, N_LAYERS),
    }


@pytest.fixture
def states():
    return np.random.default_rng(2).normal(size=(5, N_LAYERS, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("name", systems())
@pytest.mark.parametrize("side", ["Query", "pages", "", None, 0])
def test_an_unknown_side_is_not_read_as_page(name, side, states):
    system = systems()[name]
    with pytest.raises(FusionError, match="side must be 'query' or 'page'; got"):
        apply(system, states, side)
    with pytest.raises(FusionError, match="side must be 'query' or 'page'; got"):
        system(torch.from_numpy(states[:, list(system.layers)]), side)


def test_the_functions_behind_it_know_both_sides_alone(states):
    whole, served = fusion(), merge(fusion())
    chosen = torch.from_numpy(states[:, [1, 3]])
    for call in (
        lambda: whole.forward(chosen, "Query"),
        lambda: served.forward(chosen, "Query"),
        lambda: served.parts[0].add_to(torch.zeros(5, WIDTH), chosen[:, 0], "Query"),
    ):
        with pytest.raises(FusionError, match="got 'Query'"):
            call()


BAD = {
    "nan": (np.nan, "holds NaN or Inf"),
    "inf": (np.inf, "holds NaN or Inf"),
    "zero": (0.0, "is zero"),
    "long": (1e25, "has the length .*e.25, which float32 cannot bring to one"),
    "short": (1e-25, "has the length .*e-25, which float32 cannot bring to one"),
}


@pytest.mark.parametrize("name", systems())
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("form", ["array", "tensor"])
def test_a_state_without_a_direction_is_named(name, bad, form, states):
    """Before: the bias at length one, or a row of NaN."""
    system, (value, message) = systems()[name], BAD[bad]
    layer = system.layers[-1]
    states[2, layer] = value if bad == "zero" else value * states[2, layer]
    given = states if form == "array" else torch.from_numpy(states)
    with pytest.raises(FusionError, match=rf"layer_embeddings: item 2 {message}.* at layer {layer}, so it has no"):
        apply(system, given)


def test_layers_that_a_system_does_not_read_may_be_anything(states):
    wanted = apply(fusion(), states)
    states[:, [0, 2]] = np.nan
    np.testing.assert_array_equal(apply(fusion(), states), wanted)


def test_encode_names_side_and_row(states):
    pages = states.copy()
    pages[3, 3] = 0
    with pytest.raises(FusionError, match="page 3 is zero at layer 3"):
        encode(fusion(), retrieval_data(states, pages))
    with pytest.raises(FusionError, match="query 3 is zero at layer 3"):
        encode(fusion(), retrieval_data(pages, states))


@pytest.mark.parametrize(
    "made",
    [
        lambda states: np.ma.masked_array(states, mask=states > 2),
        lambda states: states + 1j,
        lambda states: states.astype(str),
        lambda states: states > 0,
        lambda states: torch.from_numpy(states) > 0,
        lambda states: torch.from_numpy(states + 1j),
    ],
)
def test_states_are_real_numbers(made, states):
    with pytest.raises(FusionError, match="layer_embeddings"):
        apply(fusion(), made(states))


@pytest.mark.parametrize("number", [0.5, 2.0, -1.0, np.nan, 1 + 1e-7])
def test_a_neuron_is_kept_or_it_is_not(number):
    """A fraction was multiplied in by the fusion and taken for 1 by its merged form."""
    masks = np.ones((2, WIDTH))
    masks[0, 1] = number
    with pytest.raises(FusionError, match=r"masks must be \[K, D\], true and false or exactly 1 and 0"):
        fusion(masks)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32, np.float64])
def test_masks_of_any_dtype_are_the_same_masks(dtype, states):
    masks = np.ones((2, WIDTH), dtype=bool)
    masks[0, 2:] = False
    wanted = apply(fusion(masks), states)
    np.testing.assert_array_equal(apply(fusion(masks.astype(dtype)), states), wanted)
    np.testing.assert_allclose(apply(merge(fusion(masks.astype(dtype))), states), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bias": np.full(WIDTH, np.nan)}, "bias holds nan"),
        ({"bias": np.ones(WIDTH) * 1j}, "bias must be an array of real numbers; got dtype complex128"),
        ({"layer_weights": np.array([np.inf, 1])}, "layer_weights holds inf"),
        ({"layer_weights": np.array(["1", "1"])}, "layer_weights must be an array of real numbers"),
        ({"maps": [np.ones((1, WIDTH)), np.full((1, WIDTH, WIDTH), np.nan)]}, r"maps\[1\] holds nan"),
        ({"query_map": np.full((2, WIDTH), np.nan)}, "query_map holds nan"),
        ({"masks": np.ma.masked_array(np.ones((2, WIDTH)), mask=np.eye(2, WIDTH))}, "masks is a masked array"),
        ({"masks": np.ones(WIDTH)}, r"masks must be \[K, D\].*got shape \[6\]"),
    ],
)
def test_parts_are_finite_real_numbers(changed, message):
    with pytest.raises(FusionError, match=message):
        fusion(**changed)


def test_a_probe_refuses_states_that_are_no_numbers(states):
    probe = Probe(0, "base", np.ones((1, WIDTH), np.float32))
    for bad in (states[:, 0] * np.nan, states[:, 0] + 1j, np.ma.masked_array(states[:, 0], mask=states[:, 0] > 0)):
        with pytest.raises(ValueError, match="vectors"):
            probe.apply(bad)
