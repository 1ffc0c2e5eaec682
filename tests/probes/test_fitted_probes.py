"""What the fusion gets is the same whether probes are fitted for it or read from the folder of an earlier run."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from miner_diag.probes import (
    KINDS,
    ProbeError,
    ProbeTrainOptions,
    SelectionRule,
    StudyOptions,
    fit_for_fusion,
    fitting_splits,
    read_fitted_probes,
    study_splits,
    write_probe_run,
)
from miner_diag.probes.fitted_probes import FILES
from miner_diag.records import read_records, write_records
from miner_diag.runs import RunFolder
from miner_diag.stats import StatisticsOptions
from tests.damage import one_bit_flipped, seal_again, seal_records
from tests.probes.helpers import KEY, pretend_embedded

OPTIONS = StudyOptions(
    training=ProbeTrainOptions(epochs=2, batch_size=12), selection=SelectionRule(rule="top_k"), resamples=3
)
STATISTICS = StatisticsOptions(seed=7)


@pytest.fixture(scope="module")
def splits():
    return fitting_splits(pretend_embedded(), memory_gb=4.0)


@pytest.fixture(scope="module")
def run_of_fusion(splits, one_thread, tmp_path_factory):
    """A probe run as the fusion leaves it, and the probes that it went on with."""
    folder = tmp_path_factory.mktemp("runs") / "probes"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("miner_diag.probes.study.correlate", lambda *args, **how: None)
        fitted = fit_for_fusion(
            splits, OPTIONS, STATISTICS, RunFolder(folder, "miner_diag.fusion", OPTIONS), progress=False
        )
    return folder, fitted


@pytest.fixture
def copy_of_run(run_of_fusion, tmp_path):
    return shutil.copytree(run_of_fusion[0], tmp_path / "probes")


def test_read_and_fitted_probes_are_the_same_to_the_last_bit(run_of_fusion, splits):
    folder, fitted = run_of_fusion
    read = read_fitted_probes(folder, KEY, splits)
    for name in ("scores", "salience"):
        np.testing.assert_array_equal(getattr(read, name), getattr(fitted, name))
    for name in ("gates", "weights"):
        np.testing.assert_array_equal(getattr(read.stack, name), getattr(fitted.stack, name))
    assert (read.kinds, read.selected, read.ratios) == (fitted.kinds, fitted.selected, fitted.ratios)
    assert (read.n_layers, read.width) == (fitted.n_layers, fitted.width) == (3, 10)
    assert read.ratios[-1] == pytest.approx(1)


def test_tables_made_for_people_are_not_read(copy_of_run, splits):
    for table in copy_of_run.glob("*.csv"):
        table.unlink()
    assert read_fitted_probes(copy_of_run, KEY, splits).selected[-1] == 2


def test_probes_for_the_fusion_are_those_of_the_commands_first_seed(run_of_fusion, splits, tmp_path, monkeypatch):
    """The probe command's run, with more seeds and controls, hands over the same probes and scores."""
    monkeypatch.setattr("miner_diag.probes.study.correlate", lambda *args, **how: None)
    study = study_splits(splits, OPTIONS, STATISTICS, n_seeds=2, controls=True, progress=False)
    write_probe_run(RunFolder(tmp_path, "miner_diag.probes", OPTIONS), study, splits, OPTIONS, STATISTICS)
    read = read_fitted_probes(tmp_path, KEY, splits)
    np.testing.assert_array_equal(read.scores, run_of_fusion[1].scores)
    np.testing.assert_array_equal(read.stack.weights, run_of_fusion[1].stack.weights)
    assert len(study.fits) == 2 and study.controls


def test_the_seed_of_the_statistics_is_that_of_the_training(splits, run_of_fusion, monkeypatch):
    monkeypatch.setattr("miner_diag.probes.study.correlate", lambda *args, **how: None)
    other = fit_for_fusion(splits, OPTIONS, StatisticsOptions(seed=8), progress=False)
    assert np.abs(other.stack.weights - run_of_fusion[1].stack.weights).max() > 0


def test_records_name_the_system_and_hold_every_query(run_of_fusion, splits):
    records = read_records(run_of_fusion[0] / "records.jsonl")
    rows = [record for record in records if record.measure == "ndcg_at_5" and record.query_id is not None]
    assert {record.system for record in rows} == {"raw", *KINDS}
    assert len(rows) == 3 * 3 * 48
    means = {(r.system, r.layer): r for r in records if r.measure == "ndcg_at_5" and r.query_id is None}
    assert set(means) == {(s, layer) for s in ("raw", *KINDS) for layer in range(3)} | {("selected_layers", None)}
    for (system, layer), mean in means.items():
        if layer is not None:
            values = [row.value for row in rows if (row.system, row.layer) == (system, layer)]
            assert np.mean(values) == pytest.approx(mean.value, abs=1e-12)
            assert mean.low <= mean.value <= mean.high and mean.n_clusters == 8 and mean.seed == 7


def test_a_dual_encoders_records_name_the_side(tmp_path, monkeypatch, one_thread, capsys):
    monkeypatch.setattr("miner_diag.probes.study.correlate", lambda *args, **how: None)
    splits = fitting_splits(pretend_embedded(shared_layers=False), memory_gb=4.0, side="query")
    fit_for_fusion(splits, OPTIONS, STATISTICS, RunFolder(tmp_path, "miner_diag.probes", OPTIONS), progress=False)
    records = read_records(tmp_path / "records.jsonl")
    assert {record.side for record in records} == {"query"}
    assert "alignment_ratio_query_final" in {record.measure for record in records}
    assert json.loads((tmp_path / "run.json").read_text())["side"] == "query"
    assert "layers of its query encoder" in capsys.readouterr().out


def test_a_folder_that_is_not_whole_is_refused_and_what_is_missing_named(copy_of_run, splits, tmp_path):
    with pytest.raises(ProbeError, match=r"holds no whole probe run \(run.json, records.jsonl, probes.safetensors"):
        read_fitted_probes(tmp_path / "none", KEY, splits)
    (copy_of_run / "selection.json").unlink()
    with pytest.raises(ProbeError, match=r"\(selection.json missing\); run python -m miner_diag.probes --out"):
        read_fitted_probes(copy_of_run, KEY, splits)


@pytest.mark.parametrize("name", ["train", "validation"])
def test_probes_of_other_documents_are_refused(copy_of_run, splits, name):
    content = json.loads((copy_of_run / "run.json").read_text())
    (content["train"] if name == "train" else content)["corpus_revision"] = "0" * 64
    seal_again(copy_of_run / "run.json", content)
    with pytest.raises(ProbeError, match=f"have another {name} split than this run \\(000000000000… there, "):
        read_fitted_probes(copy_of_run, KEY, splits)


def test_probes_of_another_backbone_are_refused(run_of_fusion, splits):
    with pytest.raises(
        ProbeError, match="another backbone. Fields that differ: backbone_revision: '1' there, '2' asked"
    ):
        read_fitted_probes(run_of_fusion[0], KEY | {"backbone_revision": "2"}, splits)


def test_files_that_do_not_belong_together_are_refused(copy_of_run, splits):
    path = copy_of_run / "selection.json"
    selection = json.loads(path.read_text())
    seal_again(path, selection | {"chosen_kinds_of_all_layers": ["base"]})
    with pytest.raises(ProbeError, match="selection.json does not fit the probes beside it, which are of 3 layers"):
        read_fitted_probes(copy_of_run, KEY, splits)
    path.write_text("{}")
    with pytest.raises(ProbeError, match="selection.json is damaged"):
        read_fitted_probes(copy_of_run, KEY, splits)


def test_damaged_salience_is_refused(copy_of_run, splits):
    (copy_of_run / "salience.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ProbeError, match="salience.safetensors is damaged"):
        read_fitted_probes(copy_of_run, KEY, splits)


def write_other_records(folder, records):
    """Write records as if the run had written them."""
    write_records(folder / "records.jsonl", records)
    seal_records(folder)


def test_records_that_lack_a_query_are_refused(copy_of_run, splits):
    records = read_records(copy_of_run / "records.jsonl")
    last = max(row for row, record in enumerate(records) if record.system == "base" and record.query_id is not None)
    write_other_records(copy_of_run, [record for row, record in enumerate(records) if row != last])
    with pytest.raises(ProbeError, match="must hold ndcg_at_5 of 48 validation queries for both kinds of probe"):
        read_fitted_probes(copy_of_run, KEY, splits)


def test_records_are_known_by_their_fields_not_by_their_order(run_of_fusion, copy_of_run, splits):
    records = read_records(copy_of_run / "records.jsonl")
    write_other_records(copy_of_run, reversed(records))
    read = read_fitted_probes(copy_of_run, KEY, splits)
    np.testing.assert_allclose(read.scores, run_of_fusion[1].scores, atol=1e-12)
    assert read.ratios == run_of_fusion[1].ratios


def same(one, other):
    arrays = zip(
        (one.scores, one.salience, one.stack.gates, one.stack.weights),
        (other.scores, other.salience, other.stack.gates, other.stack.weights),
        strict=True,
    )
    facts = ("kinds", "selected", "ratios")
    return all(np.array_equal(a, b) for a, b in arrays) and all(getattr(one, f) == getattr(other, f) for f in facts)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_refused_by_the_files_name_or_changes_nothing(run_of_fusion, copy_of_run, splits, name):
    path, n_refused = copy_of_run / name, 0
    for changed in one_bit_flipped(path.read_bytes()):
        path.write_bytes(changed)
        try:
            assert same(read_fitted_probes(copy_of_run, KEY, splits), run_of_fusion[1])
        except ValueError as error:
            assert name in str(error) and "again" in str(error)
            n_refused += 1
    assert n_refused > 25


def test_probes_that_an_earlier_version_wrote_are_refused_with_the_next_step(copy_of_run, splits):
    path = copy_of_run / "probes.safetensors"
    save_file(load_file(path), path, metadata={"miner_diag": json.dumps({"format": 1, "backbone": KEY})})
    with pytest.raises(ProbeError, match=r"probes.safetensors .* it has no hash of its content, as an .*fit again"):
        read_fitted_probes(copy_of_run, KEY, splits)
