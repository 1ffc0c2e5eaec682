"""The rankings of an evaluation as files that other tools read: a run for each system, and qrels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from miner_diag.corpus import Corpus
from miner_diag.evaluation.scored_system import ScoredSystem
from miner_diag.files import write_atomic
from miner_diag.retrieval.trec import qrels_text, run_text

RUNS = "runs"
"""The folder of the runs, in the folder of the evaluation."""
QRELS = "qrels.trec"
"""The file of judgements beside it."""

_LONGEST = 100  # characters of a name: file systems allow 255 bytes


def write_trec_files(folder: Path, systems: Sequence[ScoredSystem], part: Corpus) -> dict[str, str]:
    """Write ``runs/NAME.trec`` for each system with a ranking, and ``qrels.trec``.

    A system with several seeds has the ranking of the first one. Runs of an earlier evaluation are removed.

    Parameters
    ----------
    folder : path
        The folder of the evaluation.
    systems : sequence of ScoredSystem
        The systems.
    part : Corpus
        The queries and pages that they were scored on.

    Returns
    -------
    dict
        Key of a system -> its file, relative to the folder.
    """
    query_ids, page_ids = [query.query_id for query in part.queries], [page.page_id for page in part.pages]
    names = file_names([system.key for system in systems])
    written = {}
    for system, name in zip(systems, names, strict=True):
        if system.measures.hits is not None:
            path = folder / RUNS / f"{name}.trec"
            write_atomic(path, run_text(system.measures.hits, query_ids, page_ids, name))
            written[system.key] = path.relative_to(folder).as_posix()
    for path in (folder / RUNS).glob("*.trec"):
        if path.relative_to(folder).as_posix() not in written.values():
            path.unlink()
    write_atomic(folder / QRELS, qrels_text({query_id: part.qrels[query_id] for query_id in query_ids}))
    return written


def file_names(keys: Sequence[str]) -> list[str]:
    """Return a name for each key that any file system and any run file takes; no two are alike.

    Examples
    --------
    >>> file_names(["page-text: fusion (runs/a)", "page-text: fusion (runs a)"])
    ['page-text-fusion-runs-a', 'page-text-fusion-runs-a-2']
    """
    names: list[str] = []
    taken: set[str] = set()
    for key in keys:
        base = re.sub(r"[^A-Za-z0-9._-]+", "-", key).strip("-.")[:_LONGEST] or "system"
        number, name = 1, base
        while name.lower() in taken:  # there are file systems that do not tell capitals apart
            number += 1
            name = f"{base}-{number}"
        taken.add(name.lower())
        names.append(name)
    return names
