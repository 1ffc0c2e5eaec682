"""Two towers of different depth and width: each by itself, and never layer l of one with layer l of the other."""

import json

import numpy as np
import pandas as pd
import pytest

from miner_diag.cka import linear_cka
from miner_diag.cka.__main__ import main
from miner_diag.cka.dual_encoder import diagnose_dual_encoder
from miner_diag.cka.dual_encoder_table import (
    COLUMNS,
    dual_encoder_layer_table,
    dual_encoder_records,
    dual_encoder_sentences,
)
from miner_diag.records import read_records
from tests.backbones.tiny import save_two_towers


@pytest.fixture(scope="module")
def towers(planted_towers):
    queries, pages, gold, ids = planted_towers
    return diagnose_dual_encoder(queries, pages, gold, **ids, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def planted_towers(planted):
    """The planted layers, four for the queries and five, padded with zeros, for the pages."""
    asked = [planted.layer[name] for name in ("noise", "rotated", "copy", "final")]
    shown = [planted.layer[name] for name in ("constant", "noise", "rotated_apart", "copy", "final")]
    pages = np.pad(planted.pages[:, shown], ((0, 0), (0, 0), (0, 8)))
    return planted.queries[:, asked], pages, planted.gold, planted.ids


def test_each_tower_is_compared_with_its_own_last_layer(towers, planted_towers):
    queries, pages, *_ = planted_towers
    assert [layer.layer for layer in towers.of("query")] == [0, 1, 2, 3]
    assert [layer.layer for layer in towers.of("page")] == [0, 1, 2, 3, 4]
    for layer in towers.of("query"):
        expected = linear_cka(queries[:, layer.layer], queries[:, -1])
        assert layer.to_final.cka.value == pytest.approx(expected, abs=1e-6)
    for layer in towers.of("page")[1:]:
        expected = linear_cka(pages[:, layer.layer], pages[:, -1])
        assert layer.to_final.cka.value == pytest.approx(expected, abs=1e-6)
    noise, rotated, copy, final = towers.of("query")
    assert not noise.above_null and rotated.above_null
    assert (rotated.probe_kind, copy.probe_kind, final.probe_kind) == ("normalized_projection", "base", "base")
    constant = towers.of("page")[0]
    assert constant.to_final is None and "the same for all" in constant.note and constant.probe_kind is None


def test_only_the_last_layers_are_ranked_with(towers, planted):
    final = planted.of["final"]
    assert towers.ndcg.value == pytest.approx(final.ndcg.value)
    table = dual_encoder_layer_table(towers)
    assert tuple(table.columns) == COLUMNS
    assert table["ndcg_at_5"].notna().tolist() == [False] * 3 + [True] + [False] * 4 + [True]


def test_no_number_depends_on_a_pairing_by_layer_number(planted_towers, towers):
    """Another inner layer in one tower moves no number of the other tower, and none of the last layers."""
    queries, pages, gold, ids = planted_towers
    changed = pages.copy()
    changed[:, 1:3] = changed[:, [2, 1]]
    again = diagnose_dual_encoder(queries, changed, gold, **ids, rng=np.random.default_rng(0))
    for before, after in zip(towers.of("query"), again.of("query"), strict=True):
        assert before.to_final.cka == after.to_final.cka and before.probe_kind == after.probe_kind
    assert again.ndcg == towers.ndcg
    one, two = towers.cross.values, again.cross.values
    np.testing.assert_allclose(one[:, [1, 0, 2, 3]], two, atol=1e-9)


def test_the_cross_matrix_is_of_all_layers_with_all(towers, planted_towers, planted):
    queries, pages, *_ = planted_towers
    assert towers.cross.values.shape == (4, 4) and towers.usable["page"] == (1, 2, 3, 4)
    rows = np.unique(planted.answer, return_index=True)[1]
    expected = linear_cka(queries[np.sort(rows), 1], pages[planted.answer[np.sort(rows)], 4])
    assert towers.cross.values[1, 3] == pytest.approx(expected, abs=1e-5)


def test_records_and_sentences(towers):
    records = dual_encoder_records(
        towers, model="m", model_revision="r", dataset="d", split="s", widths={"query": 16, "page": 24}, seed=0
    )
    measures = {record.measure for record in records}
    assert {"cka_query_final", "cka_page_final", "cka_query_layer_page_layer", "ndcg_at_5"} <= measures
    assert "cka_query_page" not in measures, "that pairs layers of one number"
    assert {(r.d, r.layer) for r in records if r.measure == "effective_rank_page"} == {(24, n) for n in (1, 2, 3, 4)}
    first, second = dual_encoder_sentences(towers)
    assert "Two towers: nDCG@5" in first and "page tower: base probe for 3, 4, normalized projection for 1, 2" in second


def test_last_layers_that_share_no_space_are_refused(planted_towers):
    queries, pages, gold, ids = planted_towers
    pages = pages.copy()
    pages[:, -1, 20] = 1
    with pytest.raises(ValueError, match="last layers must share a space of at most 16 dimensions"):
        diagnose_dual_encoder(queries, pages, gold, **ids, rng=np.random.default_rng(0))


@pytest.mark.parametrize("kind", ["clip", "siglip2"])
def test_the_command(kind, documents, tmp_path, capsys):
    checkpoint = save_two_towers(tmp_path / "tiny", kind)
    out = tmp_path / "out"
    main(["--model", str(checkpoint), "--device", "cpu", "--data", str(documents), "--split", "all", "--out", str(out)])
    layers = pd.read_csv(out / "layers.csv")
    assert layers.groupby("side").size().to_dict() == {"query": 4, "page": 5}
    cross = pd.read_csv(out / "cka_matrix_query_page.csv", index_col=0)
    assert cross.index.tolist() == [0, 1, 2, 3] and len(cross.columns) <= 5
    run = json.loads((out / "run.json").read_text())
    assert run["two_towers"] and run["n_pages"] == 35
    assert read_records(out / "records.jsonl")
    for name in ("layers.png", "cka_matrix.png"):
        assert (out / name).stat().st_size > 1000
    told = capsys.readouterr().out
    assert "two towers" in told and "Two towers: nDCG@5" in told
