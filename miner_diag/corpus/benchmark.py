"""Data sets of a public benchmark (ViDoRe V1, V2, V3), from a hub or a folder laid out like one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from miner_diag.corpus.benchmark_lock import check_lock, lock_path, rows_sha256
from miner_diag.corpus.benchmark_manifest import (
    SHARED,
    BenchmarkManifest,
    is_benchmark_manifest,
    read_benchmark_manifest,
)
from miner_diag.corpus.benchmark_tables import Tables, layout_of, read_tables
from miner_diag.corpus.copies import find_copies, merge_copies
from miner_diag.corpus.core import Corpus, CorpusError, Page, Query, Skipped
from miner_diag.corpus.hub_files import HubFiles
from miner_diag.corpus.hub_pictures import draw_picture
from miner_diag.corpus.manifest_file import manifest_folder
from miner_diag.texts import inert

logger = logging.getLogger(__name__)

SPLIT = "test"
"""The split of a folder that is read, or the only one that is there."""


def is_benchmark_folder(folder: Path | str) -> bool:
    """Tell whether a folder of parquet files is laid out as a benchmark's data set, by what its README.md names."""
    return layout_of(HubFiles(Path(folder).name, folder=Path(folder)).configs) is not None


def load_benchmark(manifest: BenchmarkManifest, *, revision: str | None = None, subset: str | None = None) -> Corpus:
    """Fetch and read a data set of a benchmark.

    Every page is its own document, since the data name none, and all of it is test data. Grades are whole numbers and
    stay what they are; a page of grade 0 does not answer. Of pages with the same picture the first stays, and takes the
    judgements of its copies. A page whose picture cannot be read is left out by name with its judgements, and so is a
    query that no page is left to answer. All languages share the pages; ids stay as they are, but for those of queries
    that stand in several languages: there they are behind the language and a slash.

    Counts are checked against the manifest, and all rows against what they were at the first load
    (:mod:`~miner_diag.corpus.benchmark_lock`).

    Parameters
    ----------
    manifest : BenchmarkManifest
        The data set.
    revision : str, optional
        The full commit hash that is read instead of the manifest's; then other counts are a warning, not an error.
    subset : str, optional
        The language whose queries are read; all of them if not given.

    Raises
    ------
    CorpusError
        If the data set cannot be fetched or read, lacks a table or a column, holds other counts or other rows than it
        should, an id stands twice, qrels name an unknown query or page, languages differ in their pages, there is no
        such subset, or no query is left.
    """
    revision = revision or manifest.revision
    files = HubFiles(manifest.name, manifest.hub_id, revision)
    return _load(files, manifest, subset, pinned=revision == manifest.revision)


def load_benchmark_folder(folder: Path | str, *, subset: str | None = None) -> Corpus:
    """Read a folder that is laid out as a benchmark's data set; else as :func:`load_benchmark`.

    A folder with the name of a shipped manifest is taken as a copy of that data set, and must hold what it says.

    Raises
    ------
    CorpusError
        As in `load_benchmark`.
    """
    folder = Path(folder).resolve()
    shipped = manifest_folder() / f"{folder.name}.yaml"
    manifest = read_benchmark_manifest(shipped) if is_benchmark_manifest(shipped) else None
    return _load(HubFiles(folder.name, folder=folder), manifest, subset, pinned=True)


def _load(files: HubFiles, manifest: BenchmarkManifest | None, subset: str | None, *, pinned: bool) -> Corpus:
    name = files.name
    layout = layout_of(files.configs)
    if layout is None or (manifest is not None and layout != manifest.configs):
        expected = f"configurations {', '.join(manifest.configs if manifest is not None else SHARED)}"
        raise CorpusError(f"{name} must have the {expected}; it has {', '.join(files.configs) or 'none'}")
    revision = files.revision or (manifest.revision if manifest is not None else "")
    lock = lock_path(name, revision)
    split, stated = (SPLIT, ()) if manifest is None else (manifest.split, manifest.languages)
    tables = read_tables(files, layout, split, stated, check_pages=not files.hub_id or not lock.exists())
    languages = tuple(tables.queries)
    if subset is not None and subset not in languages:
        known = ", ".join(filter(None, languages)) or "none, since the data do not name languages"
        raise CorpusError(f"subset must be one of {known} for {name}; got {subset!r}")
    counts = tables.counts()
    if manifest is not None:
        _check_counts(counts, manifest, pinned=pinned)
        facts = {"name": name, "hub_id": manifest.hub_id, "revision": revision, "counts": counts}
        check_lock(lock, facts | {"sha256": rows_sha256(tables.rows())}, write=bool(files.hub_id))
    chosen = languages if subset is None else (subset,)
    return _corpus(name if len(chosen) == len(languages) else f"{name}-{subset}", tables, chosen, manifest)


def _check_counts(found: Mapping[str, Any], manifest: BenchmarkManifest, *, pinned: bool) -> None:
    """Compare counts with a manifest's; raises CorpusError for the commit that they are of.

    Pictures are told apart by their files here and by their pixels there, so that another number of them is a warning.
    """
    differ: dict[str, str] = {}
    for what, stated in asdict(manifest.counts).items():
        counted = found[what] if isinstance(found[what], dict) else {"": found[what]}
        wrong = [
            f"{count} {what}{f' in {language}' if language else ''}"
            for language, count in counted.items()
            if count != stated
        ]
        if wrong:
            differ[what] = f"{', '.join(wrong)} instead of {stated}"
    told = f"{manifest.name} holds {'; '.join(differ.values())}, as its manifest states"
    if pinned and differ.keys() - {"pictures"}:
        raise CorpusError(
            f"{told}. A copy in a folder is not whole then, or other data of that name; if the data are right, copy "
            "the manifest, put these counts into it, and give that file with --data"
        )
    if differ:
        logger.warning("%s: another commit, or counted otherwise", told)


def _corpus(name: str, tables: Tables, languages: Sequence[str], manifest: BenchmarkManifest | None) -> Corpus:
    """Return the corpus of all pages and the queries of some languages."""
    found = tables.pages
    sound = {
        page_id: Page(page_id, page_id, 1, "", page_hash)
        for page_id, page_hash in found.hashes.items()
        if page_id not in found.problems
    }
    copies = find_copies(sound)
    pages = {page_id: page for page_id, page in sound.items() if page_id not in copies}
    skipped = [Skipped(page_id, problem) for page_id, problem in found.problems.items()]
    if copies:
        reason = "show the picture of an earlier page, which stays and takes their judgements"
        skipped.append(Skipped(f"{len(copies)} pages", reason))
    queries, kept, lost = [], {}, 0
    for language in languages:
        for query_id, text in tables.queries[language].items():
            judged = tables.qrels[language].get(query_id)
            answers = {page_id: grade for page_id, grade in (judged or {}).items() if grade > 0}
            gold = {page_id: grade for page_id, grade in merge_copies(answers, copies).items() if page_id in pages}
            lost += sum(page_id in found.problems for page_id in judged or {})
            if gold and text:
                queries.append(Query(query_id, text, "given", pages[next(iter(gold))].doc_id, language))
                kept[query_id] = gold
                continue
            if not text:
                reason = "it has no text"
            elif answers:
                reason = "no usable page answers it"
            else:
                reason = "its judgements are all 0" if judged else "qrels do not judge it"
            skipped.append(Skipped(f"query {query_id}", reason))
    if found.problems:
        skipped.append(Skipped(f"{lost} judgements", "are of pages whose picture cannot be used"))
        logger.warning(
            "%d of %d pages of %s are left out with %d judgements, because their picture cannot be used, the first is "
            "%s",
            len(found.problems),
            len(found.hashes),
            name,
            lost,
            inert(next(iter(found.problems))),
        )
    if not queries:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in skipped[:10])
        raise CorpusError(f"{name} has no query with a usable page ({reasons or 'there is no query'})")
    return Corpus(
        name,
        "verbatim",
        0,
        tuple(pages.values()),
        tuple(queries),
        kept,
        dict.fromkeys((page.doc_id for page in pages.values()), "test"),
        lambda page_id, side: draw_picture(found.places, page_id, side),
        tuple(skipped),
        benchmark=None if manifest is None else manifest.of_benchmark(),
        test_only=True,
    )
