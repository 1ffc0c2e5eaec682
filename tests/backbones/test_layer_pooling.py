"""Retrievers that read one token keep their inner layers under two poolings, from one forward."""

import numpy as np
import pytest
from PIL import Image

from miner_diag.backbones import CheckpointError, load_backbone
from miner_diag.backbones.base import KeptLayers
from miner_diag.backbones.options import LoadOptions
from tests.backbones.helpers import text_encoder
from tests.backbones.tiny import save_qwen

L = 4
"""The hidden states of the tiny checkpoints."""

READOUT = KeptLayers(2 * L - 1, (0, 1, 2, 3))
MEAN = KeptLayers(2 * L - 1, (4, 5, 6, 3))


@pytest.fixture(params=["tiny_bert cls", "tiny_bert last", "tiny_decoder last", "tiny_decoder cls"])
def loaded(request):
    """Return what loads a tiny checkpoint with some options, pooled at one token unless they say otherwise."""
    checkpoint, pooling = request.param.split()
    folder = request.getfixturevalue(checkpoint)
    return lambda **options: text_encoder(folder, **{"pooling": pooling, **options})


@pytest.mark.parametrize("long_pages", ["truncate", "windows"])
def test_inner_layers_are_those_of_mean_pooling_and_the_final_one_is_read(loaded, long_pages, queries):
    readout, mean = (loaded(long_pages=long_pages, layer_pooling=each) for each in ("readout", "mean"))
    assert (readout.kept("query"), mean.kept("page")) == (READOUT, MEAN)
    means = loaded(long_pages=long_pages, pooling="mean")
    batch = readout.prepare(queries, "query")
    both = readout.embed_kept(batch)
    np.testing.assert_array_equal(both, mean.embed_kept(batch))
    np.testing.assert_array_equal(readout.embed(batch), both[:, :L])
    np.testing.assert_array_equal(mean.embed(batch)[:, -1], both[:, L - 1])
    np.testing.assert_array_equal(mean.embed(batch)[:, -1], mean.plain_forward(batch))
    np.testing.assert_allclose(mean.embed(batch)[:, :-1], means.embed(batch)[:, :-1], rtol=0, atol=1e-6)
    assert np.abs(mean.embed(batch)[:, :-1] - readout.embed(batch)[:, :-1]).max() > 0.01


def test_readout_is_used_if_nothing_is_said(loaded):
    plain, readout, mean = loaded(), loaded(layer_pooling="readout"), loaded(layer_pooling="mean")
    assert plain.key() == readout.key() and plain.kept("query") == READOUT
    assert {name for name in mean.key() if mean.key()[name] != readout.key()[name]} == {"layer_pooling"}


def test_under_mean_pooling_there_is_one_way(loaded, queries):
    means = loaded(pooling="mean")
    assert means.kept("page") == KeptLayers(L, (0, 1, 2, 3)) and "layer_pooling" not in means.key()
    batch = means.prepare(queries, "query")
    np.testing.assert_array_equal(means.embed_kept(batch), means.embed(batch))


def test_a_vision_language_model_has_both_too(tmp_path, pages):
    folder = save_qwen(tmp_path / "tiny", "qwen3_vl")

    def load(**options):
        return load_backbone(
            LoadOptions(str(folder), max_pixels=64 * 1024, **options),
            render=lambda _, side: Image.new("RGB", (side, side)),
            progress=False,
        )

    readout, mean, means = load(), load(layer_pooling="mean"), load(pooling="mean")
    batch = readout.prepare(pages[:2], "page")
    n_layers = readout.n_layers + 1
    assert mean.embed_kept(batch).shape[1] == mean.kept("page").count == 2 * n_layers - 1
    np.testing.assert_allclose(mean.embed(batch)[:, :-1], means.embed(batch)[:, :-1], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(mean.embed(batch)[:, -1], readout.embed(batch)[:, -1])


def test_a_checkpoint_that_states_no_pooling_asks_for_it_first(tiny_bert):
    with pytest.raises(CheckpointError, match="say it with --pooling"):
        load_backbone(LoadOptions(str(tiny_bert), layer_pooling="mean"))
