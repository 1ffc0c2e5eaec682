"""Which kind of probe each layer needs, and which layers to keep: what the command of this folder does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes

from miner_diag.backbones.options import LoadOptions
from miner_diag.command import command_line
from miner_diag.corpus.options import DataOptions
from miner_diag.embeddings import EmbeddedCorpus, StoreOptions, open_corpus
from miner_diag.probes.probe_run import study_splits, write_probe_run
from miner_diag.probes.retrieval_data import Side
from miner_diag.probes.splits import fitting_splits
from miner_diag.probes.study import StudyOptions
from miner_diag.probes.table import probe_table
from miner_diag.runs import RunFolder
from miner_diag.stats import StatisticsOptions
from miner_diag.tables import table_text
from miner_diag.texts import inert


@dataclass(frozen=True)
class ProbesOptions:
    """Fit both kinds of probe to every layer; say which kind each needs, which layers to keep, and how sure that is.

    Probes are fitted to the train split and evaluated on validation; test is not read. --seed is the one seed: that of
    the first training as well as of bootstrap and permutations.
    """

    load: Annotated[LoadOptions, OmitArgPrefixes] = field(default_factory=LoadOptions)
    """Which retriever."""
    data: Annotated[DataOptions, OmitArgPrefixes] = field(default_factory=DataOptions)
    """Which queries and pages."""
    store: Annotated[StoreOptions, OmitArgPrefixes] = field(default_factory=StoreOptions)
    """Where pooled layers are kept."""
    statistics: Annotated[StatisticsOptions, OmitArgPrefixes] = field(default_factory=StatisticsOptions)
    """How intervals and tests are taken."""
    study: Annotated[StudyOptions, OmitArgPrefixes] = field(default_factory=StudyOptions)
    """How probes are fitted and compared, and how layers are selected."""
    n_seeds: int = 3
    """The number of trainings, with --seed, --seed + 1, …; all numbers but the stability of the selection are those of
    the first."""
    controls: bool = True
    """Fit to shuffled pairs, and select by random labels, too."""
    out: Path = Path("runs/probes")
    """The folder that is written to; a dual encoder gets a folder below it for each side."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.n_seeds < 1:
            raise ValueError(f"n_seeds must be at least 1; got {self.n_seeds}")


TERMINAL = {
    "layer": "layer",
    "kind": "kind",
    "raw_ndcg_at_5": "raw",
    "validation_ndcg_at_5": "probe",
    "low": "low",
    "high": "high",
    "difference_to_other_kind": "less other",
    "p_holm": "p (Holm)",
    "alignment_ratio_page_final": "AR",
    "predicted_kind": "predicted",
    "chosen_kind": "chosen",
    "selected": "kept",
    "selection_frequency": "frequency",
    "kept_neurons_90": "neurons 90 %",
}
"""The columns of ``probes.csv`` that fit a terminal, and their headings."""


def run(options: ProbesOptions) -> None:
    """Run the command; each side of a dual encoder is probed by itself, into a folder of its own."""
    folder = RunFolder(options.out, "miner_diag.probes", options)
    embedded_corpus = open_corpus(options.load, options.data, options.store, folder)
    if embedded_corpus.backbone.shared_layers:
        run_side(embedded_corpus, options, folder, None)
        return
    sides: tuple[Side, ...] = ("query", "page")
    for side in sides:
        of_side = RunFolder(options.out / side, folder.command, options)
        of_side.clock = folder.clock  # loading and embedding are done once for both
        run_side(embedded_corpus, options, of_side, side)


def run_side(embedded_corpus: EmbeddedCorpus, options: ProbesOptions, folder: RunFolder, side: Side | None) -> None:
    """Fit, compare and select; print the table, and write everything into `folder`."""
    splits = fitting_splits(embedded_corpus, memory_gb=options.store.memory_gb, side=side)
    folder.stage("embed")
    study = study_splits(splits, options.study, options.statistics, n_seeds=options.n_seeds, controls=options.controls)
    folder.stage("probes" if side is None else f"probes of the {side} encoder")
    corpus = splits.validation.corpus
    next_command = command_line("fusion", options.load, options.data, options.store, probes=options.out)
    model = embedded_corpus.backbone.name
    print(inert(f"{model} on {corpus.name}, {corpus.part}: {corpus.form} queries, fold {corpus.fold}"))
    shown = probe_table(study).rename(columns={study.ratio_name: "alignment_ratio_page_final"})[list(TERMINAL)]
    print(table_text(shown.rename(columns=TERMINAL), index=False, na_rep="", float_format="{:.3f}".format))
    write_probe_run(
        folder,
        study,
        splits,
        options.study,
        options.statistics,
        next_command="" if side else next_command,  # a fusion is built for one stack of layers
    )
