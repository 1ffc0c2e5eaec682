import json

import pytest

from miner_diag.backbones.__main__ import main
from miner_diag.backbones.known import known_models


def test_it_lists_what_there_is_and_what_fits(capsys):
    main([])
    told = capsys.readouterr().out
    for model in known_models():
        assert model.hub_id in told
    assert "page-text" in told and "this machine" in told and "--model-family" in told
    single, late = told.split("\nLate interaction", 1)
    assert "vidore/colpali-v1.3-hf" in late and "vidore/colpali" not in single and "none (late" not in single
    assert "vidore/colqwen2-v1.0-hf" in told.rsplit("Not pinned", 1)[1]


def test_json_lines(capsys):
    main(["--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["hub_id"] for row in rows] == [model.hub_id for model in known_models()]
    assert rows[0]["bf16_gb"] == pytest.approx(rows[0]["parameters"] * 2 / 1e9)
