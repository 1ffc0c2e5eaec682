"""Where the answer is known: the fusion finds what only an inner layer says, and nothing where there is nothing."""

from types import SimpleNamespace

import numpy as np
import pytest

from miner_diag.fusion import (
    FusionConfig,
    FusionTrainOptions,
    MaskOptions,
    Materials,
    TuningOptions,
    chosen_rows,
    ndcg_of,
    tune_all,
)
from miner_diag.fusion.miner_building import MinerOptions, fit_miner_parts
from miner_diag.fusion.top_p import TopPOptions
from miner_diag.probes import (
    KINDS,
    FittedProbes,
    ProbeTrainOptions,
    SelectionRule,
    StudyOptions,
    fit_probes,
    fitted_probes_of,
    run_study,
    salience,
)
from miner_diag.probes.gate_probes import GateProbeOptions
from miner_diag.stats import paired_bootstrap
from tests.fusion.helpers import plant

SYSTEMS = (
    "backbone",
    "best_single_layer",
    "final_layer_vector",
    "final_layer_linear",
    "final_layer_head",
    "final_layer_mlp",
    "shuffled_layers",
    "miner",
    "trained_maps",
)
PROBES = StudyOptions(
    training=ProbeTrainOptions(
        start="identity",
        learning_rate=3e-3,
        temperature=0.1,
        batch_size=100,
        epochs=6,
        to_final=0.0,
        gate_l1=0.0,
    ),
    selection=SelectionRule(rule="top_k", top_k=2),
    resamples=5,
)
TRAINING = FusionTrainOptions(
    epochs=9, batch_size=100, learning_rate=5e-3, weight_learning_rate=5e-2, temperature=0.1, patience=9
)
MINER = MinerOptions(probes=GateProbeOptions(epochs=4, batch_size=50), mask=TopPOptions(floor=4))
CONFIG = FusionConfig(start="identity", inner_weight=0.0)


def fit(data, probes):
    rows = [row for row in chosen_rows(("all",)) if row.name in SYSTEMS]
    parts = fit_miner_parts(data.train, data.validation, MINER, layers=(1, 4))
    materials = Materials(probes, data.train, CONFIG, MaskOptions(), parts)
    tuning = TuningOptions(n_seeds=1, rate_scales=(1.0,))
    systems = tune_all(rows, materials, data.validation, TRAINING, tuning)
    values = {system.name: ndcg_of(system.runs[0].system, data.test) for system in systems}
    return SimpleNamespace(probes=probes, systems={system.name: system for system in systems}, values=values)


@pytest.fixture(scope="module")
def planted(one_thread):
    data = plant()
    with pytest.MonkeyPatch.context() as patch:  # costs most here and decides nothing
        patch.setattr("miner_diag.probes.study.correlate", lambda *args, **how: None)
        study = run_study(data.train, data.validation, PROBES, n_seeds=1, controls=False)
    return SimpleNamespace(study=study, **vars(fit(data, fitted_probes_of(study))))


@pytest.fixture(scope="module")
def nothing(one_thread):
    data = plant(inner=False)
    first = fit_probes(data.train, data.validation, PROBES.training)
    scores = first.ndcg.mean(axis=2)
    kinds = tuple(KINDS[kind] for kind in scores.argmax(axis=0))
    salient = np.stack(salience(first.stack, data.train))
    return fit(data, FittedProbes(first.stack, scores, salient, kinds, (1, 4), (None,) * 5))


def beyond(fitted, name, other):
    return paired_bootstrap(fitted.values[name], fitted.values[other], np.random.default_rng(0))


def test_the_inner_layer_that_says_more_is_selected(planted):
    assert planted.probes.selected == (1, 4)


def test_what_the_stage_hands_over_is_the_studys(planted):
    probes, first = planted.probes, planted.study.fits[0]
    np.testing.assert_array_equal(probes.scores, first.ndcg.mean(axis=2))
    assert probes.salience.shape == (2, 5, 16) and probes.stack is first.stack
    assert (probes.n_layers, probes.width, len(probes.ratios)) == (5, 16, 5)


HEADS = ("backbone", "final_layer_vector", "final_layer_linear", "final_layer_head", "final_layer_mlp")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("form", ["miner", "trained_maps"])
def test_both_forms_are_clearly_beyond_the_heads(planted, form, head):
    assert beyond(planted, form, head).low > 0.1
    assert beyond(planted, form, "best_single_layer").low > 0.1


def test_layers_of_other_items_are_not(planted):
    gain = beyond(planted, "shuffled_layers", "backbone")
    believed = beyond(planted, "trained_maps", "backbone")
    assert gain.low <= 0.02 and gain.value < 0.1 * believed.value
    assert beyond(planted, "shuffled_layers", "final_layer_linear").low <= 0


def test_the_inner_layer_has_a_weight(planted):
    for run in planted.systems["trained_maps"].runs:
        assert run.best_epoch > 0 and abs(run.system.layer_weights[0].item()) > 0.1
    for run in planted.systems["miner"].runs:
        assert run.best_epoch > 0 and run.system.weights()[0] > 0.1


def test_where_inner_layers_are_noise_nothing_is_gained(nothing):
    for head in ("backbone", "final_layer_linear"):
        for form in ("miner", "trained_maps"):
            assert beyond(nothing, form, head).low <= 0.01, (form, head)
    gains = [beyond(nothing, "trained_maps", head).value for head in ("final_layer_linear", "final_layer_mlp")]
    gains.append(beyond(nothing, "miner", "final_layer_vector").value)
    assert max(gains) < 0.03


def test_no_system_that_starts_as_the_backbone_is_worse_on_validation(nothing, planted):
    for fitted in (nothing, planted):
        least = fitted.systems["backbone"].validation.mean()
        for name in set(SYSTEMS) - {"backbone", "best_single_layer"}:
            for run in fitted.systems[name].runs:
                assert run.score >= least - 1e-12, name
