"""Every system that was given, scored on the same queries and pages, one retriever after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from miner_diag.corpus import Corpus
from miner_diag.corpus.clusters import over_documents
from miner_diag.corpus.options import DataOptions
from miner_diag.corpus.splits import resplit
from miner_diag.embeddings import Embedded, EmbeddedCorpus, StoredDtype, StoreOptions, open_corpus, open_token_corpus
from miner_diag.embeddings.embedded import facts_of
from miner_diag.evaluation.compare import EvaluationError
from miner_diag.evaluation.document_splits import FoldScores
from miner_diag.evaluation.late import LateScores, partner_of, score_late
from miner_diag.evaluation.lexical import lexical_systems
from miner_diag.evaluation.run_file import RunFile, read_run_file
from miner_diag.evaluation.scored_system import BACKBONE, ScoredSystem, named, system_key
from miner_diag.evaluation.systems import (
    ScoredRun,
    Source,
    backbone_widths,
    group_sources,
    namesakes,
    refuse_leakage,
    run_labels,
    score_backbone,
    score_oracle,
    score_run,
    validation_of_run,
    with_words_of,
)
from miner_diag.fusion.saved_systems import FittedTo, fold_folders, probes_folder, read_fitted_to
from miner_diag.probes.retrieval_data import RetrievalData
from miner_diag.probes.splits import take_split
from miner_diag.runs import RunFolder, read_run
from miner_diag.stats import IntervalsOver
from miner_diag.texts import inert


@dataclass(eq=False)
class Evaluation:
    """What an evaluation measured; it grows retriever by retriever."""

    part: Corpus
    """The queries and pages."""
    systems: list[ScoredSystem] = field(default_factory=list)
    """Every system, scored on `part`."""
    validation: list[ScoredSystem] = field(default_factory=list)
    """Systems of fusion runs of the same data on the validation split, from the runs' own records."""
    validation_part: Corpus | None = None
    """The validation split, if there are such systems."""
    widths: list[dict[str, Any]] = field(default_factory=list)
    """Rows of ``widths.csv``."""
    folds: list[FoldScores] = field(default_factory=list)
    """What further document splits gave."""
    late: list[LateScores] = field(default_factory=list)
    """Late-interaction retrievers."""
    run_files: dict[str, RunFile] = field(default_factory=dict)
    """What tables call a run file -> the file."""
    handed_out: str | None = None
    """The key of the fusion that the first fusion run hands out; None without fusion runs."""
    texts_read: dict[str, list[str]] = field(default_factory=dict)
    """Retriever with one vector a page -> what it read of each page; those that look at pictures are not in it."""
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Retriever -> what ``run.json`` says of it."""
    test_reads: list[dict[str, Any]] = field(default_factory=list)
    """When test documents were read, and for which systems."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what is missing, and on what the numbers do not say."""

    @property
    def keys(self) -> dict[str, dict[str, str]]:
        """Retriever -> everything of it that changes a number."""
        return {model: facts["backbone"] for model, facts in self.models.items()}

    @property
    def shares_read(self) -> dict[str, float | None]:
        """Retriever -> the share of the characters of all pages that it read; None where that is not known."""
        return {model: facts["share_of_characters_read"] for model, facts in self.models.items()}

    @property
    def backbones(self) -> list[str]:
        """The retrievers with one vector a page, in the order they were evaluated."""
        return [system.model for system in self.systems if system.role == "backbone"]

    def read(self, part: Corpus, model: str, runs: Sequence[str] = ()) -> None:
        """Note that a retriever and fusion runs over its layers, or a run file, are scored on test documents."""
        if part.part.split(",")[0] in ("test", "all"):
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            self.test_reads.append(
                {
                    "at": now,
                    "data": part.name,
                    "split": part.part,
                    "fold": part.fold,
                    "corpus_revision": part.revision,
                    "n_queries": len(part.queries),
                    "n_pages": len(part.pages),
                    "n_documents": len({page.doc_id for page in part.pages}),
                    "model": model,
                    "runs": list(runs),
                }
            )


def evaluate(
    sources: Sequence[Source],
    data: DataOptions,
    store: StoreOptions,
    split: str,
    *,
    stored_dtype: StoredDtype = "float32",
    folds: bool = True,
    run: RunFolder | None = None,
) -> Evaluation:
    """Score every system on the same queries and pages.

    Parameters
    ----------
    sources : sequence of Source
        What is evaluated.
    data : DataOptions
        The data set.
    store : StoreOptions
        Where layers and token vectors are kept.
    split : str
        "train", "validation", "test" or "all".
    stored_dtype : {"float32", "float16"}
        The precision of token vectors on disk.
    folds : bool
        Score further document splits of fusion runs of the same data, too.
    run : RunFolder, optional
        Gets the times of the stages.

    Raises
    ------
    EvaluationError
        If a fusion run was fitted to some of these pages, or a run file does not fit the data; nothing is embedded
        then.
    ValueError
        If data, a retriever or a run cannot be used; see the functions that this calls.
    """
    corpus = data.load()
    if run is not None:
        run.stage("corpus")
    evaluation, sources = Evaluation(corpus.split(split)), with_words_of(sources, corpus.benchmark)
    # read before anything is embedded, so that what is wrong with a file is said at once
    run_files = [
        read_run_file(source.given, source.run_file, corpus, evaluation.part)
        for source in sources
        if source.run_file is not None
    ]
    fitted = {source.folder: read_fitted_to(source.folder) for source in sources if source.folder is not None}
    for source in sources:
        if source.folder is not None:
            refuse_leakage(source.given, fitted[source.folder], evaluation.part)
            evaluation.notes += namesakes(source.given, fitted[source.folder], evaluation.part)
    for load, group in group_sources(sources):
        embedded_corpus = open_corpus(load, data, store, run, corpus=corpus)
        _score_group(evaluation, embedded_corpus, group, fitted, split, memory_gb=store.memory_gb, folds=folds)
        if run is not None:
            run.stage("single vectors")
    for source in sources:
        if source.load is not None and source.late:
            tokens = open_token_corpus(source.load, data, store, run, corpus=corpus, stored_dtype=stored_dtype)
            scores = score_late(tokens.take(tokens.corpus.split(split)))
            partner = partner_of(scores.backbone.name, evaluation.backbones)
            system = scores.system(None if partner is None else system_key(partner, BACKBONE))
            _add(evaluation, [replace(system, model=_own_name(system.model, source.given, evaluation))])
            evaluation.late.append(scores)
            evaluation.models[evaluation.systems[-1].model] = scores.embedded.facts()
            evaluation.notes += [f"{evaluation.systems[-1].model}: {note}" for note in scores.embedded.notes()]
            evaluation.read(scores.corpus, evaluation.systems[-1].model)
            if run is not None:
                run.stage("late interaction")
    for run_file in run_files:
        _add_run_file(evaluation, run_file)
    lexical, missing = lexical_systems(evaluation.part, evaluation.texts_read, evaluation.backbones)
    _add(evaluation, lexical)
    evaluation.notes += missing
    if run is not None:
        run.stage("bm25")
    return evaluation


def _score_group(
    evaluation: Evaluation,
    embedded_corpus: EmbeddedCorpus,
    group: Sequence[Source],
    fitted: dict[Path, FittedTo],
    split: str,
    *,
    memory_gb: float,
    folds: bool,
) -> None:
    """Score one retriever and the fusion runs over its layers."""
    corpus, backbone = embedded_corpus.corpus, embedded_corpus.backbone
    runs = [(source.given, source.folder) for source in group if source.folder is not None]
    # the same retriever may have been loaded already, with options that came to the same
    earlier = next((row for row in evaluation.systems if evaluation.keys.get(row.model) == backbone.key()), None)
    if earlier is not None and not runs:
        evaluation.notes.append(f"{group[0].given} is {earlier.model}, which is evaluated already.")
        return
    model = _own_name(backbone.name, group[0].given, evaluation) if earlier is None else earlier.model
    evaluation.read(evaluation.part, model, [given for given, _ in runs])
    if not runs:
        # a retriever that is given by name beside others is compared with the first of them
        first = evaluation.backbones[:1]
        _add_backbone(
            evaluation,
            embedded_corpus.take(corpus.split(split)),
            model,
            system_key(first[0], BACKBONE) if first else None,
        )
        return
    taken = take_split(embedded_corpus, corpus, split, memory_gb)
    own_row = earlier if earlier is not None else _add_backbone(evaluation, taken.embedded, model)
    labels = run_labels([folder for _, folder in runs])
    for (given, folder), label in zip(runs, labels, strict=True):
        label = label if earlier is None else label or str(folder)
        scored = score_run(folder, taken.data, own_row, backbone.key(), label=label, device=backbone.device)
        _add(evaluation, scored.systems)
        evaluation.widths += scored.widths
        if evaluation.handed_out is None:
            evaluation.handed_out = system_key(model, named(str(read_run(folder).get("form")), label))
        _add_oracle(evaluation, given, folder, taken.data, scored, backbone.key(), label)
        if not same_data(fitted[folder], corpus):
            continue
        part = corpus.split("validation")
        evaluation.validation_part = part
        evaluation.validation += validation_of_run(folder, part, scored.systems, own_row, label=label)
        if folds and split == "test":
            main = FoldScores(model, label, taken.corpus, (own_row, *scored.systems))
            evaluation.folds += _score_folds(evaluation, embedded_corpus, folder, main, memory_gb)


def _add_backbone(evaluation: Evaluation, embedded: Embedded, model: str, against: str | None = None) -> ScoredSystem:
    """Add a retriever's own row, its widths, and what is to be said of it; return the row."""
    row = score_backbone(embedded, model, against)
    _add(evaluation, [row])
    evaluation.widths += backbone_widths(embedded, model)
    evaluation.models[model] = facts_of(embedded.backbone, embedded.corpus, embedded.stores.pages.counts)
    texts = embedded.backbone.texts_read(embedded.corpus.pages)
    if texts is not None:
        evaluation.texts_read[model] = texts
    evaluation.notes += [f"{model}: {note}" for note in embedded.notes()]
    return row


def _add_oracle(
    evaluation: Evaluation,
    given: str,
    folder: Path,
    data: RetrievalData,
    scored: ScoredRun,
    backbone_key: Mapping[str, str],
    label: str,
) -> None:
    """Add the bound of choosing a layer for each query, or say why there is none."""
    probes = probes_folder(folder)
    if not (probes / "probes.safetensors").is_file():
        evaluation.notes.append(f"{given}: there is no oracle of layers, because its probes are not in {probes}.")
        return
    fusion = next(system for system in scored.systems if system.role == "fusion")
    _add(evaluation, [score_oracle(probes, data, fusion, backbone_key, label=label)])


def _score_folds(
    evaluation: Evaluation, embedded_corpus: EmbeddedCorpus, folder: Path, main: FoldScores, memory_gb: float
) -> list[FoldScores]:
    """Score backbone, heads, fusion and BM25 on the test documents of each document split that a run was fitted to."""
    corpus, backbone = embedded_corpus.corpus, embedded_corpus.backbone
    others = {fold: path for fold, path in fold_folders(folder).items() if fold != corpus.fold}
    scored = [_with_bm25(evaluation, main, evaluation.texts_read.get(main.model))] if others else []
    for fold, path in others.items():
        dealt = resplit(corpus, fold)
        refuse_leakage(str(path), read_fitted_to(path), dealt.split("test"))
        taken = take_split(embedded_corpus, dealt, "test", memory_gb)
        evaluation.read(taken.corpus, main.model, [str(path)])
        own_row = score_backbone(taken.embedded, main.model)
        run = score_run(
            path,
            taken.data,
            own_row,
            backbone.key(),
            label=main.label,
            device=backbone.device,
            widths=False,
            hits=False,
        )
        of_fold = FoldScores(main.model, main.label, taken.corpus, (own_row, *run.systems))
        scored.append(_with_bm25(evaluation, of_fold, backbone.texts_read(taken.corpus.pages)))
    shared = set.intersection(*({system.name for system in fold.trained} for fold in scored)) if scored else set()
    return [
        replace(
            fold,
            systems=tuple(system for system in fold.systems if system not in fold.trained or system.name in shared),
        )
        for fold in scored
    ]


def _with_bm25(evaluation: Evaluation, fold: FoldScores, texts_read: Sequence[str] | None) -> FoldScores:
    """Add BM25, compared with the backbone of the document split, or note why there is none."""
    read = {} if texts_read is None else {fold.model: texts_read}
    lexical, missing = lexical_systems(fold.part, read, [fold.model])
    evaluation.notes += [f"document split {fold.part.fold}: {note}" for note in missing]
    return replace(fold, systems=(*fold.systems, *lexical))


def same_data(fitted_to: FittedTo, corpus: Corpus) -> bool:
    """Tell whether systems were fitted to the train and validation splits of this very corpus."""
    if (fitted_to.corpus, fitted_to.form, fitted_to.fold) != (corpus.name, corpus.form, corpus.fold):
        return False
    return FittedTo.of(corpus.split("train"), corpus.split("validation")) == fitted_to


def by_document(parts: Sequence[Corpus], intervals_over: IntervalsOver) -> tuple[bool, list[str]]:
    """Return whether intervals are over documents, which they are if they can be in every part, and cautions."""
    decisions = [over_documents(part, intervals_over) for part in parts]
    cautions = [caution for _, of_part in decisions for caution in of_part]
    return all(decision for decision, _ in decisions), cautions


def _add_run_file(evaluation: Evaluation, run_file: RunFile) -> None:
    """Add a run file, compared with the first retriever, or with the first run file if there is no retriever."""
    name = _own_name(inert(run_file.path.name), run_file.given, evaluation)
    others = [system.key for system in evaluation.systems if system.role == "run"]
    backbones = [system_key(model, BACKBONE) for model in evaluation.backbones]
    _add(evaluation, [run_file.system(name, next(iter([*backbones, *others]), None))])
    evaluation.run_files[name] = run_file
    evaluation.notes += run_file.notes
    evaluation.read(run_file.part, name, [run_file.given])


def _own_name(name: str, given: str, evaluation: Evaluation) -> str:
    """Return a retriever's name; a second retriever of that name is told by what the user wrote."""
    taken = {system.model for system in evaluation.systems}
    return f"{name} ({given})" if name in taken else name


def _add(evaluation: Evaluation, systems: Sequence[ScoredSystem]) -> None:
    taken = {system.key for system in evaluation.systems}
    twice = [system.key for system in systems if system.key in taken]
    if twice:
        raise EvaluationError(f"systems must have names of their own; {twice[0]!r} stands twice")
    evaluation.systems += systems
