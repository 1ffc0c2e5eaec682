"""The test split is read by one function, once everything is fitted, and its labels change nothing that is fitted."""

import ast
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from miner_diag.corpus import Corpus, CorpusError
from miner_diag.fusion import (
    AblationOptions,
    FusionConfig,
    FusionTrainOptions,
    MaskOptions,
    SensitivityOptions,
    read_test,
)
from miner_diag.fusion.job import FusionOptions, run_fold
from miner_diag.fusion.result import HEADS
from miner_diag.fusion.table import (
    ablation_table,
    curve_table,
    per_query,
    seeds_table,
    sentences,
    weights_table,
    width_table,
)
from miner_diag.probes import ProbeError, StudyOptions
from miner_diag.probes.splits import fitting_splits

PACKAGE = Path(__file__).parents[2] / "miner_diag"
OPTIONS = FusionOptions(
    probe=StudyOptions(epochs=2, batch_size=16, resamples=3, rule="top_k", top_k=3, start="identity"),
    training=FusionTrainOptions(epochs=2, batch_size=20, negatives=20, learning_rate=3e-3, weight_learning_rate=3e-2),
    ablation=AblationOptions(n_seeds=2, rate_scales=(0.5,)),
    mask=MaskOptions(),
    shape=FusionConfig(),
    grid=SensitivityOptions(),
    intervals_over="items",
)


def fold_of(embedded, reads=None, **how):
    return run_fold(embedded, 0, OPTIONS, reads=[] if reads is None else reads, told=lambda line: None, **how)


@pytest.fixture(scope="module", autouse=True)
def no_correlations():
    """Of the probe stage, what costs most here and decides nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("miner_diag.probes.study.correlate", lambda *args, **how: None)
        yield


@pytest.fixture(scope="module")
def found(make_embedded, one_thread):
    """The whole stage on splits that a test may count."""
    events, reads, split = [], [], Corpus.split
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Corpus, "split", lambda corpus, name: (events.append(name), split(corpus, name))[1])
        fold = fold_of(make_embedded(), reads, before_test=lambda *args: events.append("all is fitted"))
    return fold, reads, events


def fitted_content(fold):
    """Everything that was fitted or chosen, as bytes and numbers."""
    content = {}
    for entry in fold.entries:
        for number, run in enumerate(entry.runs):
            for name, tensor in run.system.state_dict().items():
                content[entry.name, number, name] = tensor.numpy().tobytes()
            content[entry.name, number, "curve"] = (run.curve, run.best_epoch, run.loss)
        content[entry.name, "options"] = entry.options
    probed = fold.probed
    content["probes"] = probed.stack.gates.tobytes(), probed.stack.weights.tobytes(), probed.scores.tobytes()
    content["chosen"] = probed.selected, probed.kinds, probed.ratios, fold.head
    return content


def test_shuffling_test_labels_changes_no_fitted_parameter(found, make_embedded):
    fold = found[0]
    other = fold_of(make_embedded(swap="test"))
    mine, its = fitted_content(fold), fitted_content(other)
    assert len(mine) > 100 and mine == its
    # what was measured on test did change
    assert (fold.values["test"]["backbone"] != other.values["test"]["backbone"]).any()
    np.testing.assert_array_equal(fold.values["validation"]["fusion"], other.values["validation"]["fusion"])


@pytest.mark.parametrize("swap", ["train", "validation"])
def test_shuffling_other_labels_does(found, make_embedded, swap):
    """The negative control: what is fitted does depend on what it is fitted to."""
    only = replace(OPTIONS, ablation=AblationOptions(n_seeds=1, rate_scales=(0.5,)))
    other = run_fold(
        make_embedded(swap=swap), 0, only, reads=[], only=("backbone", *HEADS, "fusion"), told=lambda line: None
    )
    mine, its = fitted_content(found[0]), fitted_content(other)
    shared = set(mine) & set(its)
    assert {key for key in shared if mine[key] != its[key]} & {("fusion", 0, "curve"), "probes"}


def test_test_is_read_last_and_once_and_that_is_noted(found):
    fold, reads, events = found
    assert events == ["train", "validation", "all is fitted", "test"]
    (read,) = reads
    assert read["corpus_part"] == "test" and read["fold"] == 0
    assert (read["n_queries"], read["n_pages"], read["n_documents"]) == (40, 40, 4)
    assert read["corpus_revision"] == fold.splits["test"].corpus.revision
    assert pd.Timestamp(read["at"]).tzinfo is not None


def test_read_test_gives_the_test_documents(make_embedded):
    embedded, reads = make_embedded(), []
    split = read_test(embedded, embedded.corpus, reads)
    assert {embedded.corpus.splits[page.doc_id] for page in split.corpus.pages} == {"test"}
    assert split.judged.queries.shape == (40, 5, 16)
    read_test(embedded, embedded.corpus, reads, memory_gb=1e-9)
    assert len(reads) == 2  # each reading is noted


def test_no_other_function_takes_the_test_split():
    """Of all stages that fit something; the report, above them, only reads what finished runs wrote."""
    takers = []
    for path in PACKAGE.rglob("*.py"):
        here = path.relative_to(PACKAGE).as_posix()
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef) or here.startswith(("corpus/", "report/")):
                continue
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and called(call) in ("split", "take_split", "fitting_splits", "replace"):
                    given = [*call.args, *(keyword.value for keyword in call.keywords)]
                    constants = {value.value for value in given if isinstance(value, ast.Constant)}
                    if "test" in constants:
                        takers.append((here, function.name, called(call)))
    assert takers == [("fusion/judge.py", "read_test", "take_split")]


def called(call):
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def test_only_the_job_reads_test():
    readers = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(
            isinstance(call, ast.Call) and called(call) == "read_test"
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        )
    ]
    assert readers == ["fusion/job.py"]


def test_no_validation_split_is_a_sentence(make_embedded):
    embedded = make_embedded()
    without = {doc: "train" if name == "validation" else name for doc, name in embedded.corpus.splits.items()}
    with pytest.raises(CorpusError, match=r"validation split of planted \(fold 0\) holds no query: .*another --fold"):
        fold_of(replace(embedded, corpus=replace(embedded.corpus, splits=without)))


def test_a_page_in_train_and_validation_is_refused(make_embedded):
    embedded = make_embedded()
    pages = list(embedded.corpus.pages)
    pages[10] = replace(pages[10], page_hash=pages[0].page_hash)
    with pytest.raises(ProbeError, match="1 page pictures stand in train and in validation"):
        fitting_splits(embedded, replace(embedded.corpus, pages=tuple(pages)))


# --- what the stage found, as tables


def test_every_row_is_there_on_both_splits(found):
    fold = found[0]
    table = ablation_table(fold.judged, fold.entries)
    for split in ("validation", "test"):
        names = table[table["split"] == split]["system"].tolist()
        assert len(names) == len(set(names))
        assert set(names) == {entry.name for entry in fold.entries} | {"oracle_layer"}
    asked = [
        "system",
        "split",
        "ndcg_at_5",
        "low",
        "high",
        "difference_to_backbone",
        "difference_low",
        "difference_high",
        "p_holm",
        "verdict",
        "n_parameters",
        "seconds",
    ]
    assert [column for column in table.columns if column in asked] == asked
    assert "query_specific" in set(table["system"])


def test_numbers_of_the_table_are_those_of_the_systems(found):
    fold = found[0]
    table = ablation_table(fold.judged, fold.entries).set_index(["split", "system"])
    judged = fold.splits["test"].judged
    for entry in fold.entries:
        values = entry.ndcg(judged)
        assert table.loc[("test", entry.name), "ndcg_at_5"] == pytest.approx(values.mean(), abs=1e-12)
        assert table.loc[("test", entry.name), "n_seeds"] == len(entry.runs) == len(values)
        if entry.name != "backbone":
            gain = values.mean() - fold.values["test"]["backbone"].mean()
            row = table.loc[("test", entry.name)]
            assert row["difference_to_backbone"] == pytest.approx(gain, abs=1e-12)
            assert row["difference_low"] <= gain + 1e-12 and gain - 1e-12 <= row["difference_high"]
            assert row["relative"] == pytest.approx(gain / fold.values["test"]["backbone"].mean())
    assert table.loc[("test", "oracle_layer"), "verdict"] == ""
    best = table.loc[("test", "oracle_layer"), "ndcg_at_5"]
    assert best >= table.loc[("test", "fusion"), "ndcg_at_5"]


def test_the_head_is_the_one_that_validation_likes_best(found):
    fold = found[0]
    means = {name: fold.entry(name).validation.mean() for name in HEADS}
    assert fold.head == max(means, key=means.get)


def test_every_trained_row_had_the_same_budget(found):
    for entry in found[0].entries:
        if entry.n_parameters and entry.name != "query_specific":
            assert len(entry.runs) == 2, entry.name
            assert entry.options.learning_rate == pytest.approx(0.5 * OPTIONS.training.learning_rate)
            assert entry.options.weight_learning_rate == pytest.approx(0.5 * OPTIONS.training.weight_learning_rate)
            assert (entry.options.batch_size, entry.options.epochs) == (20, 2)


def test_weights_seeds_curves_and_widths(found):
    fold = found[0]
    weights = weights_table(fold.entry("fusion"))
    assert list(weights.columns)[-5:] == ["layer", "kind", "weight", "kept_share", "kept_neurons"]
    assert len(weights) == 2 * len(fold.probed.selected)
    assert (weights["kept_neurons"] == 16 * weights["kept_share"]).all()
    seeds = seeds_table(fold.entries, fold.values["test"])
    assert len(seeds) == sum(len(entry.runs) for entry in fold.entries)
    assert seeds.groupby("system")["seed"].nunique()["fusion"] == 2
    for row in seeds[seeds["system"] == "fusion"].itertuples():
        assert row.test_ndcg_at_5 == pytest.approx(fold.values["test"]["fusion"][row.seed].mean(), abs=1e-12)
    curves = curve_table(fold.entries)
    for _, rows in curves.groupby(["system", "seed"]):
        assert rows["epoch"].tolist() == list(range(len(rows))) and rows["loss"].notna().sum() == len(rows) - 1
    widths = width_table([fold.entry("fusion"), fold.entry("backbone")], fold.splits["test"].judged)
    assert widths["width"].tolist() == [16, 8, 4, 2] * 2
    assert widths["ndcg_at_5"].iloc[0] == pytest.approx(fold.values["test"]["fusion"].mean(), abs=0.01)


def test_records_are_per_query_and_have_the_tables_means(found):
    fold = found[0]
    ids = {name: fold.splits[name].judged.relevance.query_ids for name in fold.values}
    common = {"model": "planted", "model_revision": "1", "dataset": "planted"}
    records = pd.DataFrame([vars(record) for record in per_query(fold.values, ids, **common)])
    assert len(records) == 2 * 40 * (len(fold.entries) + 1)
    means = records[records["split"] == "test"].groupby("measure")["value"].mean()
    table = ablation_table(fold.judged, fold.entries).set_index(["split", "system"])
    for name in ("backbone", "fusion", "oracle_layer"):
        assert means[f"{name}_ndcg_at_5"] == pytest.approx(table.loc[("test", name), "ndcg_at_5"], abs=1e-12)


def test_sentences_say_what_the_table_says(found):
    fold = found[0]
    told = " ".join(sentences(fold.judged["test"], fold.head))
    fusion = next(judgement for judgement in fold.judged["test"] if judgement.name == "fusion")
    assert f"{fusion.to_backbone.value:+.4f}" in told and f"Beyond {fold.head}" in told
    assert fusion.verdict in told and "Target" in told and "oracle" in told


def test_states_let_a_run_go_on_and_are_not_needed(found, make_embedded, tmp_path, monkeypatch):
    training = sys.modules["miner_diag.fusion.train"]
    only = ("no_bias", "query_specific")
    first = fold_of(make_embedded(), state=tmp_path, only=only)
    assert fitted_content(first).items() <= fitted_content(found[0]).items()
    names = {path.name for path in tmp_path.iterdir()}
    assert {"fusion-0.5-0.safetensors", "fusion-0.5-1.safetensors"} < names
    monkeypatch.setattr(training, "batch_loss", None)  # a training step would fail
    again = fold_of(make_embedded(), state=tmp_path, only=only)
    assert fitted_content(again) == fitted_content(first)


def test_unknown_systems_are_named(make_embedded):
    with pytest.raises(ValueError, match=r"systems must be of backbone, .*query_specific; got magic"):
        fold_of(make_embedded(), only=("magic",))
