"""What is evaluated: saved systems of fusion runs, retrievers by name or folder, and run files."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from miner_diag.backbones import Backbone, LoadOptions, is_late
from miner_diag.backbones.base import SIDES
from miner_diag.backbones.options import Dtype, Protocol
from miner_diag.backbones.registry import protocol_changes, with_task_words
from miner_diag.corpus import Benchmark, Corpus
from miner_diag.embeddings import Embedded
from miner_diag.evaluation.compare import MAIN_METRIC, EvaluationError
from miner_diag.evaluation.oracle import ORACLE, oracle_values, read_layer_probes
from miner_diag.evaluation.run_file import SUFFIXES
from miner_diag.evaluation.scored_system import BACKBONE, K, Measures, ScoredSystem, named, system_key
from miner_diag.fusion.errors import LeakageError
from miner_diag.fusion.saved_systems import FittedTo, encode, load_systems, read_head, read_load_options
from miner_diag.fusion.table import MEASURE
from miner_diag.probes.retrieval_data import RetrievalData
from miner_diag.retrieval.metrics import METRICS
from miner_diag.retrieval.ndcg import ndcg_at_k
from miner_diag.retrieval.ranking import MeasuredRanking, measure_vectors
from miner_diag.retrieval.relevance import Relevance
from miner_diag.retrieval.search import score_all
from miner_diag.runs import RECORDS, read_run, read_run_records

MAIN_ROLES = ("head", "fusion")
"""The roles that the backbone is compared with in every table."""
FLOAT = 4
"""Bytes of a float32."""
SHARES = (1, 2, 4, 8)
"""Widths that ``widths.csv`` shows: the first D, D/2, D/4 and D/8 coordinates."""
WIDTH_SYSTEMS = ("fusion_mrl",)
"""Systems of ``widths.csv`` beside the backbone, the heads and the fusion."""


@dataclass(frozen=True)
class Source:
    """One thing that was given to ``--systems``."""

    given: str
    """What the user wrote."""
    load: LoadOptions | None
    """How its retriever is loaded; None for a run file."""
    folder: Path | None = None
    """The folder of a fusion run; None where the retriever itself is meant."""
    run_file: Path | None = None
    """The run file; None for everything else."""
    late: bool = False
    """Whether it is a late-interaction retriever."""

    def changed(self, change: Callable[[LoadOptions], LoadOptions]) -> Source:
        """Return the source with changed options of its retriever; a fusion run keeps what it was fitted with."""
        if self.load is None or self.folder is not None:
            return self
        return replace(self, load=change(self.load))


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """The saved systems of one fusion run on one set of queries."""

    systems: tuple[ScoredSystem, ...]
    """The systems, without the backbone, whose row all runs of one retriever share."""
    widths: tuple[dict[str, Any], ...]
    """Rows of ``widths.csv``."""


def read_sources(
    given: Sequence[str],
    *,
    device: str | None = None,
    dtype: Dtype | None = None,
    protocol: Protocol = "authors",
) -> list[Source]:
    """Find out what each word of ``--systems`` is.

    Parameters
    ----------
    given : sequence of str
        Folders of fusion runs, names of retrievers, folders of checkpoints, hub ids, run files.
    device, dtype : str, optional
        These take the place of what a fusion run was fitted with.
    protocol : {"authors", "mteb"}
        Whose prompts and pixels retrievers use that are given by name and for which their manifest names a difference.

    Raises
    ------
    EvaluationError
        If none is given, one is given twice, a folder or file is not there, all are run files, which run on no
        device, and one is named, or a protocol is named that changes nothing of any retriever.
    ValueError
        If a folder holds a run of another command, or one that is not finished.
    """
    if not given:
        raise EvaluationError("systems must name at least one fusion run or retriever; got none")
    sources = [_read_source(word) for word in given]
    if (device or dtype) and all(source.load is None for source in sources):
        raise EvaluationError(
            f"--{'device' if device else 'dtype'} has no effect: all systems are run files. Leave it out"
        )
    sources = [_with(source, device, dtype) for source in sources]
    if protocol != "authors":
        changed = [source.changed(partial(_under_protocol, protocol)) for source in sources]
        if changed == sources:
            raise EvaluationError(
                f"--protocol {protocol} has no effect: it changes retrievers that are given by name and whose manifest "
                "says what the public leaderboard does otherwise (miner-diag backbones lists them), and a fusion run "
                "keeps what it was fitted with. Leave it out"
            )
        sources = changed
    for number, source in enumerate(sources):
        if any(replace(source, given=other.given) == other for other in sources[:number]):
            raise EvaluationError(f"systems must name each system once; {source.given!r} stands twice")
    return sources


def _with(source: Source, device: str | None, dtype: Dtype | None) -> Source:
    """Return a source whose retriever runs on another device and at another precision, where they are given."""
    load = source.load
    if load is None:
        return source
    if device is not None:
        load = replace(load, device=device)
    if dtype is not None:
        load = replace(load, dtype=dtype)
    return replace(source, load=load)


def _under_protocol(protocol: Protocol, load: LoadOptions) -> LoadOptions:
    """Return options under another protocol than the authors', if that changes anything of the retriever."""
    other = replace(load, protocol=protocol)
    return other if protocol_changes(other) else load


def with_words_of(sources: Sequence[Source], benchmark: Benchmark | None) -> list[Source]:
    """Return the sources with the words of a benchmark's task before their queries, where their protocol wants them."""
    if benchmark is None:
        return list(sources)
    return [source.changed(partial(with_task_words, words=benchmark.query_prompt)) for source in sources]


def _read_source(word: str) -> Source:
    folder = Path(word).expanduser()
    if (folder / "run.json").is_file() or (folder / "systems.json").is_file():
        read_run(folder, "miner_diag.fusion")
        return Source(word, read_load_options(folder), folder)
    if folder.is_file():
        return Source(word, None, run_file=folder)
    if folder.suffix in SUFFIXES and not folder.is_dir():
        raise EvaluationError(
            f"{word} is not there; name a run file, TREC (query Q0 page rank score tag) or JSON "
            "{query: {page: score}}, or another system"
        )
    if not folder.is_dir() and (folder.is_absolute() or folder.parts[:1] in (("runs",), (".",), ("..",))):
        raise EvaluationError(
            f"{word} is not there; run python -m miner_diag.fusion --out {word}, or name the folder of another fusion "
            "run or a retriever, as page-text"
        )
    load = LoadOptions(model=word)
    return Source(word, load, late=is_late(load))


def group_sources(sources: Sequence[Source]) -> list[tuple[LoadOptions, list[Source]]]:
    """Put single-vector sources with one retriever together, so that it is loaded once."""
    groups: dict[LoadOptions, list[Source]] = {}
    for source in sources:
        if source.load is not None and not source.late:
            groups.setdefault(source.load, []).append(source)
    return list(groups.items())


def run_labels(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that tell the folders apart; "" for a single folder.

    Examples
    --------
    >>> run_labels([Path("runs/a/fusion"), Path("runs/b/fusion")])
    ['a/fusion', 'b/fusion']
    >>> run_labels([Path("runs/fusion")])
    ['']
    """
    if len(folders) < 2:
        return [""] * len(folders)
    paths = [folder.expanduser().resolve() for folder in folders]
    longest = max(len(path.parts) for path in paths)
    for length in range(1, longest + 1):
        labels = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    raise EvaluationError(f"systems must name each fusion run once; got {', '.join(map(str, folders))}")


def with_systems(command: str, systems: Sequence[str]) -> str:
    """Return a command line of this stage with its systems."""
    return f"{command} --systems {shlex.join(systems)}"


def refuse_leakage(given: str, fitted_to: FittedTo, part: Corpus) -> None:
    """Refuse to evaluate systems on documents or pages that they were fitted to, or chosen by.

    Parameters
    ----------
    given : str
        The fusion run, as the user named it.
    fitted_to : FittedTo
        What its systems were fitted to.
    part : Corpus
        The queries and pages to evaluate on.

    Raises
    ------
    EvaluationError
        If a page of `part` is among them by its picture, or, within the same data set, by its document.
    """
    try:
        fitted_to.check(part)
    except LeakageError as error:
        raise EvaluationError(f"{given} cannot be evaluated here, because it has seen these pages: {error}") from None


def namesakes(given: str, fitted_to: FittedTo, part: Corpus) -> list[str]:
    """Return a caution if documents of another data set have the names of documents that systems were fitted to."""
    if part.name == fitted_to.corpus:
        return []
    seen = {name for names in fitted_to.documents.values() for name in names}
    shared = {page.doc_id for page in part.pages if page.doc_id != page.page_id} & seen
    if not shared:
        return []
    return [
        f"{len(shared)} documents of {part.name}, as {min(shared)}, have the names of documents of {fitted_to.corpus} "
        f"that {given} was fitted to, and no page in common; they are taken as other documents."
    ]


def score_backbone(
    embedded: Embedded, model: str, against: str | None = None, *, measured: MeasuredRanking | None = None
) -> ScoredSystem:
    """Score a retriever's own final embedding under cosine.

    Parameters
    ----------
    embedded : Embedded
        The queries and pages with their layers.
    model : str
        What the retriever is called in tables.
    against : str, optional
        The key of another backbone that it is compared with.
    measured : MeasuredRanking, optional
        What `measure_backbone` returned, if it is there.
    """
    measured = measure_backbone(embedded) if measured is None else measured
    width = embedding_width(embedded.backbone)
    return ScoredSystem(
        model,
        embedded.backbone.revision,
        BACKBONE,
        "backbone",
        "the final layer as it is",
        Measures.of([measured]),
        (None,),
        width,
        float(FLOAT * width),
        against,
        n_parameters=0,
        seconds=0.0,
    )


def measure_backbone(embedded: Embedded, metrics: Sequence[str] = METRICS) -> MeasuredRanking:
    """Return metrics of the final embedding under cosine, with the bounds that ties leave."""
    queries, pages = final_embeddings(embedded)
    ids = embedded.stores.queries.ids, embedded.stores.pages.ids
    relevance = Relevance.from_qrels(embedded.corpus.qrels, *ids, ignore_self=embedded.corpus.ignore_self)
    return measure_vectors(queries, pages, relevance, metrics, page_ids=ids[1])


def backbone_widths(embedded: Embedded, model: str) -> list[dict[str, Any]]:
    """Return the rows of ``widths.csv`` of a retriever's own final embedding."""
    queries, pages = final_embeddings(embedded)
    ids = embedded.stores.queries.ids, embedded.stores.pages.ids
    relevance = Relevance.from_qrels(embedded.corpus.qrels, *ids, ignore_self=embedded.corpus.ignore_self)
    by_width = _ndcg_by_width(queries, pages, relevance)
    return _width_rows(model, BACKBONE, [by_width], queries.shape[1])


def final_embeddings(embedded: Embedded) -> tuple[np.ndarray, np.ndarray]:
    """Return the final embeddings of queries [Q, D] and pages [P, D].

    Raises
    ------
    EvaluationError
        If the halves of a dual encoder share no space.
    """
    width, stores = embedding_width(embedded.backbone), (embedded.stores.queries, embedded.stores.pages)
    queries, pages = (store.layer(store.shape[1] - 1) for store in stores)
    if queries[:, width:].any() or pages[:, width:].any():
        raise EvaluationError(
            f"the final embeddings of {embedded.backbone.name} have {queries.shape[1]} coordinates for queries and "
            f"{pages.shape[1]} for pages; expected one space of at most {width}"
        )
    return queries[:, :width], pages[:, :width]


def embedding_width(backbone: Backbone) -> int:
    """Return D of the final embeddings, which a dual encoder keeps filled up with zeros to the width of its layers."""
    narrower = min(backbone.layer_shape(side)[1] for side in SIDES)
    return int(getattr(backbone, "embedding_width", narrower))


def score_run(
    folder: Path,
    data: RetrievalData,
    backbone: ScoredSystem,
    backbone_key: Mapping[str, str],
    *,
    label: str = "",
    device: Any = "cpu",
    widths: bool = True,
    hits: bool = True,
) -> ScoredRun:
    """Score the saved systems of a fusion run under cosine, every seed of each.

    Parameters
    ----------
    folder : path
        The run, or one of its further document splits.
    data : RetrievalData
        The queries and pages with their layers.
    backbone : ScoredSystem
        The retriever's own row, with which the systems are compared.
    backbone_key : mapping
        Key of the backbone that made the layers; systems of another one are refused.
    label : str
        What tells the run from other runs of the same retriever; it follows the systems' names.
    device : str
        Where vectors are computed.
    widths : bool
        Score the first coordinates of the heads and the fusions, too.
    hits : bool
        Keep the first pages of each system's first seed, of which a run file is made.
    """
    saved = [system for system in load_systems(folder, backbone_key) if system.role != "backbone"]
    head = read_head(folder)
    systems, width_rows = [], []
    with tqdm(total=sum(len(s.modules) for s in saved), desc="systems", unit="system", delay=2.0) as bar:
        for system in saved:
            measured: list[MeasuredRanking] = []
            by_width = []
            for module in system.modules:
                queries, pages = encode(module, data, device)
                measured.append(measure_vectors(queries, pages, data.relevance, hits=hits and not measured))
                if widths and (system.role in MAIN_ROLES or system.name in WIDTH_SYSTEMS):
                    by_width.append(_ndcg_by_width(queries, pages, data.relevance))
                bar.update()
            called = named(system.name, label)
            reference = None if system.name == head else system_key(backbone.model, named(head, label))
            systems.append(
                ScoredSystem(
                    backbone.model,
                    backbone.model_revision,
                    called,
                    system.role,
                    system.what,
                    Measures.of(measured),
                    system.seeds,
                    data.width,
                    float(FLOAT * data.width),
                    backbone.key,
                    reference,
                    system.n_parameters,
                    system.seconds,
                    system.layers,
                )
            )
            if by_width:
                width_rows += _width_rows(backbone.model, called, by_width, data.width)
    return ScoredRun(tuple(systems), tuple(width_rows))


def score_oracle(
    probes: Path, data: RetrievalData, fusion: ScoredSystem, backbone_key: Mapping[str, str], *, label: str = ""
) -> ScoredSystem:
    """Score the bound that picks the best layer's probe, or the fusion, for each query by the answers."""
    values = oracle_values(read_layer_probes(probes, backbone_key), data, fusion.measures.values)
    return replace(
        fusion,
        name=named(ORACLE, label),
        role="bound",
        what="upper bound: uses the answers",
        measures=Measures(values),
        seeds=(None,),
        backbone=None,
        head=None,
        n_parameters=None,
        seconds=None,
    )


def validation_of_run(
    folder: Path, part: Corpus, systems: Sequence[ScoredSystem], backbone: ScoredSystem, *, label: str = ""
) -> list[ScoredSystem]:
    """Return the same systems with their nDCG@5 on the validation split, as the run's own records have it.

    Parameters
    ----------
    folder : path
        The fusion run.
    part : Corpus
        The validation split that the run was chosen by.
    systems : sequence of ScoredSystem
        The run's systems, scored on other queries.
    backbone : ScoredSystem
        The retriever's own row.
    label : str
        That of the run.

    Raises
    ------
    EvaluationError
        If the records lack a query of the split.
    """
    queries = [query.query_id for query in part.queries]
    values: dict[tuple[str | None, int | None], dict[str, float]] = {}
    for record in read_run_records(folder, read_run(folder)):
        if record.measure == MEASURE and record.query_id is not None and record.split == part.part:
            values.setdefault((record.system, record.seed), {})[record.query_id] = record.value
    taken = []
    for system in (backbone, *systems):
        if system.role == "bound":
            continue
        name = BACKBONE if system is backbone else system.name.removesuffix(f" ({label})")
        rows = [values.get((name, seed), {}) for seed in system.seeds]
        if any(set(row) != set(queries) for row in rows):
            raise EvaluationError(
                f"{folder / RECORDS} must hold nDCG@5 of {name} for each of the {len(queries)} validation queries and "
                "each seed, and does not; run python -m miner_diag.fusion again"
            )
        values_of = np.array([[row[query_id] for query_id in queries] for row in rows])
        taken.append(replace(system, measures=Measures({MAIN_METRIC: values_of})))
    return taken


def _ndcg_by_width(queries: np.ndarray, pages: np.ndarray, relevance: Relevance) -> list[float]:
    """Return mean nDCG@5 of the first D, D/2, D/4 and D/8 coordinates."""
    ndcg = []
    for share in SHARES:
        cut = [_unit(side[:, : max(1, side.shape[1] // share)]) for side in (queries, pages)]
        ndcg.append(float(ndcg_at_k(score_all(cut[0], cut[1], "dot"), relevance, K).mean()))
    return ndcg


def _width_rows(model: str, system: str, by_seed: Sequence[Sequence[float]], full: int) -> list[dict[str, Any]]:
    """Return the rows of ``widths.csv`` of one system, mean over seeds."""
    return [
        {
            "model": model,
            "system": system,
            "width": max(1, full // part),
            "share": 1 / part,
            "ndcg_at_5": float(ndcg),
            "n_seeds": len(by_seed),
        }
        for part, ndcg in zip(SHARES, np.mean(by_seed, axis=0), strict=True)
    ]


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Return rows of length one, float64; a row of zeros, which part of a masked vector can be, stays so."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1.0)
