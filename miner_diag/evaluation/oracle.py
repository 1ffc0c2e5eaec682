"""The oracle: the best layer's probe, or the fusion, picked for each query by the answers. A bound, not a system."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from miner_diag.evaluation.compare import EvaluationError
from miner_diag.probes.kinds import KINDS
from miner_diag.probes.probe_stack import Probe, ProbeStack
from miner_diag.probes.retrieval_data import RetrievalData, layer_of
from miner_diag.retrieval.ranking import measure_vectors
from miner_diag.sealed import DamagedError, read_sealed

ORACLE = "oracle_layer"
"""The name of the row."""


def read_layer_probes(folder: Path, backbone: Mapping[str, str]) -> list[Probe]:
    """Return the probe of the chosen kind for each layer, as the probe run in `folder` has them.

    Raises
    ------
    EvaluationError
        If the folder's selection is damaged or does not fit its probes.
    ProbeError
        If the probes are not there, or are those of another backbone.
    """
    stack = ProbeStack.load(folder / "probes.safetensors", backbone)
    path = folder / "selection.json"
    again = "start python -m miner_diag.probes again"
    if not path.is_file():
        raise EvaluationError(f"{path} is not there; {again}")
    try:
        kinds = read_sealed(path)["chosen_kinds_of_all_layers"]
    except (DamagedError, KeyError) as error:
        raise EvaluationError(f"{path} is damaged ({error}); {again}") from None
    if len(kinds) != len(stack.gates) or not set(kinds) <= set(KINDS):
        raise EvaluationError(f"{path} must name a kind of probe for each of {len(stack.gates)} layers; {again}")
    return [stack.probe(layer, kind) for layer, kind in enumerate(kinds)]


def oracle_values(probes: list[Probe], data: RetrievalData, fusion: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return each metric [1, Q] of the best single layer's probe, or of the fusion, for each query and metric.

    Parameters
    ----------
    probes : list of Probe
        One for each layer.
    data : RetrievalData
        The queries and pages.
    fusion : mapping
        Metric -> its values [S, Q] of the fusion, whose mean over seeds takes part.
    """
    best = {name: values.mean(axis=0, keepdims=True) for name, values in fusion.items()}
    for probe in probes:
        queries = probe.apply(layer_of(data.queries, probe.layer), "query")
        pages = probe.apply(layer_of(data.pages, probe.layer), "page")
        found = measure_vectors(queries, pages, data.relevance, tuple(best), hits=False).metrics
        best = {name: np.maximum(values, found[name].values) for name, values in best.items()}
    return best
