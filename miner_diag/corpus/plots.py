"""Pictures of a corpus: how many queries of which kind, and what hiding a query does to its page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from miner_diag.corpus.core import SPLITS, Corpus, Query
from miner_diag.corpus.summary import KINDS
from miner_diag.figures import BLUE, GREEN, ORANGE, new_figure
from miner_diag.texts import inert

KIND_COLOURS = {"outline": BLUE, "figure": ORANGE, "table": GREEN, "given": "#999999"}
"""The colour of each kind of query."""
HATCHES = {"outline": "", "figure": "//", "table": "..", "given": "xx"}
"""So that the kinds are told apart in grey print too."""


def queries_by_kind(summary: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the number of queries per split, stacked by kind.

    Parameters
    ----------
    summary : DataFrame
        As :func:`miner_diag.corpus.summary.corpus_summary` returns it.
    ax : Axes, optional
        Where to draw; a new figure by default.
    """
    if ax is None:
        ax = new_figure(5.2, 3.0).subplots()
    rows = summary.set_index("split").loc[list(SPLITS)]
    left = np.zeros(len(rows))
    for kind in KINDS:
        counts = rows[kind].to_numpy()
        if counts.any():
            ax.barh(
                rows.index,
                counts,
                left=left,
                color=KIND_COLOURS[kind],
                hatch=HATCHES[kind],
                edgecolor="white",
                label=kind,
            )
            left += counts
    for number, (split, row) in enumerate(rows.iterrows()):
        ax.annotate(
            f" {row['documents']} documents, {row['pages']} pages", (left[number], split), va="center", fontsize=8
        )
    ax.set_xlim(0, 1.5 * left.max())
    ax.invert_yaxis()
    ax.set(xlabel="queries", ylabel="split")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(KINDS))
    return ax


def hidden_and_verbatim(
    hidden: Corpus, verbatim: Corpus, queries: Sequence[Query], *, longest_side: int = 1000
) -> Figure:
    """Draw pages as they are (above) and with their queries' words taken out (below), the query as the title.

    Parameters
    ----------
    hidden, verbatim : Corpus
        The two forms of one corpus.
    queries : sequence of Query
        One column each.
    longest_side : int
        Of a page, in pixels.
    """
    figure = new_figure(2.6 * len(queries), 7.0)
    axes = figure.subplots(2, len(queries), squeeze=False)
    for column, query in zip(axes.T, queries, strict=True):
        page_id = next(iter(hidden.qrels[query.query_id]))
        for ax, corpus in zip(column, (verbatim, hidden), strict=True):
            ax.imshow(corpus.render(page_id, longest_side))
            ax.set(xticks=[], yticks=[])
        column[0].set_title(f"{query.kind}:\n{_wrapped(query.text)}", fontsize=8, parse_math=False)
    axes[0, 0].set_ylabel("verbatim")
    axes[1, 0].set_ylabel("hidden")
    return figure


def _wrapped(text: str, width: int = 34, most: int = 3) -> str:
    return "\n".join(textwrap.wrap(inert(text), width, max_lines=most, placeholder=" …"))
