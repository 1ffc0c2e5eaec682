"""The diagnosis as rows: the columns that were promised, the numbers that were measured, sentences that are true."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import ndcg_score

from miner_diag.cka import alignment_ratio, compare, linear_cka
from miner_diag.cka.diagnosis import Rules, diagnose
from miner_diag.cka.table import diagnosis_records, layer_table, page_matrix_frame, sentences
from miner_diag.records import read_records, write_records

PROMISED = (
    "layer, cka_page_final, cka_page_final_low, cka_page_final_high, cka_query_final, cka_query_final_low, "
    "cka_query_final_high, cosine_page_final, cosine_query_final, alignment_ratio_page_final, "
    "alignment_ratio_page_final_low, alignment_ratio_page_final_high, alignment_ratio_query_final, "
    "alignment_ratio_query_final_low, alignment_ratio_query_final_high, cka_query_page, cka_query_page_low, "
    "cka_query_page_high, cka_query_page_null_p95, cka_query_page_null_mean, cka_query_page_p, cosine_query_page, "
    "alignment_ratio_query_page, alignment_ratio_query_page_low, alignment_ratio_query_page_high, ndcg_at_5, "
    "ndcg_at_5_low, ndcg_at_5_high, chance_ndcg_at_5, bm25_ndcg_at_5, bm25_ndcg_at_5_low, bm25_ndcg_at_5_high, "
    "bm25_text_read_ndcg_at_5, bm25_text_read_ndcg_at_5_low, bm25_text_read_ndcg_at_5_high, effective_rank_page, "
    "anisotropy_page, n_queries, n_pages, n_queries_in_cka, n_pages_in_cka, n_pairs_in_cka, "
    "n_documents, effective_documents, probe_kind, retrieval_aligned"
).split(", ")

ENDS = ("_low", "_high")
NOT_MEASURES = ("layer", "chance_ndcg_at_5", "probe_kind", "retrieval_aligned")
OF_THE_NULL = ("cka_query_page_null_p95", "cka_query_page_null_mean", "cka_query_page_p")

WHO = {"model": "planted", "model_revision": "r1", "dataset": "made-up", "split": "validation", "width": 16, "seed": 7}


def among(planted, names, **changes):
    """Diagnose some of the planted layers, in the order given; the last is the final one."""
    chosen = [planted.layer[name] for name in names]
    arguments = {"gold": planted.gold, "rng": np.random.default_rng(0), **planted.ids, **changes}
    gold = arguments.pop("gold")
    return diagnose(planted.queries[:, chosen], planted.pages[:, chosen], gold, **arguments)


@pytest.fixture(scope="module")
def table(planted):
    """What a reader of layers.csv gets."""
    return pd.read_csv(io.StringIO(layer_table(planted.diagnosis).to_csv(index=False)))


@pytest.fixture(scope="module")
def records(planted):
    return diagnosis_records(planted.diagnosis, **WHO)


def test_columns_are_the_promised_ones_in_order(table):
    assert list(table.columns) == PROMISED


def test_one_row_per_layer(planted, table):
    assert table["layer"].tolist() == list(range(len(planted.names)))
    assert (table["n_queries"] == 96).all() and (table["n_pages"] == 80).all()


def test_numbers_are_recomputed_alike(planted, table):
    first = slice(0, 64)  # one query a page: the first 64 queries ask for different pages
    answers = planted.answer[first]
    for name in ("rotated", "rotated_apart", "copy", "final"):
        here = planted.layer[name]
        row = table.iloc[here]
        queries, pages = planted.queries[:, here], planted.pages[:, here]
        sides = {
            "page_final": (pages, planted.pages[:, -1]),
            "query_final": (queries, planted.queries[:, -1]),
            "query_page": (queries[first], pages[answers]),
        }
        for view, (x, y) in sides.items():
            assert row[f"cka_{view}"] == pytest.approx(linear_cka(x, y), abs=1e-9), (name, view)
            assert row[f"alignment_ratio_{view}"] == pytest.approx(alignment_ratio(x, y), rel=1e-8), (name, view)
            assert row[f"cosine_{view}"] == pytest.approx(alignment_ratio(x, y) * linear_cka(x, y), rel=1e-8)


def test_ndcg_is_that_of_scikit_learn_where_nothing_ties(planted, table):
    relevance = np.zeros((96, 80))
    relevance[np.arange(96), planted.answer] = 1
    for name in ("noise", "rotated", "rotated_apart", "copy", "loud", "final"):
        sides = [side[:, planted.layer[name]].astype(np.float64) for side in (planted.queries, planted.pages)]
        queries, pages = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)
        expected = ndcg_score(relevance, queries @ pages.T, k=5)
        row = table.iloc[planted.layer[name]]
        assert row["ndcg_at_5"] == pytest.approx(expected, abs=1e-9), name
        assert row["ndcg_at_5_low"] <= row["ndcg_at_5"] <= row["ndcg_at_5_high"]


def test_verdicts_are_in_the_table(planted, table):
    assert table["retrieval_aligned"].dtype == bool
    assert [planted.names[row] for row in table.index[table["retrieval_aligned"]]] == ["rotated", "copy", "final"]
    assert set(table["probe_kind"].dropna()) == {"base", "normalized_projection"}


def test_cells_of_a_constant_layer_are_empty_and_its_ndcg_is_chance(planted, table):
    row = table.iloc[planted.layer["constant"]]
    filled = {"layer", "ndcg_at_5", "ndcg_at_5_low", "ndcg_at_5_high", "chance_ndcg_at_5", "n_queries", "n_pages"}
    filled |= {"retrieval_aligned", "n_queries_in_cka", "n_pages_in_cka", "n_pairs_in_cka"}
    for column in PROMISED:
        assert pd.notna(row[column]) == (column in filled), column
    assert row["ndcg_at_5"] == pytest.approx(planted.diagnosis.chance)
    text = layer_table(planted.diagnosis).to_csv(index=False).splitlines()[1]
    assert text.startswith("0,,,,") and not re.search("nan|None|inf", text, re.IGNORECASE)


def test_a_ratio_that_does_not_exist_is_an_empty_cell_and_a_note(planted, table):
    noise = planted.of["noise"]
    assert noise.page_final.cka.value < 0
    assert math.isnan(table.iloc[planted.layer["noise"]]["alignment_ratio_page_final"])
    assert any("pages to final" in note and "not above 0" in note for note in noise.notes)


def test_cosine_cells_are_empty_where_widths_differ(planted, rng):
    """A layer that is wider than the final one: it has a CKA, no cosine and no ratio."""
    wide = rng.normal(size=(80, 24)) + np.pad(planted.pages[:, -1], ((0, 0), (0, 8)))
    comparison = compare(wide, planted.pages[:, -1])
    layers = list(planted.diagnosis.layers)
    layers[1] = replace(layers[1], page_final=comparison)
    changed = layer_table(replace(planted.diagnosis, layers=tuple(layers)))
    row = changed.iloc[1]
    assert row["cka_page_final"] == pytest.approx(linear_cka(wide, planted.pages[:, -1]))
    assert pd.isna(row["cosine_page_final"]) and pd.isna(row["alignment_ratio_page_final"])
    assert pd.notna(row["cosine_query_final"])
    assert list(changed.columns) == PROMISED


def test_the_matrix_is_layers_by_layers(planted):
    frame = page_matrix_frame(among(planted, planted.names[1:]))
    assert frame.shape == (6, 6)
    assert list(frame.index) == list(frame.columns) == list(range(6))
    assert frame.loc[1, 5] == pytest.approx(1, abs=1e-6)  # rotated to final
    np.testing.assert_allclose(np.diag(frame), 1, atol=1e-6)
    assert list(page_matrix_frame(planted.diagnosis).columns) == [1, 2, 3, 4, 5, 6]  # a constant layer has no CKA


def find(records, **fields):
    return [record for record in records if all(getattr(record, name) == value for name, value in fields.items())]


def test_records_hold_every_number_of_the_table(planted, table, records):
    apart = (*NOT_MEASURES, *OF_THE_NULL, "effective_documents")
    for column in PROMISED:
        if column.endswith(ENDS) or column.startswith("n_") or column in apart:
            continue
        for layer, value in enumerate(table[column]):
            found = find(records, measure=column, layer=layer, query_id=None)
            assert len(found) == (0 if math.isnan(value) else 1), (column, layer)
            assert all(record.value == pytest.approx(value) for record in found)
    assert (table["chance_ndcg_at_5"] == planted.diagnosis.chance).all()


def test_ends_of_intervals_are_those_of_the_records_and_hold_the_value(table, records):
    measures = [column.removesuffix("_low") for column in PROMISED if column.endswith("_low")]
    assert len(measures) == 9  # three CKAs, three alignment ratios, nDCG@5, and that of BM25 over two texts
    for measure in measures:
        for layer, row in table.iterrows():
            low, value, high = row[f"{measure}_low"], row[measure], row[f"{measure}_high"]
            found = find(records, measure=measure, layer=layer, query_id=None)
            if not found:
                assert math.isnan(value) and math.isnan(low) and math.isnan(high)
            elif found[0].low is None:  # unbounded
                assert math.isnan(low) and math.isnan(high) and "unbounded" in found[0].method
            else:
                assert (low, high) == (pytest.approx(found[0].low), pytest.approx(found[0].high))
                assert low <= value <= high


def test_the_null_in_the_table_is_the_level_and_the_p_value(planted, table):
    for name, number in planted.layer.items():
        view, row = planted.of[name].query_page, table.iloc[number]
        if view is None:
            assert pd.isna(row[list(OF_THE_NULL)]).all()
            continue
        assert row["cka_query_page_null_p95"] == pytest.approx(view.null.upper)
        assert row["cka_query_page_p"] == pytest.approx(view.null.p_value)
        assert pd.isna(row["cka_query_page_null_mean"])  # 0 for the debiased estimator, by construction
        assert (row["cka_query_page"] > row["cka_query_page_null_p95"]) == (row["cka_query_page_p"] < 0.05)


def test_documents_are_counted_where_intervals_are_over_them(planted, table):
    assert table[["n_documents", "effective_documents"]].isna().all().all()
    sizes = [40, 20, 6, 6, 6, 6, 6, 6]  # of the 96 queries; 9216 / (1600 + 400 + 6 * 36) = 4.16
    documents = [f"d{number}" for number, size in enumerate(sizes) for _ in range(size)]
    over = among(planted, planted.names, query_documents=documents, page_documents=documents[:80])
    grouped = layer_table(over)
    assert (grouped["n_documents"] == 8).all()
    assert grouped["effective_documents"].tolist() == pytest.approx([9216 / 2216] * 7)
    found = diagnosis_records(over, **WHO)
    (ndcg,) = find(found, measure="ndcg_at_5", layer=6, query_id=None)
    assert (ndcg.n_clusters, ndcg.effective_clusters) == (8, pytest.approx(9216 / 2216))
    for record in found:
        assert (record.n_clusters is None) == (record.effective_clusters is None), record
        if record.n_clusters is not None:
            assert 1 <= record.effective_clusters <= record.n_clusters


def test_a_measure_of_one_side_says_which(records):
    sides = {record.measure: record.side for record in records}
    for measure, side in sides.items():
        if measure.startswith(("cka_query_page", "cosine_query_page", "alignment_ratio_query_page", "ndcg", "tie")):
            assert side is None, measure
        else:
            assert side == ("page" if "page" in measure else "query"), measure


def test_every_number_has_its_n_and_its_d_and_says_whose_it_is(records):
    for record in records:
        if record.query_id is None:
            assert record.n is not None and record.n >= 4, record
        assert record.d == 16
        assert (record.model, record.model_revision, record.dataset, record.split) == (
            "planted",
            "r1",
            "made-up",
            "validation",
        )


MEASURED = re.compile(
    r"(cka|cosine|alignment_ratio)_(page_final|query_final|query_page)|ndcg_at_5|effective_rank_page|anisotropy_page|"
    r"cka_page|cka_page_final_unit_rows"
)


def test_every_measured_number_has_an_interval_with_its_level_and_method(records):
    seen = set()
    for record in records:
        if MEASURED.fullmatch(record.measure) and record.query_id is None:
            seen.add(record.measure)
            assert record.confidence == 0.95 and record.method, record
            if record.low is None:
                assert record.high is None and "unbounded" in record.method, record
            else:
                assert record.low <= record.value <= record.high, record
            assert (record.seed is not None) == ("bootstrap" in record.method), record
    assert len(seen) == 14


def test_cka_says_its_estimator_and_its_p_value(planted, records):
    for record in records:
        if record.measure.startswith(("cka", "alignment_ratio")):
            assert record.estimator == "debiased", record
    for layer in range(1, 7):
        (pair,) = find(records, measure="cka_query_page", layer=layer)
        assert pair.p_value == planted.diagnosis.layers[layer].query_page.null.p_value
        (null,) = find(records, measure="cka_query_page_null", layer=layer)
        assert null.value < null.high
        # above the 95th percentile of the null is what p < 0.05 means
        assert (pair.value > null.high) == (pair.p_value < 0.05)


def test_the_null_of_the_biased_estimator_is_on_its_own_scale(planted):
    """Its 95th percentile is known for the debiased estimate alone, so none is told; the mean is on the right scale."""
    biased = among(planted, ("noise", "copy", "final"), rules=Rules(estimator="biased"))
    found, table = diagnosis_records(biased, **WHO), layer_table(biased)
    for layer in range(3):
        (null,) = find(found, measure="cka_query_page_null", layer=layer)
        (pair,) = find(found, measure="cka_query_page", layer=layer)
        assert null.high is None
        assert pd.isna(table.iloc[layer]["cka_query_page_null_p95"])
        assert table.iloc[layer]["cka_query_page_null_mean"] == null.value
        assert 0.05 < null.value < pair.value
        assert pair.estimator == null.estimator == "biased"


def test_ndcg_of_every_query_is_kept(planted, records):
    for layer in range(7):
        each = [record for record in records if record.measure == "ndcg_at_5" and record.layer == layer]
        each = {record.query_id: record.value for record in each if record.query_id is not None}
        assert list(each) == planted.ids["query_ids"]
        assert np.mean(list(each.values())) == pytest.approx(planted.diagnosis.layers[layer].ndcg.value)


def test_every_pair_of_layers_is_kept(planted, records):
    pairs = find(records, measure="cka_page")
    matrix = page_matrix_frame(planted.diagnosis)
    assert {frozenset((pair.layer, pair.other_layer)) for pair in pairs} == {
        frozenset((a, b)) for a in range(1, 7) for b in range(1, a)
    }
    for pair in pairs:
        assert pair.value == pytest.approx(matrix.loc[pair.layer, pair.other_layer])


def test_ties_are_reported(records):
    rates = {record.layer: record.value for record in find(records, measure="tie_rate_at_5")}
    assert rates == {0: 1.0, **dict.fromkeys(range(1, 7), 0.0)}


def test_records_go_through_a_file(records, tmp_path):
    write_records(tmp_path / "records.jsonl", records)
    assert read_records(tmp_path / "records.jsonl") == records


def layers_named(words):
    """Numbers of a list such as "layers 2, 4"."""
    found = re.match(r"layers? (\d+(?:, \d+)*)", words)
    return [int(number) for number in found.group(1).split(", ")] if found else []


def test_the_first_sentence_names_the_aligned_layers_and_how_sure(planted):
    first, _ = sentences(planted.diagnosis)
    assert layers_named(first[first.index("layers") :]) == [planted.layer["rotated"], planted.layer["copy"]]
    ndcg = planted.of["final"].ndcg
    assert f"{ndcg.value:.3f} [{ndcg.low:.3f}, {ndcg.high:.3f}] at the final layer 6" in first
    assert "96 queries" in first and "80 pages" in first and "95%" in first


def test_the_second_sentence_names_the_probe_of_each_layer(planted):
    _, second = sentences(planted.diagnosis)
    base, projection = second.split("normalized projection")
    assert layers_named(base[base.index("layer", base.index("probe")) :]) == [4, 5, 6]
    assert {2, 3} <= set(layers_named(projection[projection.index("layer") :]))
    assert "0.5" in second  # the threshold


def test_sentences_of_a_backbone_without_an_aligned_inner_layer(planted):
    diagnosis = among(planted, ("noise", "rotated_apart", "final"))
    first, second = sentences(diagnosis)
    assert "No inner layer is retrieval-aligned" in first
    assert layers_named(second[second.index("layer", second.index("enough")) :]) == [2]


def test_a_layer_that_fails_for_its_cka_is_not_said_to_fail_for_its_ndcg(planted):
    """The loud layer retrieves exactly as well as the final one; its CKA is what is not shown."""
    diagnosis = among(planted, ("loud", "final"))
    assert not diagnosis.layers[0].retrieval_aligned and diagnosis.layers[0].share_margin.low > 0
    first, _ = sentences(diagnosis)
    assert not re.search("none keeps more than 50% of", first), first
    assert "CKA" in first or "null" in first


@pytest.mark.parametrize("names", [("copy", "final"), ("rotated", "noise")])
def test_a_final_layer_at_chance_is_said_to_be_so(planted, names):
    """Broken queries, a wrong checkpoint: the reader has to learn that not even the last layer retrieves."""
    order = np.random.default_rng(1).permutation(len(planted.gold)) if names[-1] == "final" else np.arange(96)
    diagnosis = among(planted, names, gold=[planted.gold[row] for row in order])
    assert not diagnosis.layers[-1].retrieval_aligned
    assert diagnosis.layers[0].retrieval_aligned == (names[0] == "rotated")
    first, _ = sentences(diagnosis)
    assert "besides the last" not in first, first
    assert "chance" in first or re.search("final layer.* not", first), first
