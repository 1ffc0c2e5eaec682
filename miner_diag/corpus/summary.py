"""A corpus in a table: pages and queries by split and kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pandas as pd

from miner_diag.corpus.core import SPLITS, Corpus, Skipped
from miner_diag.texts import inert

KINDS = ("outline", "figure", "table", "given")


def corpus_summary(corpus: Corpus) -> pd.DataFrame:
    """Return one row per split and one for all.

    Columns: split, documents, pages, pages_with_query, pages_without_text, queries, and queries of each kind.
    """
    gold = {page_id for judged in corpus.qrels.values() for page_id in judged}
    rows = []
    for name in (*SPLITS, "all"):
        pages = [p for p in corpus.pages if name in ("all", corpus.splits[p.doc_id])]
        queries = [q for q in corpus.queries if name in ("all", corpus.splits[q.doc_id])]
        rows.append(
            {
                "split": name,
                "documents": len({page.doc_id for page in pages}),
                "pages": len(pages),
                "pages_with_query": sum(page.page_id in gold for page in pages),
                "pages_without_text": sum(not page.text for page in pages),
                "queries": len(queries),
                **{kind: sum(query.kind == kind for query in queries) for kind in KINDS},
            }
        )
    return pd.DataFrame(rows)


def skipped_lines(skipped: Sequence[Skipped], n_names: int = 3) -> list[str]:
    """Return a line for each reason that something was left out for, with how much and the first names."""
    names: dict[str, list[str]] = defaultdict(list)
    for item in skipped:
        names[item.reason].append(item.name)
    lines = []
    for reason, found in names.items():
        more = f" and {len(found) - n_names} more" if len(found) > n_names else ""
        lines.append(inert(f"left out: {', '.join(found[:n_names])}{more}: {reason}"))
    return lines
