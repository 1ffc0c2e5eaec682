"""Data sets of a hub, or folders laid out like one, with a picture, and mostly a question, in each row."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from miner_diag.corpus.copies import find_copies, merge_copies
from miner_diag.corpus.core import Corpus, CorpusError, Page, Query, Skipped
from miner_diag.corpus.hub_files import HubFiles
from miner_diag.corpus.hub_manifest import COLUMNS, HubManifest
from miner_diag.corpus.hub_pictures import draw_picture, picture_facts
from miner_diag.corpus.splits import deal_with_negatives

logger = logging.getLogger(__name__)


def is_hub_folder(folder: Path | str) -> bool:
    """Tell whether a folder, or one just below it, holds parquet files, and neither holds PDFs."""
    folder = Path(folder)
    found = [any((*folder.glob(f"*.{kind}"), *folder.glob(f"*/*.{kind}"))) for kind in ("parquet", "pdf")]
    return found == [True, False]


def load_hub_folder(folder: Path | str, *, subset: str | None = None, fold: int = 0) -> Corpus:
    """Read a folder of parquet files: a copy of a data set, or one's own in its layout.

    A README.md with a hub's ``configs`` names subsets; without one there is one alone. The split "train" is read, or
    the only one that is there. Else all is as in :func:`load_hub_data`.

    Raises
    ------
    CorpusError
        As in `load_hub_data`.
    """
    folder = Path(folder).resolve()
    return _load(HubFiles(folder.name, folder=folder), (), subset, "train", fold)


def load_hub_data(
    manifest: HubManifest, *, revision: str | None = None, subset: str | None = None, fold: int = 0
) -> Corpus:
    """Fetch and read a data set of a hub.

    Every row is a page; a row with a question is a query too, answered by its own page. Both have the row's ``id``
    (its number where there is none), behind the subset's name and a slash where the data set has several. Of rows with
    the same picture the first stays as the page; a row whose id was there before is left out by name. The pages' own
    documents are not known, so each page is one; the ids in ``negatives`` become `Corpus.negatives`, and pages go to
    splits with the queries that they were mined for (:func:`~miner_diag.corpus.splits.deal_with_negatives`).
    Nothing is hidden: the form is "verbatim".

    Parameters
    ----------
    manifest : HubManifest
        The data set.
    revision : str, optional
        The full commit hash that is read instead of the manifest's.
    subset : str, optional
        The subset that is read; all of them if not given.
    fold : int
        Number of the split.

    Raises
    ------
    CorpusError
        If no commit is pinned, the data set cannot be fetched or read, is no parquet, lacks a column or the subset, or
        no query is left.
    """
    commit = revision or manifest.revision
    if commit is None:
        raise CorpusError(
            f"data set {manifest.name} ({manifest.hub_id}) is pinned to no commit: none is known for sure. Look its "
            "newest up under Files and versions on its page, and give all 40 digits with --data-revision"
        )
    files = HubFiles(manifest.name, manifest.hub_id, commit)
    return _load(files, manifest.subsets, subset, manifest.split, fold, manifest)


@dataclass
class _Rows:
    """What was read of the rows so far."""

    pages: dict[str, Page] = field(default_factory=dict)
    places: dict[str, tuple[Any, int]] = field(default_factory=dict)
    """page_id -> the table with its picture and the number of its row."""
    texts: dict[str, str] = field(default_factory=dict)
    mined: dict[str, tuple[str, ...]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    n_rows: int = 0
    n_queries: int = 0


def _load(
    files: HubFiles,
    subsets: Sequence[str],
    subset: str | None,
    split: str,
    fold: int,
    manifest: HubManifest | None = None,
) -> Corpus:
    name = files.name
    subsets = subsets or tuple(files.configs) or ("default",)
    if subset is not None and subset not in subsets:
        raise CorpusError(f"subset must be one of {', '.join(subsets)} for {name}; got {subset!r}")
    several = len(subsets) > 1
    rows = _Rows()
    for one in (subset,) if subset is not None else subsets:
        table = files.table(one, split)
        _check_columns(name, table.features)
        if manifest is not None and not set(manifest.columns) <= set(table.column_names):
            raise CorpusError(
                f"{name} must have the columns {', '.join(manifest.columns)}, as its manifest says; it has "
                f"{', '.join(table.column_names)}"
            )
        _read_rows(table, f"{one}/" if several else "", rows)
    found = {"rows": rows.n_rows, "queries": rows.n_queries}
    if manifest is not None and subset is None and dict(manifest.counts) != found:
        logger.warning(
            "%s has %d rows and %d queries, its manifest says %d and %d: another commit, or counted otherwise",
            name,
            found["rows"],
            found["queries"],
            manifest.counts["rows"],
            manifest.counts["queries"],
        )
    return _corpus(name if subset is None else f"{name}-{subset}", rows, fold)


def _corpus(name: str, rows: _Rows, fold: int) -> Corpus:
    skipped = list(rows.skipped)
    copies = find_copies(rows.pages)
    if copies:
        reason = "show the picture of an earlier row, which stays as the page of their queries too"
        skipped.append(Skipped(f"{len(copies)} rows", reason))
    pages = {page_id: page for page_id, page in rows.pages.items() if page_id not in copies}
    qrels = {query_id: merge_copies({query_id: 1}, copies) for query_id in rows.texts}
    queries = tuple(
        Query(query_id, text, "given", pages[next(iter(qrels[query_id]))].doc_id)
        for query_id, text in rows.texts.items()
    )
    if not queries:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in skipped[:10])
        raise CorpusError(f"{name} has no row with a question and a usable picture ({reasons or 'no row has a query'})")
    negatives, unknown = {}, 0
    for query_id, listed in rows.mined.items():
        kept = [copies.get(page_id, page_id) for page_id in listed]
        unknown += sum(page_id not in pages for page_id in kept)
        found = tuple(dict.fromkeys(page for page in kept if page in pages and page not in qrels[query_id]))
        if found:
            negatives[query_id] = found
    if unknown:
        skipped.append(Skipped(f"{unknown} negatives", "name rows that are not there or have no usable picture"))
    documents = {page_id: page.doc_id for page_id, page in pages.items()}
    return Corpus(
        name,
        "verbatim",
        fold,
        tuple(pages.values()),
        queries,
        qrels,
        deal_with_negatives(tuple(documents.values()), documents, qrels, negatives, fold),
        lambda page_id, side: draw_picture(rows.places, page_id, side),
        tuple(skipped),
        negatives=negatives,
    )


def _read_rows(table: Any, prefix: str, rows: _Rows) -> None:
    """Note every row of a table; its picture stays where it is."""
    facts = picture_facts(table, [name for name in COLUMNS if name != "image"])
    bar = tqdm(enumerate(facts), total=len(facts), desc="rows", unit="row", delay=2.0)
    for number, row in bar:
        rows.n_rows += 1
        page_id = f"{prefix}{number if row.get('id') is None else row['id']}"
        text = (row["query"] or "").strip()
        rows.n_queries += bool(text)
        problem = "its id stands in an earlier row" if page_id in rows.places else row["problem"]
        if problem:
            rows.skipped.append(Skipped(page_id, problem))
            continue
        rows.pages[page_id] = Page(page_id, page_id, 1, "", row["page_hash"])
        rows.places[page_id] = (table, number)
        if text:
            rows.texts[page_id] = text
            rows.mined[page_id] = tuple(f"{prefix}{mined}" for mined in row.get("negatives") or ())


def _check_columns(where: str, features: dict[str, Any]) -> None:
    """Check that rows have a question and a picture, and that what is read of them is of the right kind."""
    if lacking := [name for name in ("query", "image") if name not in features]:
        raise CorpusError(f"{where} has no column {', '.join(lacking)}; it has {', '.join(features)}")
    texts, numbers = ("string", "large_string"), ("int32", "int64")
    for name, kinds in (("query", texts), ("id", (*texts, *numbers))):
        kind = getattr(features.get(name), "dtype", "")
        if name in features and kind not in kinds:
            raise CorpusError(f"{where}: column {name} must be {' or '.join(kinds)}; got {features[name]}")
    if "negatives" in features and not hasattr(features["negatives"], "feature"):
        raise CorpusError(f"{where}: column negatives must hold a list of ids; got {features['negatives']}")
