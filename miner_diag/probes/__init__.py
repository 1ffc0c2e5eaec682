"""Probes: a light map of each frozen layer, fitted on cached vectors; which kind each needs, which layers to keep."""

from miner_diag.probes.compare_kinds import best_threshold, compare_kinds, correlate, predicted_kinds, score_rule
from miner_diag.probes.fitted_probes import FittedProbes, fit_for_fusion, fitted_probes_of, read_fitted_probes
from miner_diag.probes.gate_probes import GateProbeOptions, GateProbes, fit_gate_probes
from miner_diag.probes.hard_negatives import mine_hard_negatives
from miner_diag.probes.kinds import KINDS, Kind, base_probe, projection_probe
from miner_diag.probes.layer_choice import LayerChoice, LayerChoiceOptions, choose_layers
from miner_diag.probes.probe_run import study_splits, write_probe_run
from miner_diag.probes.probe_stack import Probe, ProbeError, ProbeStack
from miner_diag.probes.retrieval_data import RetrievalData
from miner_diag.probes.salience import concentration, neurons_for, salience
from miner_diag.probes.select import FusedScores, SelectionRule, Stability, select, stability
from miner_diag.probes.splits import Split, Splits, fitting_splits, take_split
from miner_diag.probes.study import Study, StudyOptions, run_study
from miner_diag.probes.train import Fitted, ProbeTrainOptions, evaluate_probes, fit_probes, probe_scores

__all__ = [
    "KINDS",
    "Fitted",
    "FittedProbes",
    "FusedScores",
    "GateProbeOptions",
    "GateProbes",
    "Kind",
    "LayerChoice",
    "LayerChoiceOptions",
    "Probe",
    "ProbeError",
    "ProbeStack",
    "ProbeTrainOptions",
    "RetrievalData",
    "SelectionRule",
    "Split",
    "Splits",
    "Stability",
    "Study",
    "StudyOptions",
    "base_probe",
    "best_threshold",
    "choose_layers",
    "compare_kinds",
    "concentration",
    "correlate",
    "evaluate_probes",
    "fit_for_fusion",
    "fit_gate_probes",
    "fit_probes",
    "fitted_probes_of",
    "fitting_splits",
    "mine_hard_negatives",
    "neurons_for",
    "predicted_kinds",
    "probe_scores",
    "projection_probe",
    "read_fitted_probes",
    "run_study",
    "salience",
    "score_rule",
    "select",
    "stability",
    "study_splits",
    "take_split",
    "write_probe_run",
]
