"""Fusion: selected layers, masked and weighted, in one vector of the same size; fitted and saved, not measured here."""

from miner_diag.fusion.building import FusionConfig, build_fusion
from miner_diag.fusion.errors import FusionError, LeakageError
from miner_diag.fusion.fit import fit_fusion
from miner_diag.fusion.loading import load_fusion, merge_for_serving
from miner_diag.fusion.masks import MaskOptions, adaptive_shares, neuron_mask, neuron_masks
from miner_diag.fusion.miner import MergedMiner, MinerFusion
from miner_diag.fusion.miner_building import MinerOptions, MinerParts, build_miner, fit_miner_parts
from miner_diag.fusion.model import Fusion, MergedFusion, merge, projection_map
from miner_diag.fusion.rows import ROWS, Materials, Row, chosen_rows, query_specific
from miner_diag.fusion.saved_systems import (
    FittedTo,
    SavedSystem,
    fold_folders,
    load_systems,
    probes_folder,
    read_fitted_to,
    read_head,
    read_load_options,
    save_systems,
)
from miner_diag.fusion.sensitivity import SensitivityOptions, sensitivity_table
from miner_diag.fusion.system import System, apply, encode, ndcg_of
from miner_diag.fusion.top_p import TopPOptions, top_p_mask
from miner_diag.fusion.training import FusionTrainOptions, TrainedRun, train
from miner_diag.fusion.tuning import TrainedSystem, TuningOptions, best_head, tune_all

__all__ = [
    "ROWS",
    "FittedTo",
    "Fusion",
    "FusionConfig",
    "FusionError",
    "FusionTrainOptions",
    "LeakageError",
    "MaskOptions",
    "Materials",
    "MergedFusion",
    "MergedMiner",
    "MinerFusion",
    "MinerOptions",
    "MinerParts",
    "Row",
    "SavedSystem",
    "SensitivityOptions",
    "System",
    "TopPOptions",
    "TrainedRun",
    "TrainedSystem",
    "TuningOptions",
    "adaptive_shares",
    "apply",
    "best_head",
    "build_fusion",
    "build_miner",
    "chosen_rows",
    "encode",
    "fit_fusion",
    "fit_miner_parts",
    "fold_folders",
    "load_fusion",
    "load_systems",
    "merge",
    "merge_for_serving",
    "ndcg_of",
    "neuron_mask",
    "neuron_masks",
    "probes_folder",
    "projection_map",
    "query_specific",
    "read_fitted_to",
    "read_head",
    "read_load_options",
    "save_systems",
    "sensitivity_table",
    "top_p_mask",
    "train",
    "tune_all",
]
