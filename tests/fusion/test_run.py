"""What a run leaves: systems, tables, records and sentences; how it goes on, and which options it refuses."""

from __future__ import annotations

import json
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from miner_diag.corpus import CorpusError
from miner_diag.corpus.options import DataOptions
from miner_diag.corpus.splits import split_of
from miner_diag.embeddings import StoreOptions
from miner_diag.fusion import (
    ROWS,
    Fusion,
    FusionConfig,
    FusionError,
    MaskOptions,
    SensitivityOptions,
    TuningOptions,
    fold_folders,
    load_systems,
    ndcg_of,
    probes_folder,
    read_fitted_to,
    read_head,
    read_load_options,
)
from miner_diag.fusion import training as training_module
from miner_diag.fusion.fold import choose_layers, closing_lines, score_line
from miner_diag.fusion.miner import MergedMiner, MinerFusion
from miner_diag.fusion.miner_building import build_miner
from miner_diag.fusion.miner_rows import DIFFERENCES
from miner_diag.fusion.rows import DEFAULT, FORMS, HEADS
from miner_diag.fusion.run import FusionOptions, next_command, options_of_fold
from miner_diag.probes import ProbeError, ProbeTrainOptions, SelectionRule, StudyOptions, fitting_splits
from miner_diag.records import read_records
from miner_diag.sealed import read_tensors, write_tensors
from miner_diag.stats import StatisticsOptions
from tests.fusion.helpers import KEY, QUICK, content_of, make_miner, make_probes, pretend_embedded, run_on

FOLD = 4
"""A further split by document whose splits all hold queries."""
FILES = {
    "fusion.safetensors",
    "fusion.json",
    "systems.json",
    "systems",
    "fitted_to.json",
    "selection.json",
    "masks.csv",
    "weights.csv",
    "seeds.csv",
    "training.csv",
    "records.jsonl",
    "run.json",
    "weights.png",
    "training.png",
    "weights.svg",
    "training.svg",
    "probes",
}
GRID = SensitivityOptions(shares=(0.5, 1.0), n_layers=(2,), thresholds=(0.5,))


@pytest.fixture(scope="module")
def finished(one_thread, tmp_path_factory):
    """The whole ablation, a further split by document, and the sensitivity table."""
    embedded, text = pretend_embedded(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(text):
        out = run_on(
            embedded,
            tmp_path_factory.mktemp("run") / "fusion",
            patch,
            figures=True,
            systems=("all",),
            folds=(FOLD,),
            sensitivity=True,
            grid=GRID,
        )
    return SimpleNamespace(
        out=out,
        embedded=embedded,
        text=text.getvalue(),
        run=json.loads((out / "run.json").read_text()),
        systems={system.name: system for system in load_systems(out, KEY)},
        splits=fitting_splits(pretend_embedded(), memory_gb=4.0),
    )


# --- files


def test_writes_what_it_promises_and_nothing_else(finished):
    extra = {"sensitivity.csv", "sensitivity.png", "sensitivity.svg", f"fold-{FOLD}"}
    assert {path.name for path in finished.out.iterdir()} == FILES | extra
    assert {path.name for path in (finished.out / f"fold-{FOLD}").iterdir()} == FILES


def test_all_systems_are_saved_and_give_their_validation_scores(finished):
    assert list(finished.systems) == [row.name for row in ROWS]
    validation = finished.splits.validation.data
    for system in finished.systems.values():
        for module, score in zip(system.modules, system.validation_ndcg_at_5, strict=True):
            assert ndcg_of(module, validation).mean() == pytest.approx(score, abs=1e-12), system.name


def test_the_default_systems_are_those_of_each_further_fold(finished):
    folder = finished.out / f"fold-{FOLD}"
    differences = {difference.name for difference in DIFFERENCES}  # they are among all, which this run trains
    assert {system.name for system in load_systems(folder, KEY)} == {*DEFAULT, *differences}
    assert options_of_fold(replace(QUICK, systems=("no_bias",)), FOLD).systems == ("default",)
    assert options_of_fold(replace(QUICK, systems=("differences",)), FOLD).systems == ("default", "differences")
    assert fold_folders(finished.out) == {0: finished.out, FOLD: folder}
    assert fold_folders(folder) == {FOLD: folder}
    assert read_fitted_to(folder).fold == FOLD and read_fitted_to(finished.out).fold == 0
    assert read_fitted_to(folder).documents != read_fitted_to(finished.out).documents
    assert read_load_options(folder) == read_load_options(finished.out) == QUICK.load
    assert json.loads((folder / "run.json").read_text())["options"]["data"]["fold"] == FOLD


def test_the_fusion_that_is_handed_out_is_the_best_on_validation(finished):
    fusion = finished.systems["miner"]
    best = int(np.argmax(fusion.validation_ndcg_at_5))
    handed_out = MinerFusion.load(finished.out, KEY)
    assert content_of(handed_out) == content_of(fusion.modules[best])
    facts = json.loads((finished.out / "fusion.json").read_text())
    assert facts["seed"] == fusion.seeds[best] and facts["best_epoch"] == fusion.best_epochs[best]
    assert facts["validation_ndcg_at_5"] == fusion.validation_ndcg_at_5[best]
    assert {"corpus", "corpus_form", "fold", "training", "miner", "backbone_name"} <= set(facts)
    assert facts["form"] == "miner"
    assert not any("test" in name for name in facts)


def test_the_head_is_the_one_that_validation_likes_best(finished):
    means = {name: np.mean(finished.systems[name].validation_ndcg_at_5) for name in HEADS}
    assert read_head(finished.out) == finished.run["head"] == max(means, key=means.get)


def test_every_trained_row_had_the_same_budget(finished):
    for system in finished.systems.values():
        if system.n_parameters:
            assert system.seeds == (0, 1), system.name
            assert system.learning_rate == pytest.approx(0.5 * QUICK.training.learning_rate)
            assert system.weight_learning_rate == pytest.approx(0.5 * QUICK.training.weight_learning_rate)
        else:
            assert system.seeds == (None,) and system.learning_rate is None


# --- tables, records, run.json


def test_tables_have_their_rows(finished):
    weights, seeds = pd.read_csv(finished.out / "weights.csv"), pd.read_csv(finished.out / "seeds.csv")
    assert list(weights.columns[:4]) == ["data", "queries", "split", "model"]
    assert list(weights.columns[4:]) == ["seed", "layer", "kind", "weight", "kept_share", "kept_neurons"]
    assert sorted(set(weights["layer"])) == finished.run["selected_layers"]["miner"] and set(weights["seed"]) == {0, 1}
    assert (weights["kept_neurons"] == 16 * weights["kept_share"]).all()
    assert len(seeds) == sum(len(system.modules) for system in finished.systems.values())
    for name, rows in seeds.groupby("system"):
        assert rows["validation_ndcg_at_5"].tolist() == pytest.approx(finished.systems[name].validation_ndcg_at_5)
        assert rows["seed"].isna().all() == (finished.systems[name].n_parameters == 0)
    assert not any("test" in column for column in seeds.columns)
    curves = pd.read_csv(finished.out / "training.csv")
    assert set(curves["system"]) == {name for name, system in finished.systems.items() if system.n_parameters}
    for _, rows in curves.groupby(["system", "seed"]):
        assert rows["epoch"].tolist() == list(range(len(rows))) and rows["loss"].notna().sum() == len(rows) - 1
    grid = pd.read_csv(finished.out / "sensitivity.csv")
    assert {"kept_share", "n_layers", "threshold"} <= set(grid.columns) and len(grid) == 2


def test_masks_and_selection_say_what_the_authors_form_was_built_of(finished):
    masks = pd.read_csv(finished.out / "masks.csv")
    selection = json.loads((finished.out / "selection.json").read_text())
    facts = json.loads((finished.out / "fusion.json").read_text())
    assert list(masks.columns) == ["layer", "kind", "score", "eta", "kept", "share"]
    assert masks["layer"].tolist() == selection["selected_layers"] == facts["layers"]
    assert masks["kind"].tolist() == facts["kinds"] and masks["share"].tolist() == facts["kept_shares"]
    assert facts["miner"]["mask"]["floor"] == 4 and selection["options"]["select"] == "closest"
    inner = sorted(selection["layers"][:-1], key=lambda row: -row["selected_by"])[:2]
    assert sorted(row["layer"] for row in inner) == selection["selected_layers"][:-1]
    probes = finished.run["miner_probes"]
    scores = dict(zip(probes["layers"], probes["validation_ndcg_at_5"], strict=True))
    assert masks["score"][:-1].tolist() == [scores[layer] for layer in masks["layer"][:-1]]
    merged = MergedMiner(finished.systems["miner"].modules[0])
    assert finished.run["merged"] == {"multiply_adds": merged.multiply_adds, "bytes": merged.n_bytes}


def test_our_form_is_handed_out_where_it_is_asked_for(finished, tmp_path, monkeypatch):
    run_on(pretend_embedded(), tmp_path, monkeypatch, form="trained_maps")
    system = {system.name: system for system in load_systems(tmp_path, KEY)}["trained_maps"]
    assert content_of(Fusion.load(tmp_path, KEY)) == content_of(
        system.modules[int(np.argmax(system.validation_ndcg_at_5))]
    )
    facts, run = (json.loads((tmp_path / name).read_text()) for name in ("fusion.json", "run.json"))
    assert (facts["form"], run["form"]) == ("trained_maps", "trained_maps") and {"config", "mask"} <= set(facts)
    weights = pd.read_csv(tmp_path / "weights.csv")
    assert sorted(set(weights["layer"])) == run["selected_layers"]["trained_maps"]
    # what was trained is the same whichever form is handed out
    again = fitted_bytes(tmp_path)
    assert again == {name: content for name, content in fitted_bytes(finished.out).items() if name in again}


def test_records_hold_every_query_system_and_seed_and_their_means(finished):
    records = pd.DataFrame([vars(record) for record in read_records(finished.out / "records.jsonl")])
    assert set(records["split"]) == {"validation"} and set(records["model"]) == {"planted"}
    ndcg = records[records["measure"] == "ndcg_at_5"]
    per_query, means = ndcg[ndcg["query_id"].notna()], ndcg[ndcg["query_id"].isna()]
    assert len(per_query) == 40 * sum(len(system.modules) for system in finished.systems.values())
    assert means["system"].tolist() == list(finished.systems) and (means["n"] == 40).all()
    for mean in means.itertuples():
        rows = per_query[per_query["system"] == mean.system]
        assert rows["value"].mean() == pytest.approx(mean.value, abs=1e-12)
        seeds = set(rows["seed"].dropna())
        assert seeds == ({0, 1} if finished.systems[mean.system].n_parameters else set())
    validation = finished.splits.validation.data
    module = finished.systems["miner"].modules[1]
    rows = per_query[(per_query["system"] == "miner") & (per_query["seed"] == 1)]
    assert rows["query_id"].tolist() == list(validation.relevance.query_ids)
    np.testing.assert_allclose(rows["value"], ndcg_of(module, validation), atol=1e-12)
    shares = records[records["measure"] == "kept_share"]
    weights = pd.read_csv(finished.out / "weights.csv")
    assert set(shares["system"]) == set(FORMS)
    assert shares.loc[shares["system"] == "miner", "value"].tolist() == weights["kept_share"].tolist()


def test_run_json_says_what_was_used(finished):
    run = finished.run
    assert run["command"] == "miner_diag.fusion" and run["folds"] == {"0": ".", str(FOLD): f"fold-{FOLD}"}
    assert run["systems"] == list(finished.systems)
    assert run["train"]["corpus_part"] == "train" and run["validation"]["corpus_part"] == "validation"
    assert run["train"]["n_documents"] == run["validation"]["n_documents"] == 4
    assert (run["probes"], probes_folder(finished.out)) == ("probes", finished.out / "probes")
    assert run["options"]["tuning"] == {"n_seeds": 2, "rate_scales": [0.5]}
    assert "test" not in run and not any("test" in key for key in run)


def test_the_probes_are_written_as_their_own_command_writes_them(finished):
    run = json.loads((finished.out / "probes" / "run.json").read_text())
    assert run["command"] == "miner_diag.probes"
    assert (run["options"]["n_seeds"], run["options"]["controls"]) == (1, False)
    assert run["options"]["study"]["training"]["epochs"] == 2
    names = {path.name for path in (finished.out / "probes").iterdir()}
    assert {"probes.csv", "probes.safetensors", "salience.safetensors", "selection.json", "records.jsonl"} <= names


# --- sentences


def test_the_closing_lines_say_what_counts_and_what_does_not(finished):
    text, run = finished.text, finished.run
    assert all(line in text for line in run["sentences"])
    ours = ", ".join(map(str, run["selected_layers"]["trained_maps"]))
    assert f"trained_maps, ours, takes layers {ours}. The head on the final layer that validation likes best is" in text
    masks = pd.read_csv(finished.out / "masks.csv")
    assert masks["layer"].tolist() == run["selected_layers"]["miner"]
    kinds = ["base" if kind == "base" else "norm" for kind in masks["kind"]]
    theirs = ", ".join(f"{layer} ({kind})" for layer, kind in zip(masks["layer"], kinds, strict=True))
    assert f"miner, the authors' form, takes layers {theirs};" in text
    assert f"Merged for serving, miner costs {run['merged']['multiply_adds']:,} multiply-adds an item" in text
    scores = {name: np.mean(finished.systems[name].validation_ndcg_at_5) for name in ("backbone", run["head"], *FORMS)}
    listed = ", ".join(f"{name} {score:.4f}" for name, score in scores.items())
    assert f"Document split 0, nDCG@5 of validation queries, mean over 2 seeds: {listed}." in text
    assert "the test documents were not read" in text and "these numbers are too good" in text
    assert f"Document split {FOLD}, nDCG@5 of validation queries" in run["sentences"][-1]
    assert text.splitlines()[-1].startswith(f"next: python -m miner_diag.evaluation --systems {finished.out} --data ")


def test_a_fusion_that_gains_nothing_is_not_handed_out_in_silence():
    split = SimpleNamespace(facts=lambda: {"n_pairs": 9, "n_documents": 3, "n_queries": 8})

    def fold(gain):
        scores = {"backbone": 0.5, "final_layer_mlp": 0.5, "miner": 0.5 + gain, "trained_maps": 0.55}
        return SimpleNamespace(
            number=0,
            head="final_layer_mlp",
            cautions=("a caution",),
            materials=SimpleNamespace(layers=(1, 4), miner=make_miner()),
            form="miner",
            main=SimpleNamespace(runs=(None,)),
            merged_miner=MergedMiner(build_miner(make_miner())),
            splits=SimpleNamespace(train=split, validation=split),
            system=lambda name: SimpleNamespace(validation=np.full((1, 8), scores[name])),
        )

    message = "miner gains nothing over the backbone on validation: the backbone is the better choice."
    assert closing_lines(fold(0.0))[-2:] == [message, "a caution"]
    assert message not in closing_lines(fold(0.1))
    assert score_line(fold(0.1)).endswith(
        "mean over 1 seed: backbone 0.5000, final_layer_mlp 0.5000, miner 0.6000, trained_maps 0.5500."
    )


def test_the_next_command_names_data_that_are_not_the_default():
    data, store = DataOptions("my data", queries="verbatim", fold=3, limit=50), StoreOptions(Path("kept"))
    options = replace(QUICK, data=data, store=store)
    assert next_command(options) == (
        "python -m miner_diag.evaluation --systems runs/fusion --data 'my data' --queries verbatim --fold 3 --limit 50 "
        "--store kept --split test"
    )


# --- which layers


def test_the_probes_selection_is_taken_unless_layers_are_named():
    probes = make_probes(selected=(1, 4))
    assert choose_layers(probes, ()) == (probes, [])
    named, cautions = choose_layers(probes, (0, 2, 4))
    assert named.selected == (0, 2, 4) and not cautions


def test_a_selection_of_the_final_layer_alone_gets_the_best_inner_layer_and_a_caution():
    probes = make_probes(selected=(4,))
    chosen, (caution,) = choose_layers(probes, ())
    best = int(probes.scores[:, :-1].max(axis=0).argmax())
    assert chosen.selected == (best, 4)
    assert f"keeps the final layer only; so that there is something to fuse, layer {best}, whose probe" in caution


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((4,), "the selected layers are the final one, 4, only: there is nothing to fuse"),
        ((0, 1), r"up to the final layer 4; got \[0, 1\]"),
        ((0, 1, 2, 3, 4, 4), "layers must be at most 5, as many as the backbone has; got 6"),
    ],
)
def test_layers_that_cannot_be_fused_are_named(finished, tmp_path, monkeypatch, layers, message):
    given = {"probes": finished.out / "probes", "probe": StudyOptions(), "statistics": StatisticsOptions()}
    with pytest.raises(FusionError, match=message):
        run_on(pretend_embedded(), tmp_path, monkeypatch, layers=layers, **given)


# --- probes of an earlier run; runs that were stopped


def fitted_bytes(folder):
    return {path.name: path.read_bytes() for path in (folder / "systems").iterdir()}


GIVEN = {"probe": StudyOptions(), "statistics": StatisticsOptions()}
"""Options that leave the probes as they were fitted."""


def test_probes_of_an_earlier_run_are_read_and_give_the_same_systems(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("miner_diag.fusion.run.fit_for_fusion", None)  # fitting probes would fail
    given = finished.out / "probes"
    out = run_on(
        pretend_embedded(), tmp_path / "b", monkeypatch, probes=given, store=StoreOptions(memory_gb=1e-9), **GIVEN
    )
    again = fitted_bytes(out)
    assert again == {name: content for name, content in fitted_bytes(finished.out).items() if name in again}
    assert probes_folder(out) == given and not (out / "probes").exists()


def test_probes_of_other_documents_are_refused(finished, tmp_path, monkeypatch):
    embedded = pretend_embedded(swap="train")
    with pytest.raises(ProbeError, match=r"have another train split than this run .*test pages may be among"):
        run_on(embedded, tmp_path, monkeypatch, probes=finished.out / "probes", **GIVEN)


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bytes(finished, tmp_path, monkeypatch):
    calls, loss = [], training_module.batch_loss

    def stopping(*args):
        calls.append(1)
        if len(calls) > 60:
            raise KeyboardInterrupt
        return loss(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training_module, "batch_loss", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_on(pretend_embedded(), tmp_path, patch)
    (state,) = (tmp_path / "state").iterdir()
    assert (tmp_path / "probes" / "run.json").exists() and not (tmp_path / "run.json").exists()
    n_states, n_calls = len(list(state.iterdir())), []
    assert n_states > 2
    monkeypatch.setattr("miner_diag.fusion.run.fit_for_fusion", None)  # fitting probes again would fail
    monkeypatch.setattr(training_module, "batch_loss", lambda *args: (n_calls.append(1), loss(*args))[1])
    run_on(pretend_embedded(), tmp_path, monkeypatch)
    again = fitted_bytes(tmp_path)
    assert again == {name: content for name, content in fitted_bytes(finished.out).items() if name in again}
    assert not (tmp_path / "state").exists() and 0 < len(n_calls) < 2 * 8 * 2 * 6  # not all steps were done again


def test_states_whose_trainings_began_otherwise_are_put_aside(finished, tmp_path, monkeypatch, caplog):
    """Another number of threads moves what a training starts from by a rounding error."""
    with monkeypatch.context() as patch:
        patch.setattr("miner_diag.fusion.run.write_fold", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_on(pretend_embedded(), tmp_path, patch)
    (state,) = (tmp_path / "state").iterdir()
    files = sorted(state.glob("*.safetensors"))
    for path in files:
        facts, arrays = read_tensors(path)
        write_tensors(path, arrays, {**facts, "key": facts["key"].replace('"start":"', '"start":"0')})
    monkeypatch.setattr("miner_diag.fusion.run.fit_for_fusion", None)  # fitting probes again would fail
    run_on(pretend_embedded(), tmp_path, monkeypatch)
    again = fitted_bytes(tmp_path)
    assert again == {name: content for name, content in fitted_bytes(finished.out).items() if name in again}
    asides = [message for message in caplog.messages if "is the state of another training; it is put aside" in message]
    assert len(asides) == len(files) > 2 and not (tmp_path / "state").exists()


def test_own_probes_that_are_damaged_are_refused_with_a_way_out(finished, tmp_path, monkeypatch):
    shutil.copytree(finished.out / "probes", tmp_path / "probes")
    for name in ("salience.safetensors", "records.jsonl", "run.json"):
        whole = (tmp_path / "probes" / name).read_bytes()
        (tmp_path / "probes" / name).write_bytes(whole[:-4] + b"9}}\n")
        with pytest.raises(ProbeError, match=rf"{name} is damaged .*; or delete .*probes, and this command fits them"):
            run_on(pretend_embedded(), tmp_path, monkeypatch)
        (tmp_path / "probes" / name).write_bytes(whole)


def test_a_run_with_other_options_does_not_take_up_the_states(finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("miner_diag.fusion.run.write_fold", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_on(pretend_embedded(), tmp_path, patch)
    (state,) = (tmp_path / "state").iterdir()
    before = {path.name for path in state.iterdir()}
    other = replace(QUICK.training, epochs=1)
    run_on(pretend_embedded(), tmp_path, monkeypatch, training=other)
    assert before and not (tmp_path / "state").exists()
    assert json.loads((tmp_path / "run.json").read_text())["options"]["training"]["epochs"] == 1


def test_own_probes_that_were_fitted_otherwise_are_refused(finished, tmp_path, monkeypatch):
    shutil.copytree(finished.out / "probes", tmp_path / "probes")
    probe = replace(QUICK.probe, training=replace(QUICK.probe.training, epochs=3))
    with pytest.raises(FusionError) as refused:
        run_on(pretend_embedded(), tmp_path, monkeypatch, probe=probe, statistics=replace(QUICK.statistics, seed=9))
    message = str(refused.value)
    assert "holds probes that were fitted with other options (--probe.epochs: 2 there, 3 here; --seed: 0 there, 9 " in (
        message
    )
    assert "delete that folder, choose another --out, or name the probes with --probes" in message


def test_an_interrupted_run_does_not_pass_for_the_earlier_one(finished, tmp_path, monkeypatch):
    out = shutil.copytree(finished.out, tmp_path / "fusion")
    with monkeypatch.context() as patch:
        patch.setattr("miner_diag.fusion.run.fit_fold", lambda *args, **how: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_on(pretend_embedded(), out, patch)
    with pytest.raises(ValueError, match=r"holds no finished run \(run.json is missing\)"):
        read_load_options(out)


def test_the_folder_of_another_command_is_left_alone(finished, tmp_path, monkeypatch):
    out = shutil.copytree(finished.out / "probes", tmp_path / "probes")
    before = (out / "run.json").read_bytes()
    with pytest.raises(ValueError, match="is a run of miner_diag.probes; expected one of miner_diag.fusion"):
        run_on(pretend_embedded(), out, monkeypatch)
    assert (out / "run.json").read_bytes() == before


# --- what is refused


def test_a_dual_encoder_is_refused_before_anything_is_embedded(tmp_path, monkeypatch):
    embedded = pretend_embedded(shared_layers=False)
    with pytest.raises(FusionError, match="model planted is a dual encoder, whose layers do not correspond"):
        run_on(embedded, tmp_path, monkeypatch)
    assert embedded.taken == []


def test_a_fold_without_validation_queries_is_refused_before_anything_is_fitted(tmp_path, monkeypatch):
    embedded = pretend_embedded()
    asked = {"d00", "d01"}  # with two documents that are asked for, a fold can leave validation without queries
    queries = tuple(query for query in embedded.corpus.queries if query.doc_id in asked)
    qrels = {query.query_id: embedded.corpus.qrels[query.query_id] for query in queries}
    embedded.corpus = replace(embedded.corpus, queries=queries, qrels=qrels)
    fold = next(n for n in range(1, 100) if {split_of(name, n) for name in asked} == {"train"})
    with pytest.raises(CorpusError, match=rf"the validation split of planted \(fold {fold}\) holds no query"):
        run_on(embedded, tmp_path, monkeypatch, folds=(fold,))
    assert embedded.taken == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"systems": ("magic",)},
            "systems must be default, differences, all, or some of backbone, .*query_specific; got magic",
        ),
        ({"folds": (0,)}, r"folds must be other splits by document than --fold 0, each once; got \(0,\)"),
        ({"folds": (1, 1)}, "each once"),
        ({"folds": (-1,)}, "folds must be other splits"),
        ({"grid": SensitivityOptions(shares=(0.5,))}, "--grid has no effect without --sensitivity"),
        ({"mask": MaskOptions(share=0.3)}, "--mask.share has no effect with --mask.mask adaptive, unless the system "),
        (
            {"mask": MaskOptions(mask="none", min_share=0.3)},
            "--mask.min-share and --mask.max-share have no effect with",
        ),
        ({"mask": MaskOptions(mask="fixed", max_share=0.9)}, "have no effect with --mask.mask fixed"),
        (
            {"config": FusionConfig(start="identity", shrinkage=0.3), "systems": ("no_bias",)},
            "--config.shrinkage has no effect with --config.start identity, unless the system whitened is made",
        ),
        (
            {"probes": "p", "probe": StudyOptions(training=ProbeTrainOptions(epochs=1))},
            "--probes names probes that are fitted, so options of --probe have no effect; leave them out",
        ),
        (
            {"probes": "p", "probe": StudyOptions(selection=SelectionRule(rule="top_k"))},
            "so options of --probe have no effect",
        ),
        (
            {"probes": "p", "statistics": StatisticsOptions(seed=1)},
            "so --intervals-over, --confidence and --seed have no effect; leave them out",
        ),
    ],
)
def test_options_that_are_unknown_or_have_no_effect_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FusionOptions(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"mask": MaskOptions(share=0.3), "systems": ("fixed_mask",)},
        {"mask": MaskOptions(share=0.3), "systems": ("all",)},
        {"mask": MaskOptions(mask="fixed", share=0.3)},
        {"mask": MaskOptions(mask="random", min_share=0.2)},
        {"config": FusionConfig(start="identity", shrinkage=0.3)},
        {"grid": SensitivityOptions(shares=(0.5,)), "sensitivity": True},
        {"probes": "p", "statistics": StatisticsOptions(seed=1), "folds": (1,)},
        {"tuning": TuningOptions(n_seeds=1)},
    ],
)
def test_options_that_have_an_effect_are_not(options):
    FusionOptions(**options)
