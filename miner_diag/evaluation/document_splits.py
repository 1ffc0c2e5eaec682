"""Several document splits together: how a method does on documents that it has not seen, whichever they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from miner_diag.corpus import Corpus
from miner_diag.embeddings.bm25_reference import BM25, TEXT_LAYER
from miner_diag.evaluation.compare import MAIN_METRIC, Comparison, EvaluationError
from miner_diag.evaluation.scored_system import BACKBONE, Measures, ScoredSystem, named, system_key
from miner_diag.evaluation.table import comparison_table

HEAD = "head"
"""What the head that validation liked best is called where document splits, which may choose another, are together."""
CHOSEN_HEAD = "the head that validation likes best in each split"


@dataclass(frozen=True, eq=False)
class SplitValues:
    """What systems reached on the test documents of one document split."""

    query_ids: Sequence[str]
    """[Q] ids of the queries."""
    documents: Sequence[str]
    """[Q] the document of each query."""
    values: Mapping[str, np.ndarray]
    """System -> nDCG@5 [S, Q]."""


def put_together(splits: Sequence[SplitValues]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return each system's nDCG@5 [S, U] on all queries that were in some test split, and their documents [U].

    A query that was in the test documents of several splits counts once, with its mean over them.

    Raises
    ------
    EvaluationError
        If the splits do not hold the same systems with the same number of seeds, or give a query two documents.

    Notes
    -----
    Trainings of different splits share documents, so their test documents are not quite independent draws; intervals
    over these values are over documents and seeds, not over training sets.
    """
    seeds = {name: len(values) for name, values in splits[0].values.items()}
    document: dict[str, str] = {}
    for split in splits:
        of_split = {name: len(values) for name, values in split.values.items()}
        if of_split != seeds:
            raise EvaluationError(f"every split must hold the same systems and seeds; got {seeds} and {of_split}")
        for query_id, name in zip(split.query_ids, split.documents, strict=True):
            if document.setdefault(query_id, name) != name:
                raise EvaluationError(f"query {query_id} must have one document; got {document[query_id]} and {name}")
    number = {query_id: position for position, query_id in enumerate(document)}
    columns = [np.array([number[query_id] for query_id in split.query_ids], dtype=np.int64) for split in splits]
    times = np.bincount(np.concatenate(columns), minlength=len(number))
    together = {}
    for name, n_seeds in seeds.items():
        total = np.zeros((n_seeds, len(number)))
        for split, own_columns in zip(splits, columns, strict=True):
            total[:, own_columns] += split.values[name]
        together[name] = total / times
    return together, list(document.values())


@dataclass(frozen=True, eq=False)
class FoldScores:
    """The systems of one fusion run, and BM25, on the test documents of one document split."""

    model: str
    """What the retriever is called in tables."""
    label: str
    """What tells the run from other runs of the same retriever; empty where there is one."""
    part: Corpus
    """The test queries and pages of this document split."""
    systems: tuple[ScoredSystem, ...]
    """The backbone first, BM25 last."""

    @property
    def documents(self) -> list[str]:
        """[Q] the document of each query."""
        return [query.doc_id for query in self.part.queries]

    @property
    def fusion(self) -> ScoredSystem:
        """The first fusion of this document split."""
        return self.fusions[0]

    @property
    def fusions(self) -> list[ScoredSystem]:
        """The fusion in each of its forms."""
        return [system for system in self.systems if system.role == "fusion"]

    @property
    def head(self) -> ScoredSystem:
        """The head that validation liked best in this document split."""
        return next(system for system in self.systems if system.key == self.fusion.head)

    @property
    def trained(self) -> list[ScoredSystem]:
        """The systems of the run: all but the backbone and BM25."""
        return [system for system in self.systems[1:] if system.role != "lexical"]

    def lexical(self, key: str) -> ScoredSystem | None:
        """Return BM25 over the text of this key, which is the whole text layer where the split has no other text."""
        own = {system.key: system for system in self.systems if system.role == "lexical"}
        whole = system_key(BM25, TEXT_LAYER)
        return own.get(key) if key == whole else own.get(key, own.get(whole))


def systems_together(folds: Sequence[FoldScores]) -> tuple[list[ScoredSystem], list[str]]:
    """Return the systems of all document splits on the queries of all of them, and the queries' documents.

    The head that validation likes best may be another one in each split; it is a system of its own here. A text that
    holds no word in one of the splits has no row of BM25.
    """
    first = folds[0]
    texts = {system.key: system for fold in folds for system in fold.systems if system.role == "lexical"}
    lexical: dict[str, list[ScoredSystem]] = {}
    for key in texts:
        found = [system for fold in folds if (system := fold.lexical(key)) is not None]
        if len(found) == len(folds):
            lexical[key] = found
    values = [
        SplitValues(
            [query.query_id for query in fold.part.queries],
            fold.documents,
            {BACKBONE: fold.systems[0].ndcg, HEAD: fold.head.ndcg}
            | {system.key: system.ndcg for system in fold.trained}
            | {key: found[number].ndcg for key, found in lexical.items()},
        )
        for number, fold in enumerate(folds)
    ]
    of_splits, documents = put_together(values)
    together = {key: Measures({MAIN_METRIC: ndcg}) for key, ndcg in of_splits.items()}
    backbone = replace(first.systems[0], measures=together[BACKBONE])
    head = replace(first.head, name=named(HEAD, first.label), measures=together[HEAD], what=CHOSEN_HEAD)
    trained = [replace(system, measures=together[system.key], head=head.key) for system in first.trained]
    return [backbone, head, *trained, *(replace(texts[key], measures=together[key]) for key in lexical)], documents


def fold_table(fold: FoldScores, comparison: Comparison) -> pd.DataFrame:
    """Return the rows of ``folds.csv`` of one document split."""
    table = comparison_table(comparison, fold.systems, fold.part)
    table.insert(3, "fold", fold.part.fold)
    table["chosen"] = [system.role == "fusion" or system.key == fold.head.key for system in fold.systems]
    table["backbone_ndcg_at_5"] = fold.systems[0].ndcg.mean()
    table["layers"] = " ".join(map(str, fold.fusion.layers))
    table["n_pages"] = len(fold.part.pages)
    return table.drop(columns=["bytes_per_page", "what"])


def together_table(
    folds: Sequence[FoldScores], systems: Sequence[ScoredSystem], comparison: Comparison
) -> pd.DataFrame:
    """Return the rows of ``folds_together.csv`` of one fusion run; `systems` are what `systems_together` returned."""
    table = comparison_table(comparison, systems, folds[0].part)
    table.insert(3, "folds", " ".join(str(fold.part.fold) for fold in folds))
    table["chosen"] = [system.role == "fusion" or system.what == CHOSEN_HEAD for system in systems]
    table["backbone_ndcg_at_5"] = systems[0].ndcg.mean()
    return table.drop(columns=["n_parameters", "seconds", "bytes_per_page", "what"])
