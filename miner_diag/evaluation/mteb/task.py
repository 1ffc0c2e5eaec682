"""Queries and pages of ours as a retrieval task of mteb, so that its own code can score any of its models on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from miner_diag.corpus.core import Corpus
from miner_diag.evaluation.compare import EvaluationError
from miner_diag.evaluation.mteb.model import EXTRA
from miner_diag.evaluation.mteb.rows import PAGE_HASH
from miner_diag.files import canonical_json, sha256_bytes

ONE_SUBSET = "default"
"""What mteb calls the subset of a task that has one."""
SPLIT = "test"
"""What mteb calls what is measured; the task's description says which part of the data it is."""
UNDETERMINED = "und-Zyyy"
"""The code of a language and a script that nobody has stated."""


def retrieval_task(data: Corpus | Mapping[str, Corpus], name: str | None = None, *, pictures: bool = False) -> Any:
    """Return queries, pages and graded qrels as a task of mteb (``AbsTaskRetrieval``), held in memory.

    Parameters
    ----------
    data : Corpus or mapping
        What is measured, or a corpus for each subset of the task, as a language: {"english": corpus, …}.
    name : str, optional
        The task's name; the corpus's own if it is not given.
    pictures : bool
        Show the pages' pictures, drawn 1,024 pixels long, beside their texts; texts alone if not.

    Raises
    ------
    EvaluationError
        If mteb is not installed, or no corpus is given.

    Notes
    -----
    The main score is nDCG@5; mteb computes the others too, and rounds all of them to five digits.
    """
    try:
        from mteb.abstasks import AbsTaskRetrieval
        from mteb.abstasks.task_metadata import TaskMetadata
    except ImportError as error:
        raise EvaluationError(EXTRA) from error
    subsets = {ONE_SUBSET: data} if isinstance(data, Corpus) else dict(data)
    if not subsets:
        raise EvaluationError("data must hold at least one corpus; got none")
    if len({corpus.ignore_self for corpus in subsets.values()}) > 1:
        raise EvaluationError("all corpora of a task must leave a query's own page out (ignore_self), or none")
    first = next(iter(subsets.values()))
    revisions = {subset: corpus.revision for subset, corpus in subsets.items()}
    parts = "; ".join(f"{corpus.name}, {corpus.form} queries, {corpus.part}" for corpus in subsets.values())

    class CorpusTask(AbsTaskRetrieval):
        """The task; mteb loads it, and takes it out of memory again."""

        ignore_identical_ids = first.ignore_self
        metadata = TaskMetadata(
            dataset={"path": first.name, "revision": sha256_bytes(canonical_json(revisions).encode())},
            name=name or first.name,
            description=f"Document pages: {parts}",
            type="DocumentUnderstanding" if pictures else "Retrieval",
            category="t2it" if pictures else "t2t",
            modalities=["text", "image"] if pictures else ["text"],
            eval_splits=[SPLIT],
            eval_langs=([UNDETERMINED] if isinstance(data, Corpus) else {subset: [UNDETERMINED] for subset in subsets}),
            main_score="ndcg_at_5",
        )

        data_loaded = False

        def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
            """Make the tables of every subset."""
            if not self.data_loaded:
                tables: dict[int, Any] = {}  # subsets that share their pages share the table
                self.dataset = {}
                for subset, corpus in subsets.items():
                    if id(corpus.pages) not in tables:
                        tables[id(corpus.pages)] = _pages_of(corpus, pictures)
                    self.dataset[subset] = {SPLIT: _split_of(corpus, tables[id(corpus.pages)])}
                self.data_loaded = True

    return CorpusTask()


def _pages_of(corpus: Corpus, pictures: bool) -> Any:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageColumn

    columns: dict[str, list[Any]] = {
        "id": [page.page_id for page in corpus.pages],
        "text": [page.text for page in corpus.pages],
        PAGE_HASH: [page.page_hash for page in corpus.pages],
    }
    kinds: dict[str, Any] = {name: Value("string") for name in columns}
    if pictures:
        bar = tqdm(corpus.pages, desc="drawing pages", unit="page", delay=2)
        columns["image"], kinds["image"] = [corpus.render(page.page_id) for page in bar], ImageColumn()
    return Dataset.from_dict(columns, Features(kinds))


def _split_of(corpus: Corpus, pages: Any) -> Any:
    from datasets import Dataset

    asked = {
        "id": [query.query_id for query in corpus.queries],
        "text": [query.text for query in corpus.queries],
    }
    qrels = {query_id: dict(graded) for query_id, graded in corpus.qrels.items()}
    return {"corpus": pages, "queries": Dataset.from_dict(asked), "relevant_docs": qrels, "top_ranked": None}
