"""Fusion: selected layers, masked and weighted, in one vector of the same size; fitted and saved, not measured here."""

from miner_diag.fusion.building import FusionConfig, build_fusion
from miner_diag.fusion.errors import FusionError, LeakageError
from miner_diag.fusion.fit import fit_fusion
from miner_diag.fusion.masks import MaskOptions, adaptive_shares, neuron_mask, neuron_masks
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
    "Row",
    "SavedSystem",
    "SensitivityOptions",
    "System",
    "TrainedRun",
    "TrainedSystem",
    "TuningOptions",
    "adaptive_shares",
    "apply",
    "best_head",
    "build_fusion",
    "chosen_rows",
    "encode",
    "fit_fusion",
    "fold_folders",
    "load_systems",
    "merge",
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
    "train",
    "tune_all",
]
