"""From options to an ablation: probes, trainings, and then, once, the test split."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from miner_diag.corpus import Corpus
from miner_diag.corpus.clusters import over_documents
from miner_diag.corpus.splits import resplit
from miner_diag.embeddings.job import Embedded, StoreOptions
from miner_diag.files import canonical_json, sha256_bytes
from miner_diag.fusion.fitted_probes import fitted_probes_of, read_fitted_probes, study_for_fusion
from miner_diag.fusion.judge import SystemComparison, judge_systems, read_test
from miner_diag.fusion.masks import MaskOptions
from miner_diag.fusion.model import FusionError, check_layers
from miner_diag.fusion.pooled import HEAD, SplitValues
from miner_diag.fusion.result import (
    HEADS,
    AblationOptions,
    SensitivityOptions,
    TrainedSystem,
    best_head,
    oracle,
    run_query_specific,
    run_rows,
)
from miner_diag.fusion.systems import FittedProbes, FusionConfig, Row, rows
from miner_diag.fusion.train import FusionTrainOptions
from miner_diag.probes.splits import Split, Splits, fitting_splits
from miner_diag.probes.study import StudyOptions

ORACLE = "oracle_layer"
"""The row that uses the answers."""
ALWAYS = ("backbone", *HEADS, "fusion")
"""Rows that no choice of systems leaves out."""


@dataclass(frozen=True)
class FusionOptions(StoreOptions):
    """Fuse layers into one vector of the same size, and judge it against the backbone and a head on its final layer."""

    split: Literal["test"] = "test"
    """Fitted to train, chosen on validation, judged once on test."""
    out: Path = Path("runs/fusion")
    """Folder that is written to; a run that was stopped goes on there."""
    embeddings: Path | None = None
    """Folder of the store, as python -m miner_diag.embeddings --split all writes it; --out/embeddings if not given."""
    probes: Path | None = None
    """Folder of a probe run; --out/probes if not given, where probes are fitted if there are none."""
    layers: tuple[int, ...] = ()
    """Layers to fuse, rising, the final one last; those the probes' selection keeps if none is given."""
    folds: tuple[int, ...] = ()
    """Other splits by document on which backbone, heads and fusion are fitted and judged as well (folds.csv)."""
    intervals_over: Literal["auto", "items", "documents"] = "auto"
    """What intervals and tests are over, beside seeds: documents or items; auto takes documents from 6 on."""
    memory_gb: float = 4.0
    """A side of a split that is larger is read from disk row by row."""
    sensitivity: bool = True
    """Write sensitivity.csv: kept share x number of layers x threshold of the alignment ratio, on validation."""
    probe: StudyOptions = field(default_factory=StudyOptions)
    """How probes are fitted and layers selected."""
    shape: FusionConfig = field(default_factory=FusionConfig)
    """What the fusion is built of."""
    mask: MaskOptions = field(default_factory=MaskOptions)
    """Which neurons are kept."""
    training: FusionTrainOptions = field(default_factory=FusionTrainOptions)
    """How the fusion and all it is held against are trained."""
    ablation: AblationOptions = field(default_factory=AblationOptions)
    """How much is trained."""
    grid: SensitivityOptions = field(default_factory=SensitivityOptions)
    """What the sensitivity table tries."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.memory_gb > 0:
            raise ValueError(f"memory_gb must be above 0; got {self.memory_gb}")


@dataclass(frozen=True, eq=False)
class Fold:
    """What one split by document gave."""

    corpus: Corpus
    """The items, with its splits."""
    probed: FittedProbes
    """Of its training documents."""
    entries: tuple[TrainedSystem, ...]
    """What was trained."""
    splits: dict[str, Split]
    """train, validation and test."""
    values: dict[str, dict[str, np.ndarray]]
    """Split -> system -> nDCG@5 [S, Q]."""
    judged: dict[str, list[SystemComparison]]
    """Split -> judgements."""
    head: str
    """The head that validation likes best: what a gain must go beyond."""
    caution: tuple[str, ...]
    """What is to be said of the selection and of the intervals."""

    def entry(self, name: str) -> TrainedSystem:
        """Return a system's entry."""
        return next(entry for entry in self.entries if entry.name == name)

    def pooled_part(self) -> SplitValues:
        """Return what backbone, head and fusion reached on the test documents."""
        judged, found = self.splits["test"].judged, self.values["test"]
        values = {"backbone": found["backbone"], HEAD: found[self.head], "fusion": found["fusion"]}
        return SplitValues(judged.relevance.query_ids, judged.documents, values)


def probe_splits(embedded: Embedded, splits: Splits, options: FusionOptions, folder: Path | None) -> FittedProbes:
    """Read the probes in `folder`, or fit them (and write them there, if a folder is given)."""
    backbone = embedded.backbone
    if folder is not None and (folder / "run.json").exists():
        return read_fitted_probes(folder, backbone.key(), splits)
    by_document, _ = over_documents(splits.validation.corpus, options.intervals_over)
    found = study_for_fusion(
        splits,
        options.probe,
        by_document=by_document,
        backbone=backbone.key(),
        shared_layers=backbone.shared_layers,
        device=backbone.device,
        progress=True,
    )
    if folder is not None:
        write_probes(found, splits, embedded, options, folder)
    return fitted_probes_of(found)


def write_probes(found: Any, splits: Splits, embedded: Embedded, options: FusionOptions, folder: Path) -> None:
    """Write a probe run as its own command does."""
    from miner_diag.probes.__main__ import ProbesOptions, write_study
    from miner_diag.provenance import RunClock, write_run

    stores = {name: getattr(options, name) for name in StoreOptions.__dataclass_fields__ if name != "split"}
    asked = ProbesOptions(**asdict(options.probe) | stores, out=folder)
    write_study(found, splits, embedded, asked)
    facts = embedded.facts() | splits.validation.facts() | {"train": splits.train.facts()}
    write_run(folder, "miner_diag.fusion", options, RunClock(), **facts)


def run_fold(
    embedded: Embedded,
    fold: int,
    options: FusionOptions,
    *,
    reads: list[dict[str, Any]],
    probes: Path | None = None,
    state: Path | None = None,
    only: tuple[str, ...] = (),
    before_test: Callable[[FittedProbes, Splits, tuple[TrainedSystem, ...]], None] | None = None,
    told: Callable[[str], None] = print,
) -> Fold:
    """Fit everything to one split by document, and then judge it on its test documents.

    Parameters
    ----------
    embedded : Embedded
        All items.
    fold : int
        Which split by document.
    options : FusionOptions
        What was asked.
    reads : list
        Gets an entry when the test split is read.
    probes : path, optional
        Folder of a probe run.
    state : path, optional
        Folder of the states of trainings.
    only : tuple of str
        Rows to train; all if empty.
    before_test : callable, optional
        Called when everything is fitted and chosen, before test is read.
    told : callable
        Gets a line for each row that is done.
    """
    if not embedded.backbone.shared_layers:
        raise FusionError(
            f"model {embedded.backbone.name} has two towers, whose layers do not correspond; fusion is built for one "
            "stack of layers only. Probe each tower by itself with python -m miner_diag.probes"
        )
    corpus = embedded.corpus if fold == embedded.corpus.fold else resplit(embedded.corpus, fold)
    splits = fitting_splits(embedded, corpus, memory_gb=options.memory_gb)
    probed = probe_splits(embedded, splits, options, probes)
    if options.layers:
        check_layers(options.layers, probed.n_layers)
        probed = replace(probed, selected=options.layers)
    notes = []
    if not options.layers and probed.selected == (probed.n_layers - 1,):
        inner = int(np.argmax(probed.scores[:, :-1].max(axis=0)))
        probed = replace(probed, selected=(inner, probed.n_layers - 1))
        notes.append(
            f"document split {fold}: the probes' selection keeps the final layer only; so that there is something to "
            f"fuse, layer {inner}, whose probe scores best on validation, is fused with it"
        )
    train, validation, device = splits.train.judged, splits.validation.judged, embedded.backbone.device
    listed: list[Row] = rows(probed, train, validation, options.shape, options.mask)
    if only:
        unknown = set(only) - {row.name for row in listed} - {"query_specific"}
        if unknown:
            names = ", ".join(row.name for row in listed)
            raise ValueError(f"systems must be of {names}, query_specific; got {', '.join(sorted(unknown))}")
        listed = [row for row in listed if row.name in (*only, *ALWAYS)]
    entries = run_rows(
        listed,
        train,
        validation,
        options.training,
        options.ablation,
        device=device,
        state=state,
        progress=True,
        told=told,
    )
    if not only or "query_specific" in only:
        fusion = next(entry for entry in entries if entry.name == "fusion")
        entries.append(run_query_specific(fusion, train, validation, device=device, state=state))
    if before_test is not None:
        before_test(probed, splits, tuple(entries))
    head = best_head(entries)
    test = read_test(embedded, corpus, reads, memory_gb=options.memory_gb)
    values = {
        "validation": {entry.name: entry.validation for entry in entries},
        "test": {entry.name: entry.ndcg(test.judged, device) for entry in entries},
    }
    parts = {"train": splits.train, "validation": splits.validation, "test": test}
    judged, cautions = {}, []
    rng = np.random.default_rng(options.training.seed)
    for name, found in values.items():
        found[ORACLE] = oracle(probed, parts[name].judged, found["fusion"])
        by_document, caution = over_documents(parts[name].corpus, options.intervals_over)
        clusters = parts[name].judged.documents if by_document else None
        judged[name] = judge_systems(
            found, rng, head=head, clusters=clusters, confidence=options.probe.confidence, bounds=(ORACLE,)
        )
        cautions += caution if name == "test" else []
    return Fold(corpus, probed, tuple(entries), parts, values, judged, head, (*notes, *cautions))


def state_folder(out: Path, embedded: Embedded, options: FusionOptions) -> Path:
    """Return the folder for states of this very run: other options have another one."""
    asked = {name: value for name, value in asdict(options).items() if name not in ("out", "embeddings", "probes")}
    what = {"options": asked, "corpus": embedded.corpus.revision, "backbone": embedded.backbone.key()}
    return out / "state" / sha256_bytes(canonical_json(_plain(what)).encode())[:16]


def forget_states(out: Path) -> None:
    """Delete the states of trainings: the run is whole."""
    shutil.rmtree(out / "state", ignore_errors=False) if (out / "state").exists() else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
