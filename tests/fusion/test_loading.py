"""The fusion that a run hands out comes back in its own form, and is merged in its own way."""

import json

import numpy as np
import pytest

from miner_diag.fusion import (
    Fusion,
    FusionError,
    MergedFusion,
    MergedMiner,
    MinerFusion,
    apply,
    build_miner,
    load_fusion,
    merge_for_serving,
)
from miner_diag.sealed import sealed
from tests.fusion.helpers import make_miner

KEY = {"backbone": "planted"}


def of_both_forms():
    parts = make_miner((0, 1, 3, 4))
    return build_miner(parts), Fusion.identity(len(parts.choice.kinds), parts.width)


@pytest.mark.parametrize("number", [0, 1])
def test_either_form_comes_back_and_is_merged(tmp_path, rng, number):
    fusion = of_both_forms()[number]
    fusion.save(tmp_path, KEY)
    again, merged = load_fusion(tmp_path, KEY), merge_for_serving(fusion)
    assert type(again) is type(fusion) is (MinerFusion, Fusion)[number]
    assert type(merged) is (MergedMiner, MergedFusion)[number]
    states = rng.normal(size=(9, fusion.n_layers, fusion.width)).astype(np.float32)
    np.testing.assert_array_equal(apply(again, states), apply(fusion, states))
    np.testing.assert_allclose(apply(merged, states), apply(fusion, states), atol=1e-6)


def test_what_cannot_be_read_is_said_by_the_reader_of_the_file(tmp_path):
    with pytest.raises(FusionError, match=r"fusion.json is not there; fit a fusion"):
        load_fusion(tmp_path)
    of_both_forms()[0].save(tmp_path, KEY)
    with pytest.raises(FusionError, match="of another backbone"):
        load_fusion(tmp_path, {"backbone": "other"})
    (tmp_path / "fusion.json").write_text("{")
    with pytest.raises(FusionError, match="damaged"):
        load_fusion(tmp_path)


def test_an_unknown_form_is_named(tmp_path):
    of_both_forms()[0].save(tmp_path, KEY)
    path = tmp_path / "fusion.json"
    path.write_text(json.dumps(sealed(json.loads(path.read_text()) | {"form": "later"})))
    with pytest.raises(FusionError, match="unknown form 'later'; it was written by a later version"):
        load_fusion(tmp_path)
