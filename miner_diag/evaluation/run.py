"""Compare saved systems on any corpus: what the command of this folder does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from tqdm import tqdm
from tyro.conf import OmitArgPrefixes

from miner_diag.backbones.options import Dtype, Protocol
from miner_diag.command import command_line
from miner_diag.corpus import Corpus
from miner_diag.corpus.benchmark_sets import BenchmarkSet, benchmark_sets
from miner_diag.corpus.options import DataOptions
from miner_diag.corpus.summary import skipped_lines
from miner_diag.embeddings import StoredDtype, StoreOptions
from miner_diag.evaluation.averages import (
    NOT_RUN,
    average_scores,
    averages_sentence,
    paper_table,
)
from miner_diag.evaluation.base_run import BaseRun, mark_bases, with_published
from miner_diag.evaluation.compare import Comparison, EvaluationError
from miner_diag.evaluation.differences import differences_figure, differences_sentences, differences_table, of_run
from miner_diag.evaluation.document_splits import fold_table, systems_together, together_table
from miner_diag.evaluation.evaluate import Evaluation, by_document, evaluate
from miner_diag.evaluation.examples import compared_pair, examples_page, examples_sentence
from miner_diag.evaluation.leaderboard import leaderboard
from miner_diag.evaluation.main_table import main_table
from miner_diag.evaluation.plots import ablation_figure, cost_figure, folds_figure
from miner_diag.evaluation.published import read_published
from miner_diag.evaluation.scored_system import ScoredSystem, compare_scored, main_metric
from miner_diag.evaluation.scores import MOST_ROWS, rows_per_query, score_records, score_systems, scores_table
from miner_diag.evaluation.systems import Source, read_sources, with_systems
from miner_diag.evaluation.table import (
    bm25_sentences,
    comparison_table,
    evaluation_records,
    fusion_sentences,
    run_sentences,
    tie_sentences,
)
from miner_diag.evaluation.trec_files import RUNS, write_trec_files
from miner_diag.records import Record
from miner_diag.retrieval.metrics import metric_label
from miner_diag.retrieval.trec import RUN_DEPTH
from miner_diag.runs import RunFolder, begin_run
from miner_diag.stats import StatisticsOptions
from miner_diag.tables import read_csv, table_text
from miner_diag.texts import inert


@dataclass(frozen=True)
class EvaluationOptions:
    """Compare saved systems on any corpus: nDCG@5 query by query, intervals and paired tests, the main table.

    --data vidore-v2 (vidore-v1, vidore-v3, or a folder of that name with a copy of each data set) evaluates all public
    data sets of the benchmark, each in a folder of its own, and writes the averages over them.

    Systems are read, not fitted. A fusion run that was fitted to some of these documents is refused. All metrics stand
    in scores.csv; the rankings of the main table's systems in runs/ and the judgements in qrels.trec are for other
    tools. examples.html shows which queries gained and lost most between two of the systems, and the pages that these
    ranked first.
    """

    systems: tuple[str, ...] = ("runs/fusion",)
    """What is evaluated: folders of fusion runs (all their saved systems; their retriever is loaded as it was for the
    fit), names or folders or hub ids of retrievers, and of late-interaction retrievers (page-text-late). NAME-late is
    compared with NAME, another late-interaction retriever or a retriever that is given by name with the first one. A
    file is the run file of another system, as TREC (query Q0 page rank score tag) or JSON {query: {page: score}}; it is
    compared with the first retriever, or the first run file."""
    data: Annotated[DataOptions, OmitArgPrefixes] = field(default_factory=DataOptions)
    """Which queries and pages."""
    split: Literal["train", "validation", "test", "all"] = "test"
    """Which documents."""
    store: Annotated[StoreOptions, OmitArgPrefixes] = field(default_factory=StoreOptions)
    """Where pooled layers and token vectors are kept."""
    statistics: Annotated[StatisticsOptions, OmitArgPrefixes] = field(default_factory=StatisticsOptions)
    """How intervals and tests are taken."""
    device: str | None = None
    """Where every retriever runs (auto, cpu, cuda or cuda:N), instead of where a fusion run ran; auto is used for the
    others if this is not given."""
    dtype: Dtype | None = None
    """The precision of every retriever's forward, instead of a fusion run's own; auto is used for the others if this is
    not given. A fusion is refused if its retriever runs at another precision than it was fitted with."""
    protocol: Protocol = "authors"
    """Whose prompts, pixels and closing tokens retrievers use that are given by name: those of their authors, or those
    of the public leaderboard's runs (mteb), where a retriever's manifest says what these do otherwise. A fusion run
    keeps what it was fitted with."""
    stored_dtype: StoredDtype = "float32"
    """The precision of a late-interaction retriever's token vectors on disk; float16 takes half the space."""
    folds: bool = True
    """Evaluate the further document splits that a fusion run was fitted to as well, each on its own test documents, and
    all of them together. It applies to runs that hold such splits, on the test split of the data they were fitted
    to."""
    out: Path = Path("runs/evaluation")
    """The folder that is written to."""


COMMAND = "miner_diag.evaluation"
"""The command of this folder."""

BENCHMARK_FILES = ("averages.csv", "paper_table.csv", "leaderboard.csv")
"""Files of a whole benchmark beside its data sets."""

OPTIONAL_FILES = (
    "examples.html",
    "main_table.png",
    "main_table.svg",
    "widths.csv",
    "ablation.png",
    "ablation.svg",
    "folds.csv",
    "folds_together.csv",
    "folds.png",
    "folds.svg",
    "differences.csv",
    "differences.png",
    "differences.svg",
)
"""Files that only some runs write."""

TERMINAL = {
    "model": "model",
    "system": "system",
    "low": "low",
    "high": "high",
    "difference_to_backbone": "to backbone",
    "p_value": "p",
    "p_holm": "p (Holm)",
    "family": "family",
    "verdict": "verdict",
    "difference_to_head": "to head",
    "head_verdict": "verdict to head",
    "bytes_per_page": "bytes a page",
    "share_of_characters_read": "text read",
}
"""Columns of ``comparison.csv`` that fit a terminal, and their headings there; the metric stands behind the system."""


def run(options: EvaluationOptions) -> None:
    """Run the command: on one data set, or on all of a benchmark and then over them."""
    sets = benchmark_sets(options.data.data)
    if sets:
        run_benchmark(options, sets)
    else:
        run_one(options)


def run_benchmark(options: EvaluationOptions, sets: Sequence[BenchmarkSet]) -> None:
    """Evaluate every data set of a benchmark into a folder of its own, and write averages over them."""
    folder = begin_run(options.out, COMMAND, options, BENCHMARK_FILES)
    parts = []
    for one in sets:
        of_one = replace(options, data=replace(options.data, data=one.data), out=options.out / one.manifest.name)
        tqdm.write(f"data set {one.manifest.name}")
        run_one(of_one)
        parts.append(read_csv(of_one.out / "scores.csv"))
        folder.stage(one.manifest.name)
    scores = pd.concat(parts, ignore_index=True)
    manifests = [one.manifest for one in sets]
    averages, public = average_scores(scores, manifests), read_published()
    main = manifests[0].metric
    folder.table("scores", scores)
    folder.table("averages", averages)
    folder.table("leaderboard", leaderboard(public, [manifests], averages))
    folder.table("paper_table", paper_table(averages, public))
    shown = averages[averages["main"]].drop(columns=["main", "benchmark"])
    print(table_text(shown, index=False, na_rep=NOT_RUN, float_format="{:.4f}".format))
    folder.finish(
        facts={"benchmark": manifests[0].benchmark, "metric": main, "n_sets": len(sets)},
        lines=[averages_sentence(manifests)],
    )


def run_one(options: EvaluationOptions) -> None:
    """Evaluate on one data set."""
    folder = begin_run(options.out, COMMAND, options, OPTIONAL_FILES)
    sources = read_sources(options.systems, device=options.device, dtype=options.dtype, protocol=options.protocol)
    _refuse_own_runs(sources, folder.folder)
    if options.stored_dtype != "float32" and not any(source.late for source in sources):
        raise EvaluationError(
            f"--stored-dtype {options.stored_dtype} has no effect: none of the systems is a late-interaction "
            "retriever. Leave it out"
        )
    evaluation = evaluate(
        sources,
        options.data,
        options.store,
        options.split,
        stored_dtype=options.stored_dtype,
        folds=options.folds,
        run=folder,
    )
    part, systems = evaluation.part, evaluation.systems
    over_documents, cautions = by_document([part], options.statistics.intervals_over)
    documents = [query.doc_id for query in part.queries] if over_documents else None
    comparison = compare_scored(systems, documents, options.statistics, main_metric(part))
    scores = score_systems(systems, part, documents, options.statistics)
    folder.stage("compare")
    table = comparison_table(comparison, systems, part, shares_read=evaluation.shares_read)
    measured, bases = scores_table(scores, part), list[BaseRun]()
    if options.data.limit is None:  # of some of the pages there is no public run
        measured, bases = with_published(measured, systems, part)
        table = mark_bases(table, bases)
    several = len(evaluation.backbones) > 1
    where = f"the {part.part} split of {part.name}"
    lines = [base.sentence(part.name) for base in bases]
    lines += fusion_sentences(comparison, systems, where, several=several)
    lines += run_sentences(comparison, systems, where)
    records = list(evaluation_records(comparison, systems, part, seed=options.statistics.seed))
    n_rows = rows_per_query(systems, comparison.metric)
    records += score_records(
        scores,
        systems,
        part,
        main=comparison.metric,
        seed=options.statistics.seed,
        per_query=n_rows <= MOST_ROWS,
    )
    folder.table("scores", measured)
    folder.table("comparison", pd.concat([table, *_validation_tables(evaluation, options)], ignore_index=True))
    if evaluation.widths:
        folder.table("widths", pd.DataFrame(evaluation.widths))
    main = main_table(table)
    folder.table("main_table", main)
    _write_figures(folder, table, main)
    shown = set(main[["model", "system"]].itertuples(index=False, name=None))
    rankings = write_trec_files(folder.folder, [s for s in systems if (s.model, s.name) in shown], part)
    facts: dict[str, Any] = {"rankings": rankings, "rankings_depth": RUN_DEPTH}
    if not evaluation.folds:
        lines += _write_differences(folder, [(systems, documents, where)], options, part, {})
    if evaluation.folds:
        fold_records, fold_lines, fold_facts = _write_folds(folder, evaluation, options)
        facts |= fold_facts
        records += fold_records
        lines += fold_lines
    folder.records(records)
    folder.stage("write")
    pair = compared_pair(systems, evaluation.handed_out)
    if pair is not None:
        folder.page("examples", examples_page(*pair, part, comparison))
        facts["examples"] = [system.key for system in pair]
        lines.append(examples_sentence(*pair))
        folder.stage("examples")
    _print_table(table, comparison, evaluation)
    if n_rows > MOST_ROWS:
        lines.append(
            f"Of single queries records.jsonl holds {metric_label(comparison.metric)} alone: the other metrics would "
            f"be {n_rows:,} rows more. runs/ and qrels.trec give them for the systems of the main table."
        )
    lines += tie_sentences(comparison, systems)
    lines += [comparison.caption(), *dict.fromkeys([*evaluation.notes, *cautions]), *skipped_lines(part.skipped)]
    folder.finish(
        facts=_facts(evaluation, comparison) | facts, lines=lines, next_command=next_command(options, sources)
    )


def _refuse_own_runs(sources: Sequence[Source], out: Path) -> None:
    """Refuse a run file from the folder whose runs are about to be replaced."""
    for source in sources:
        if source.run_file is not None and source.run_file.resolve().parent == (out / RUNS).resolve():
            raise EvaluationError(
                f"{source.given} lies where this evaluation writes its own runs; choose another --out, or copy the file"
            )


def _validation_tables(evaluation: Evaluation, options: EvaluationOptions) -> list[pd.DataFrame]:
    """Return the rows of ``comparison.csv`` on the validation split: none, or one table."""
    part = evaluation.validation_part
    if part is None:
        return []
    systems = list({system.key: system for system in evaluation.validation}.values())
    over_documents, _ = by_document([part], options.statistics.intervals_over)
    documents = [query.doc_id for query in part.queries] if over_documents else None
    return [comparison_table(compare_scored(systems, documents, options.statistics), systems, part)]


def _write_figures(folder: RunFolder, table: pd.DataFrame, main: pd.DataFrame) -> None:
    """Write the figure of the main table, and that of the ablation if there are such rows."""
    if main["bytes_per_page"].notna().any():
        folder.figure("main_table", cost_figure(main))
    if table["family"].eq("ablation").any() and table["n_queries"].max() > 1:
        folder.figure("ablation", ablation_figure(table, split=table["split"].iloc[0]))


def _write_folds(
    folder: RunFolder, evaluation: Evaluation, options: EvaluationOptions
) -> tuple[list[Record], list[str], dict[str, Any]]:
    """Write each document split and all of them together; return records, sentences, and facts for ``run.json``."""
    over, seed = options.statistics.intervals_over, options.statistics.seed
    tables, together, records, lines, captions, runs_together = [], [], [], [], [], []
    runs = list(dict.fromkeys((fold.model, fold.label) for fold in evaluation.folds))
    several = len(runs) > 1
    for run_of_folds in runs:
        folds = [fold for fold in evaluation.folds if (fold.model, fold.label) == run_of_folds]
        for fold in folds:
            over_documents, cautions = by_document([fold.part], over)
            comparison = compare_scored(fold.systems, fold.documents if over_documents else None, options.statistics)
            tables.append(fold_table(fold, comparison))
            if fold.part.fold == evaluation.part.fold:
                continue  # its sentences and records are there already
            where = f"the test documents of document split {fold.part.fold}"
            lines += fusion_sentences(comparison, fold.systems, where, several=several)[:1]
            lines += [f"document split {fold.part.fold}: {caution}" for caution in cautions]
            name = f"{fold.part.part} (document split {fold.part.fold})"
            of_fold = evaluation_records(comparison, fold.systems, fold.part, seed=seed)
            records += [replace(record, split=name) for record in of_fold]
        # intervals are over documents only if they are in every split: one with few documents would differ alone
        over_documents, _ = by_document([fold.part for fold in folds], over)
        systems, documents = systems_together(folds)
        comparison = compare_scored(systems, documents if over_documents else None, options.statistics)
        captions.append(f"Of all splits together: {comparison.caption()}")
        together.append(together_table(folds, systems, comparison))
        counts = f"{comparison.n_queries} queries of {len(set(documents))} documents"
        where = f"the test documents of {len(folds)} document splits together ({counts})"
        lines += fusion_sentences(comparison, systems, where, several=several)
        lines += bm25_sentences(comparison, systems, where)
        runs_together.append((systems, documents if over_documents else None, where))
    splits = {"folds": together[0]["folds"].iloc[0]}
    lines += _write_differences(folder, runs_together, options, evaluation.part, splits)
    folds_csv, together_csv = (pd.concat(frames, ignore_index=True) for frames in (tables, together))
    folder.table("folds", folds_csv)
    folder.table("folds_together", together_csv)
    folder.figure("folds", folds_figure(folds_csv, together_csv))
    return records, lines, {"folds": {"caption": captions[0], "splits": folds_csv["fold"].unique().tolist()}}


def _write_differences(
    folder: RunFolder,
    runs: Sequence[tuple[Sequence[ScoredSystem], Sequence[str] | None, str]],
    options: EvaluationOptions,
    part: Corpus,
    splits: Mapping[str, str],
) -> list[str]:
    """Write what each difference between the two forms is worth, for each run that has them; return sentences.

    `splits` holds the column that names the document splits where several stand together.
    """
    tables: list[pd.DataFrame] = []
    lines: list[str] = []
    for systems, documents, where in runs:
        for model, label in dict.fromkeys((s.model, _label_of(s)) for s in systems if s.role == "fusion"):
            table = differences_table(of_run(systems, model, label), part, documents, options.statistics)
            if table is not None:
                for place, (name, value) in enumerate([*splits.items(), ("run", label)], start=3):
                    table.insert(place, name, value)
                tables.append(table)
                lines += differences_sentences(table, where)
    if tables:
        differences = pd.concat(tables, ignore_index=True)
        folder.table("differences", differences)
        folder.figure("differences", differences_figure(differences))
    return lines


def _label_of(system: ScoredSystem) -> str:
    """Return what tells a system's run from others of the same retriever; empty where there is one."""
    return system.name.partition(" (")[2].removesuffix(")")


def _facts(evaluation: Evaluation, comparison: Comparison) -> dict[str, Any]:
    part = evaluation.part
    return {
        "corpus": part.name,
        "corpus_part": part.part,
        "corpus_revision": part.revision,
        "n_queries": comparison.n_queries,
        "n_pages": len(part.pages),
        "n_documents": len({query.doc_id for query in part.queries}),
        "effective_documents": comparison.effective_documents,
        "intervals_over": "queries" if comparison.n_documents is None else "documents",
        "families": comparison.families,
        "caption": comparison.caption(),
        "models": evaluation.models,
        "metric": comparison.metric,
        "run_files": {
            name: {"file": str(run_file.path), "sha256": run_file.sha256}
            for name, run_file in evaluation.run_files.items()
        },
        "systems": [system.key for system in evaluation.systems],
        "test_reads": evaluation.test_reads,
        "skipped": {item.name: item.reason for item in part.skipped},
    }


def _print_table(table: pd.DataFrame, comparison: Comparison, evaluation: Evaluation) -> None:
    part = evaluation.part
    n_documents = len({query.doc_id for query in part.queries})
    effective = "" if comparison.effective_documents is None else f" (effective {comparison.effective_documents:.1f})"
    print(
        inert(
            f"{part.name}, {part.part}: {part.form} queries, fold {part.fold}; {comparison.n_queries} queries of "
            f"{n_documents} documents{effective}, {len(part.pages)} pages"
        )
    )
    columns = {**dict(list(TERMINAL.items())[:2]), comparison.metric: metric_label(comparison.metric), **TERMINAL}
    shown = table[list(columns)].rename(columns=columns)
    shown["bytes a page"] = shown["bytes a page"].map(lambda size: None if pd.isna(size) else f"{size:.0f}")
    shown = shown.dropna(axis="columns", how="all")
    if len(evaluation.models) == 1 and not evaluation.run_files:
        shown = shown.drop(columns="model")
    print(table_text(shown, index=False, na_rep="", float_format="{:.4f}".format))


def next_command(options: EvaluationOptions, sources: Sequence[Source]) -> str:
    """Return what the user would type next: late interaction beside these systems, or other data."""
    single = next((source.load.model for source in sources if source.load is not None and not source.late), "")
    if not any(source.late for source in sources) and single in ("page-text", "page-vision"):
        systems = [*options.systems, f"{single}-late"]
        return with_systems(command_line("evaluation", options.data, options.store, split=options.split), systems)
    words = command_line("evaluation", options.store, data="path/to/beir", split="all")
    return with_systems(words, options.systems)
