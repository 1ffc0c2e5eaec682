"""Data sets of a hub, or folders laid out like one: parquet files with a picture, and mostly a question, in each row.

Read through the library ``datasets``, which copies the rows once into files that are mapped into memory: pictures are
read one at a time, and a page is found again without reading the others. No code of a data set is run: the library
runs none since its version 4, and whatever is not parquet is refused.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from miner_diag.corpus.copies import find_copies, merge_copies
from miner_diag.corpus.core import Corpus, CorpusError, Page, Query, Skipped
from miner_diag.corpus.hub_manifest import COLUMNS, COMMIT, HubManifest
from miner_diag.corpus.images import check_image, read_image
from miner_diag.corpus.splits import deal_with_negatives
from miner_diag.files import cache_folder

logger = logging.getLogger(__name__)

EXTRA = 'reading parquet data needs the extra "datasets": pip install "miner-diag[datasets]"'
HASHED = 1
"""The version of what is noted of each picture; another number makes it anew."""


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
    return _load(folder.name, str(folder), None, (), subset, "", fold)


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
    revision = revision or manifest.revision
    if revision is None:
        raise CorpusError(
            f"data set {manifest.name} ({manifest.hub_id}) is pinned to no commit: none is known for sure. Look its "
            "newest up under Files and versions on its page, and give all 40 digits with --data-revision"
        )
    if not COMMIT.fullmatch(revision):
        raise CorpusError(f"data_revision must be a full commit hash, 40 hexadecimal digits; got {revision!r}")
    return _load(manifest.name, manifest.hub_id, revision, manifest.subsets, subset, manifest.split, fold, manifest)


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
    name: str,
    where: str,
    revision: str | None,
    subsets: Sequence[str],
    subset: str | None,
    split: str,
    fold: int,
    manifest: HubManifest | None = None,
) -> Corpus:
    subsets = subsets or _subsets(where, revision)
    if subset is not None and subset not in subsets:
        raise CorpusError(f"subset must be one of {', '.join(subsets)} for {name}; got {subset!r}")
    several = len(subsets) > 1
    rows = _Rows()
    for one in (subset,) if subset is not None else subsets:
        table = _table(where, revision, one, split)
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
        lambda page_id, side: _render(rows.places, page_id, side),
        tuple(skipped),
        negatives=negatives,
    )


def _read_rows(table: Any, prefix: str, rows: _Rows) -> None:
    """Note every row of a table; its picture stays where it is."""
    facts = table.map(
        _facts,
        remove_columns=[name for name in table.column_names if name not in COLUMNS or name == "image"],
        fn_kwargs={"version": HASHED},
        desc="hashing pictures",
    )
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


def _facts(row: dict[str, Any], version: int) -> dict[str, str]:
    """Return the hash of a row's picture, and what is wrong with it; only its first bytes are decoded.

    The library keeps what this returns, and makes it anew for another `version`.
    """
    content = (row["image"] or {}).get("bytes")
    if not content:  # a path alone is not followed: it could name any file of this machine
        return {"page_hash": "", "problem": "it holds no picture"}
    try:
        check_image(io.BytesIO(content), "its picture")
    except CorpusError as error:
        return {"page_hash": "", "problem": str(error)}
    return {"page_hash": hashlib.sha256(content).hexdigest(), "problem": ""}


def _render(places: dict[str, tuple[Any, int]], page_id: str, longest_side: int) -> Image.Image:
    if page_id not in places:
        raise CorpusError(f"there is no page {page_id!r}")
    table, number = places[page_id]
    picture = read_image(io.BytesIO(table[number]["image"]["bytes"]), page_id)
    picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    return picture


def _subsets(where: str, revision: str | None) -> tuple[str, ...]:
    """Return the configurations of a data set."""
    datasets = _datasets()
    try:
        return tuple(datasets.get_dataset_config_names(where, revision=revision))
    except Exception as error:  # the library raises what it likes: of files, of the network, of a README
        raise _unreadable(where, error) from error


def _table(where: str, revision: str | None, subset: str, split: str) -> Any:
    """Return the rows of a subset's split, mapped into memory, pictures as bytes."""
    datasets = _datasets()
    try:
        builder = datasets.load_dataset_builder(
            where, subset, revision=revision, cache_dir=str(cache_folder() / "datasets")
        )
        if builder.name != "parquet":
            raise CorpusError(f"{where} is no data set of parquet files but of {builder.name}, which is not read")
        _check_inside(where, revision, (str(file) for files in builder.config.data_files.values() for file in files))
        splits = list(builder.config.data_files)
        chosen = split or ("train" if "train" in splits or len(splits) != 1 else str(splits[0]))
        if chosen not in splits:
            raise CorpusError(f"{where} ({subset}) has no split {chosen}; it has {', '.join(map(str, splits))}")
        builder.download_and_prepare()
        table = builder.as_dataset(split=chosen)
        _check_columns(where, table.features)
        return table.cast_column("image", datasets.Image(decode=False))
    except CorpusError:
        raise
    except Exception as error:  # as above
        raise _unreadable(where, error) from error


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


def _check_inside(where: str, revision: str | None, files: Iterator[str]) -> None:
    """Check that the files that a README names are the data set's own, of the commit that was asked for."""
    begins = f"{where}/" if revision is None else f"hf://datasets/{where}@{revision}/"
    for file in files:
        inside = os.path.abspath(file) if revision is None else file
        if not inside.startswith(begins):
            raise CorpusError(
                f"{where} names the file {file}, which is not its own; expected files that begin {begins}"
            )


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise CorpusError(EXTRA) from error
    return datasets


def _unreadable(where: str, error: Exception) -> CorpusError:
    said = " ".join(str(error).split())[:400]
    return CorpusError(
        f"{where} cannot be read: {type(error).__name__}: {said}. Where no hub answers, copy the data set to a folder "
        "and give that folder with --data"
    )
