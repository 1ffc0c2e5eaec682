"""Fusion: selected layers, masked and weighted, in one vector of the same size, judged against honest controls."""

from miner_diag.fusion.fit import fit_fusion
from miner_diag.fusion.folded import Folded, fold
from miner_diag.fusion.judge import Judgement, judge_systems, read_test
from miner_diag.fusion.masks import MaskOptions, adaptive_shares, neuron_mask, neuron_masks
from miner_diag.fusion.model import Fusion, FusionError, projection_map
from miner_diag.fusion.result import AblationOptions, Entry, SensitivityOptions, oracle, run_rows, sensitivity
from miner_diag.fusion.systems import Probed, Row, Shape, build_fusion, query_specific, rows
from miner_diag.fusion.train import Trained, TrainingOptions, embed_split, ndcg_of, train

__all__ = [
    "AblationOptions",
    "Entry",
    "Folded",
    "Fusion",
    "FusionError",
    "Judgement",
    "MaskOptions",
    "Probed",
    "Row",
    "SensitivityOptions",
    "Shape",
    "Trained",
    "TrainingOptions",
    "adaptive_shares",
    "build_fusion",
    "embed_split",
    "fit_fusion",
    "fold",
    "judge_systems",
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
