import json

import pytest

from miner_diag.backbones.__main__ import main
from miner_diag.backbones.known import known_models
from miner_diag.backbones.options import flag_of
from miner_diag.backbones.registry import RETRIEVERS
from miner_diag.backbones.retriever import EVERY


def test_it_lists_what_there_is_and_what_fits(capsys):
    main([])
    listing = capsys.readouterr().out
    for model in known_models():
        assert model.hub_id in listing
    assert "page-text" in listing and "this machine" in listing and "--model-family" in listing
    single, late = listing.split("\nLate interaction", 1)
    assert "vidore/colpali-v1.3-hf" in late and "vidore/colpali" not in single and "none (late" not in single
    assert "vidore/colqwen2-v1.0-hf" in listing.rsplit("Not pinned", 1)[1]


def test_it_lists_the_options_that_each_kind_honours(capsys):
    main([])
    lines = capsys.readouterr().out.split("Options that each kind honours beside --device, --dtype")[1].splitlines()
    listed = {line.split()[0]: set(line.replace(",", "").split()[1:]) for line in lines if line.startswith("  ")}
    assert listed == {kind.name: {flag_of(option) for option in kind.honours - EVERY} for kind in RETRIEVERS}
    assert "--base-model" in listed["biqwen2_5"] and "--base-model" not in listed["qwen3_vl"]


def test_json_lines(capsys):
    main(["--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["hub_id"] for row in rows] == [model.hub_id for model in known_models()]
    honours = {row["hub_id"]: row["honours"] for row in rows}
    assert "max_pixels" in honours["google/siglip2-so400m-patch16-naflex"]
    assert "max_pixels" not in honours["google/siglip-so400m-patch14-384"]
    assert "model_family" not in honours["vidore/colpali-v1.3-hf"]
    assert rows[0]["bf16_gb"] == pytest.approx(rows[0]["parameters"] * 2 / 1e9)
