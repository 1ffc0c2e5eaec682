"""Fusion: selected layers, masked and weighted, in one vector of the same size, judged against honest controls."""

from miner_diag.fusion.fit import fit_fusion
from miner_diag.fusion.judge import SystemComparison, judge_systems, read_test
from miner_diag.fusion.masks import MaskOptions, adaptive_shares, neuron_mask, neuron_masks
from miner_diag.fusion.merged import MergedFusion, merge
from miner_diag.fusion.model import Fusion, FusionError, projection_map
from miner_diag.fusion.result import AblationOptions, SensitivityOptions, TrainedSystem, oracle, run_rows, sensitivity
from miner_diag.fusion.systems import FittedProbes, FusionConfig, Row, build_fusion, query_specific, rows
from miner_diag.fusion.train import FusionTrainOptions, TrainedRun, embed_split, ndcg_of, train

__all__ = [
    "AblationOptions",
    "FittedProbes",
    "Fusion",
    "FusionConfig",
    "FusionError",
    "FusionTrainOptions",
    "MaskOptions",
    "MergedFusion",
    "Row",
    "SensitivityOptions",
    "SystemComparison",
    "TrainedRun",
    "TrainedSystem",
    "adaptive_shares",
    "build_fusion",
    "embed_split",
    "fit_fusion",
    "judge_systems",
    "merge",
    "ndcg_of",
    "neuron_mask",
    "neuron_masks",
    "oracle",
    "projection_map",
    "query_specific",
    "read_test",
    "rows",
    "run_rows",
    "sensitivity",
    "train",
]
