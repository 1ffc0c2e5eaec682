"""What the probe stage hands to the fusion: fitted afresh, or read from the folder of an earlier run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miner_diag.probes.kinds import KINDS, Kind
from miner_diag.probes.probe_run import study_splits, write_probe_run
from miner_diag.probes.probe_stack import ProbeError, ProbeStack
from miner_diag.probes.splits import Split, Splits
from miner_diag.probes.study import Study, StudyOptions
from miner_diag.probes.table import MEASURE
from miner_diag.records import Record
from miner_diag.runs import RECORDS, RunFolder, read_run, read_run_records
from miner_diag.sealed import DamagedError, read_sealed, read_tensors
from miner_diag.stats import StatisticsOptions

FILES = ("run.json", RECORDS, "probes.safetensors", "salience.safetensors", "selection.json")
"""The files of a probe run that `read_fitted_probes` reads."""


@dataclass(frozen=True, eq=False)
class FittedProbes:
    """What the probe stage hands over."""

    stack: ProbeStack
    """Both kinds of probe for every layer."""
    scores: np.ndarray
    """[2, L] validation nDCG@5 of base probes and of projections."""
    salience: np.ndarray
    """[2, L, D] salience of every neuron, for both kinds."""
    kinds: tuple[Kind, ...]
    """[L] the kind chosen for each layer."""
    selected: tuple[int, ...]
    """Layers to keep, the final one among them."""
    ratios: tuple[float | None, ...]
    """[L] alignment ratio of pages to the final layer; None where it does not exist."""

    @property
    def n_layers(self) -> int:
        """L, the number of hidden states."""
        return len(self.kinds)

    @property
    def width(self) -> int:
        """D, the number of neurons of a layer."""
        return int(self.salience.shape[2])


def fitted_probes_of(study: Study) -> FittedProbes:
    """Return what the fusion needs of a study."""
    first = study.fits[0]
    return FittedProbes(
        first.stack,
        first.ndcg.mean(axis=2),
        np.stack(study.salience),
        tuple(verdict.chosen for verdict in study.verdicts),
        study.selected,
        tuple(study.ratios),
    )


def fit_for_fusion(
    splits: Splits,
    options: StudyOptions,
    statistics: StatisticsOptions,
    run: RunFolder | None = None,
    *,
    progress: bool = True,
) -> FittedProbes:
    """Run the probe stage with one seed and without controls, which no fusion needs; its own command does all of it.

    Parameters
    ----------
    splits : Splits
        What probes are fitted to, and what decides.
    options : StudyOptions
        How probes are fitted and layers selected.
    statistics : StatisticsOptions
        How intervals and tests are taken; the seed is that of the training, too.
    run : RunFolder, optional
        Gets all files of a probe run, for `read_fitted_probes`; nothing is written if it is not given.
    progress : bool
        Show bars.
    """
    study = study_splits(splits, options, statistics, n_seeds=1, controls=False, progress=progress)
    if run is not None:
        run.stage("probes")
        write_probe_run(run, study, splits, options, statistics)
    return fitted_probes_of(study)


def read_fitted_probes(folder: Path | str, backbone: Mapping[str, str], splits: Splits) -> FittedProbes:
    """Read what ``python -m miner_diag.probes`` wrote.

    Parameters
    ----------
    folder : path
        The folder of the probe run.
    backbone : mapping
        Key of the backbone that the probes are wanted for, as ``Backbone.key()`` gives it.
    splits : Splits
        The training and validation split of this run.

    Raises
    ------
    ProbeError
        If the folder is not whole; if its files do not fit each other; if they are probes of another backbone; or if
        they were fitted to other documents than `splits` has: the fusion's test pages could be among them.
    """
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).exists()]
    if missing:
        raise ProbeError(
            f"{folder} holds no whole probe run ({', '.join(missing)} missing); run python -m miner_diag.probes "
            f"--out {folder}"
        )
    run = read_run(folder)
    for name, fitted_to, split in (
        ("train", run.get("train", {}).get("corpus_revision", ""), splits.train),
        ("validation", run.get("corpus_revision", ""), splits.validation),
    ):
        _refuse_other_documents(folder, name, fitted_to, split)
    stack = ProbeStack.load(folder / "probes.safetensors", backbone)
    n_layers, _, width = stack.gates.shape
    selection, salience = _read_selection(folder / "selection.json"), _read_salience(folder / "salience.safetensors")
    kinds, selected = selection["chosen_kinds_of_all_layers"], selection["selected_layers"]
    if len(kinds) != n_layers or not set(kinds) <= set(KINDS) or not set(selected) <= set(range(n_layers)):
        raise _not_fitting(folder / "selection.json", n_layers)
    if salience.shape != (len(KINDS), n_layers, width):
        raise _not_fitting(folder / "salience.safetensors", n_layers)
    records = read_run_records(folder, run)
    n_queries = len(splits.validation.corpus.queries)
    scores = _per_query(folder / RECORDS, records, n_layers, n_queries).mean(axis=2)
    ratios: list[float | None] = [None] * n_layers
    for record in records:
        if record.measure == "alignment_ratio_page_final" and record.layer is not None:
            ratios[record.layer] = record.value
    return FittedProbes(stack, scores, salience, tuple(kinds), tuple(selected), tuple(ratios))


def _refuse_other_documents(folder: Path, name: str, fitted_to: str, split: Split) -> None:
    if fitted_to != split.corpus.revision:
        raise ProbeError(
            f"the probes in {folder} have another {name} split than this run ({fitted_to[:12]}… there, "
            f"{split.corpus.revision[:12]}… here), so test pages may be among what they were fitted to; fit them again "
            "with the same --data, --queries, --fold and --limit"
        )


def _per_query(path: Path, records: list[Record], n_layers: int, n_queries: int) -> np.ndarray:
    """Return nDCG@5 [2, L, Q] of both kinds, queries in the order of the file."""
    values: dict[tuple[str | None, int | None], list[float]] = {}
    for record in records:
        if record.measure == MEASURE and record.query_id is not None:
            values.setdefault((record.system, record.layer), []).append(record.value)
    rows = [[values.get((kind, layer), []) for layer in range(n_layers)] for kind in KINDS]
    if any(len(row) != n_queries for rows_of_kind in rows for row in rows_of_kind):
        raise ProbeError(
            f"{path} must hold {MEASURE} of {n_queries} validation queries for both kinds of probe at {n_layers} "
            "layers, and does not; run python -m miner_diag.probes again"
        )
    return np.array(rows)


def _read_selection(path: Path) -> dict[str, Any]:
    try:
        content = read_sealed(path)
        return {name: content[name] for name in ("chosen_kinds_of_all_layers", "selected_layers")}
    except (DamagedError, KeyError) as error:
        raise ProbeError(f"{path} is damaged ({error}); run python -m miner_diag.probes again") from None


def _read_salience(path: Path) -> np.ndarray:
    try:
        _, arrays = read_tensors(path)
        return np.stack([arrays[kind] for kind in KINDS])
    except (ValueError, KeyError) as error:  # arrays of two shapes do not stack
        raise ProbeError(f"{path} is damaged ({error}); run python -m miner_diag.probes again") from None


def _not_fitting(path: Path, n_layers: int) -> ProbeError:
    return ProbeError(
        f"{path} does not fit the probes beside it, which are of {n_layers} layers; run python -m miner_diag.probes "
        "again"
    )
