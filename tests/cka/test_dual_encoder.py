"""Encoders of different depth and width: each by itself, and never layer l of one with layer l of the other."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from miner_diag.cka import linear_cka
from miner_diag.cka.__main__ import main
from miner_diag.cka.dual_encoder import diagnose_dual_encoder
from miner_diag.cka.dual_encoder_table import (
    COLUMNS,
    dual_encoder_figure,
    dual_encoder_layer_table,
    dual_encoder_records,
    dual_encoder_sentences,
)
from miner_diag.records import read_records
from tests.backbones.tiny import save_dual_encoder
from tests.corpus.files import write_table


@pytest.fixture(scope="module")
def diagnosis(planted_encoders):
    queries, pages, gold, ids = planted_encoders
    return diagnose_dual_encoder(queries, pages, gold, **ids, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def planted_encoders(planted):
    """The planted layers, four for the queries and five, padded with zeros, for the pages."""
    of_queries = [planted.layer[name] for name in ("noise", "rotated", "copy", "final")]
    of_pages = [planted.layer[name] for name in ("constant", "noise", "rotated_apart", "copy", "final")]
    pages = np.pad(planted.pages[:, of_pages], ((0, 0), (0, 0), (0, 8)))
    return planted.queries[:, of_queries], pages, planted.gold, planted.ids


def test_each_encoder_is_compared_with_its_own_last_layer(diagnosis, planted_encoders):
    queries, pages, *_ = planted_encoders
    assert [layer.layer for layer in diagnosis.of("query")] == [0, 1, 2, 3]
    assert [layer.layer for layer in diagnosis.of("page")] == [0, 1, 2, 3, 4]
    for layer in diagnosis.of("query"):
        expected = linear_cka(queries[:, layer.layer], queries[:, -1])
        assert layer.to_final.cka.value == pytest.approx(expected, abs=1e-6)
    for layer in diagnosis.of("page")[1:]:
        expected = linear_cka(pages[:, layer.layer], pages[:, -1])
        assert layer.to_final.cka.value == pytest.approx(expected, abs=1e-6)
    noise, rotated, copy, final = diagnosis.of("query")
    assert not noise.above_null and rotated.above_null
    assert (rotated.probe_kind, copy.probe_kind, final.probe_kind) == ("normalized_projection", "base", "base")
    constant = diagnosis.of("page")[0]
    assert constant.to_final is None and "the same for all" in constant.note and constant.probe_kind is None


def test_only_the_last_layers_are_ranked_with(diagnosis, planted):
    final = planted.of["final"]
    assert diagnosis.ndcg.value == pytest.approx(final.ndcg.value)
    table = dual_encoder_layer_table(diagnosis)
    assert tuple(table.columns) == COLUMNS
    assert table["ndcg_at_5"].notna().tolist() == [False] * 3 + [True] + [False] * 4 + [True]


def test_no_number_depends_on_a_pairing_by_layer_number(planted_encoders, diagnosis):
    """Another inner layer in one encoder moves no number of the other, and none of the last layers."""
    queries, pages, gold, ids = planted_encoders
    changed = pages.copy()
    changed[:, 1:3] = changed[:, [2, 1]]
    again = diagnose_dual_encoder(queries, changed, gold, **ids, rng=np.random.default_rng(0))
    for before, after in zip(diagnosis.of("query"), again.of("query"), strict=True):
        assert before.to_final.cka == after.to_final.cka and before.probe_kind == after.probe_kind
    assert again.ndcg == diagnosis.ndcg
    one, two = diagnosis.cross.values, again.cross.values
    np.testing.assert_allclose(one[:, [1, 0, 2, 3]], two, atol=1e-9)


def test_the_cross_matrix_is_of_all_layers_with_all(diagnosis, planted_encoders, planted):
    queries, pages, *_ = planted_encoders
    assert diagnosis.cross.values.shape == (4, 4) and diagnosis.usable["page"] == (1, 2, 3, 4)
    rows = np.unique(planted.answer, return_index=True)[1]
    expected = linear_cka(queries[np.sort(rows), 1], pages[planted.answer[np.sort(rows)], 4])
    assert diagnosis.cross.values[1, 3] == pytest.approx(expected, abs=1e-5)


def test_records_and_sentences(diagnosis, planted):
    records = dual_encoder_records(
        diagnosis, model="m", model_revision="r", dataset="d", split="s", widths={"query": 16, "page": 24}, seed=0
    )
    measures = {record.measure for record in records}
    assert {"cka_query_final", "cka_page_final", "cka_query_layer_page_layer", "ndcg_at_5"} <= measures
    assert "cka_query_page" not in measures, "that pairs layers of one number"
    assert {(r.d, r.layer) for r in records if r.measure == "effective_rank_page"} == {(24, n) for n in (1, 2, 3, 4)}
    first, second = dual_encoder_sentences(diagnosis)
    assert "Dual encoder: nDCG@5" in first
    assert "page encoder: base probe for 3, 4, normalized projection for 1, 2" in second
    ids = [record.query_id for record in records if record.query_id is not None]
    assert ids == planted.ids["query_ids"]
    for record in records:
        one_side = record.measure not in ("ndcg_at_5", "cka_query_layer_page_layer")
        assert (record.side is not None) == one_side, record
        assert record.side is None or record.side in record.measure


def test_last_layers_that_share_no_space_are_refused(planted_encoders):
    queries, pages, gold, ids = planted_encoders
    pages = pages.copy()
    pages[:, -1, 20] = 1
    with pytest.raises(ValueError, match="last layers must share a space of at most 16 dimensions"):
        diagnose_dual_encoder(queries, pages, gold, **ids, rng=np.random.default_rng(0))


@pytest.mark.parametrize("kind", ["clip", "siglip2"])
def test_the_command(kind, documents, tmp_path, capsys):
    checkpoint = save_dual_encoder(tmp_path / "tiny", kind)
    out = tmp_path / "out"
    retriever = ["--model", str(checkpoint), "--device", "cpu"]
    data = ["--data", str(documents), "--split", "all", "--store", str(tmp_path / "store")]
    main([*retriever, *data, "--out", str(out)])
    layers = pd.read_csv(out / "layers.csv")
    assert layers.groupby("side").size().to_dict() == {"query": 4, "page": 5}
    last = layers["ndcg_at_5"].notna()
    assert last.sum() == 2 and (layers["bm25_ndcg_at_5"].notna() == last).all()
    assert layers["bm25_text_read_ndcg_at_5"].isna().all()  # it reads nothing
    cross = pd.read_csv(out / "cka_matrix_query_page.csv", index_col=0)
    assert cross.index.tolist() == [0, 1, 2, 3] and len(cross.columns) <= 5
    run = json.loads((out / "run.json").read_text())
    assert run["dual_encoder"] and run["n_pages"] == 35
    assert read_records(out / "records.jsonl")
    for name in ("layers.png", "cka_matrix.png"):
        assert (out / name).stat().st_size > 1000
    shown = capsys.readouterr().out
    assert "dual encoder" in shown and "Dual encoder: nDCG@5" in shown and "tower" not in shown
    assert "over the text layer of the pages; tiny looks at their pictures." in shown
    redrawn = dual_encoder_figure(layers)
    titles = ["query encoder, 4 layers", "page encoder, 5 layers"]
    assert sorted(ax.get_title() for ax in redrawn.axes[:2]) == sorted(titles)
    sides = {ax.get_title(): ax.get_lines()[-1] for ax in redrawn.axes[:2]}
    for side, rows in layers.groupby("side"):
        (line,) = (line for title, line in sides.items() if title.startswith(side))
        np.testing.assert_allclose(line.get_ydata(), rows["cka_final"])
    with pytest.raises(SystemExit, match="diagnosis of a dual encoder holds them whole. Raise --memory-gb"):
        main([*retriever, *data, "--out", str(out), "--memory-gb", "1e-6"])


def test_pages_without_a_text_layer_have_no_bm25_and_a_sentence_says_so(tmp_path, rng, capsys):
    numbers = range(8)
    rows = [{"_id": f"p{n}", "image": f"{n}.png", "doc": f"d{n}"} for n in numbers]
    asked = [{"_id": f"q{n}", "text": f"words of picture {n}"} for n in numbers]
    folder = write_table(tmp_path / "scans", asked, rows, [(f"q{n}", f"p{n}", "1") for n in numbers])
    for n in numbers:
        Image.fromarray(rng.integers(0, 255, (40, 30, 3), dtype=np.uint8)).save(folder / f"{n}.png")
    checkpoint = save_dual_encoder(tmp_path / "tiny", "clip")
    where = [
        "--data",
        str(folder),
        "--split",
        "all",
        "--store",
        str(tmp_path / "store"),
        "--out",
        str(tmp_path / "out"),
    ]
    main(["--model", str(checkpoint), "--device", "cpu", *where])
    shown = capsys.readouterr().out
    assert "There is no BM25 over the text layer: it holds no word on any of the 8 pages." in shown
    assert "For orientation" not in shown
    layers = pd.read_csv(tmp_path / "out" / "layers.csv")
    assert layers[[column for column in layers if column.startswith("bm25")]].isna().all(axis=None)
    assert {record.model for record in read_records(tmp_path / "out" / "records.jsonl")} == {"tiny"}
