"""Probes: a light map of each frozen layer, fitted on cached vectors; which kind each needs, which layers to keep."""

from miner_diag.probes.data import Judged
from miner_diag.probes.judge import best_threshold, compare_kinds, correlate, predicted_kinds, score_rule
from miner_diag.probes.kinds import KINDS, Kind, base_probe, projection_probe
from miner_diag.probes.result import Study, StudyOptions, study
from miner_diag.probes.salience import concentration, neurons_for, salience
from miner_diag.probes.select import FusedScores, SelectionRule, Stability, select, stability
from miner_diag.probes.stack import Probe, ProbeError, ProbeStack
from miner_diag.probes.train import Fitted, TrainOptions, fit_probes, judge, probe_scores

__all__ = [
    "KINDS",
    "Fitted",
    "FusedScores",
    "Judged",
    "Kind",
    "Probe",
    "ProbeError",
    "ProbeStack",
    "SelectionRule",
    "Stability",
    "Study",
    "StudyOptions",
    "TrainOptions",
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
