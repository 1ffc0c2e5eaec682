"""Probes: a light map of each frozen layer, fitted on cached vectors; which kind each needs, which layers to keep."""

from miner_diag.probes.compare_kinds import best_threshold, compare_kinds, correlate, predicted_kinds, score_rule
from miner_diag.probes.kinds import KINDS, Kind, base_probe, projection_probe
from miner_diag.probes.probe_stack import Probe, ProbeError, ProbeStack
from miner_diag.probes.retrieval_data import RetrievalData
from miner_diag.probes.salience import concentration, neurons_for, salience
from miner_diag.probes.select import FusedScores, SelectionRule, Stability, select, stability
from miner_diag.probes.study import Study, StudyOptions, study
from miner_diag.probes.train import Fitted, ProbeTrainOptions, fit_probes, judge, probe_scores

__all__ = [
    "KINDS",
    "Fitted",
    "FusedScores",
    "Kind",
    "Probe",
    "ProbeError",
    "ProbeStack",
    "ProbeTrainOptions",
    "RetrievalData",
    "SelectionRule",
    "Stability",
    "Study",
    "StudyOptions",
    "base_probe",
    "best_threshold",
    "compare_kinds",
    "concentration",
    "correlate",
    "fit_probes",
    "judge",
    "neurons_for",
    "predicted_kinds",
    "probe_scores",
    "projection_probe",
    "salience",
    "score_rule",
    "select",
    "stability",
    "study",
]
