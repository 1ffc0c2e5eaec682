"""Pictures of a corpus: how many queries of which kind, and what hiding a query takes off its page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy import ndimage

from miner_diag.corpus.core import SPLITS, Corpus, Query
from miner_diag.corpus.summary import KINDS
from miner_diag.figures import (
    BLUE,
    GREEN,
    ORANGE,
    SMALL,
    TEXT,
    VERMILLION,
    WIDTH,
    finish_figure,
    legend_below,
    new_figure,
    only,
)
from miner_diag.texts import inert

KIND_COLOURS = {"outline": BLUE, "figure": ORANGE, "table": GREEN, "given": "#999999"}
"""The colour of each kind of query."""
HATCHES = {"outline": "", "figure": "//", "table": "..", "given": "xx"}
"""So that the kinds are told apart in grey print too."""
PLAIN = {"outline": "outline titles", "figure": "figure captions", "table": "table captions", "given": "given queries"}
"""What the legend calls each kind."""


def queries_by_kind(summary: pd.DataFrame) -> Figure:
    """Draw the number of queries per split, stacked by kind.

    Parameters
    ----------
    summary : DataFrame
        As :func:`miner_diag.corpus.summary.corpus_summary` returns it; columns data and fold are named in the title.
    """
    figure = new_figure(WIDTH, 2.5)
    ax = figure.subplots()
    rows = summary.set_index("split").loc[list(SPLITS)]
    left = np.zeros(len(rows))
    for kind in KINDS:
        widths = rows[kind].to_numpy()
        if widths.any():
            look: dict[str, Any] = {
                "color": KIND_COLOURS[kind],
                "hatch": HATCHES[kind],
                "edgecolor": "white",
                "label": PLAIN[kind],
            }
            ax.barh(rows.index, widths, left=left, **look)
            left += widths
    for number, (split, row) in enumerate(rows.iterrows()):
        said = f" {row['queries']} of {row['documents']} documents,\n {row['pages']} pages"
        ax.annotate(said, (left[number], split), va="center", fontsize=SMALL)
    ax.set_xlim(0, 1.5 * left.max())
    ax.invert_yaxis()
    ax.set(xlabel="queries")
    ax.tick_params(axis="y", length=0)
    legend_below(ax, *ax.get_legend_handles_labels())
    data, fold = only(summary, "data"), only(summary, "fold")
    of = "" if data is None else f"\n{data}{'' if fold is None else f', document split {fold}'}"
    return finish_figure(figure, f"Where the queries come from{of}")


BOX = ("left", "top", "right", "bottom")
"""Columns of a box: shares of the page's width and height, from its upper left corner."""


def removed_words(
    hidden: Corpus, verbatim: Corpus, queries: Sequence[Query], *, longest_side: int = 2000
) -> pd.DataFrame:
    """Return where hiding a query changed its page: a row for each box, the largest box of a query first.

    Parameters
    ----------
    hidden, verbatim : Corpus
        The two forms of one corpus.
    queries : sequence of Query
        The queries that are looked at.
    longest_side : int
        Of a page, in pixels.

    Returns
    -------
    DataFrame
        query_id, text, kind, doc_id, page_id, and the columns `BOX`.
    """
    rows = []
    for query in queries:
        page_id = next(iter(hidden.qrels[query.query_id]))
        pictures = [
            np.asarray(corpus.render(page_id, longest_side).convert("L"), dtype=int) for corpus in (verbatim, hidden)
        ]
        changed = np.abs(pictures[0] - pictures[1]) > 40
        height, width = changed.shape
        words = ndimage.binary_dilation(changed, np.ones((1, longest_side // 60)))  # words of a line belong together
        boxes = [place for place in ndimage.find_objects(ndimage.label(words)[0]) if changed[place].sum() > 20]
        boxes.sort(key=lambda place: -int(changed[place].sum()))
        for y, x in boxes:
            ends = (x.start / width, y.start / height, x.stop / width, y.stop / height)
            named = {name: getattr(query, name) for name in ("query_id", "text", "kind", "doc_id")}
            rows.append(
                {**named, "page_id": page_id, **{name: round(end, 4) for name, end in zip(BOX, ends, strict=True)}}
            )
    return pd.DataFrame(rows)


def hidden_and_verbatim(hidden: Corpus, verbatim: Corpus, removed: pd.DataFrame, *, longest_side: int = 2000) -> Figure:
    """Draw a piece of each query's page as it is and with the query's words taken off, which a frame marks.

    Parameters
    ----------
    hidden, verbatim : Corpus
        The two forms of one corpus.
    removed : DataFrame
        As `removed_words` returns it.
    longest_side : int
        Of a page, in pixels.
    """
    queries = list(dict.fromkeys(removed["query_id"]))
    figure = new_figure(WIDTH, 0.5 + 1.75 * len(queries))
    axes = figure.subplots(2 * len(queries), 1, squeeze=False)[:, 0].reshape(-1, 2)
    for pair, query_id in zip(axes, queries, strict=True):
        boxes = removed[removed["query_id"] == query_id]
        first = boxes.iloc[0]
        for ax, corpus in zip(pair, (verbatim, hidden), strict=True):
            picture = corpus.render(first["page_id"], longest_side)
            width, height = picture.size
            across, along = int(0.62 * width), int(0.62 * width / 7)
            left = min(max(0, int(first["left"] * width) - across // 6), width - across)
            top = min(max(0, int((first["top"] + first["bottom"]) / 2 * height) - along // 2), height - along)
            ax.imshow(picture.crop((left, top, left + across, top + along)), interpolation="lanczos")
            for box in boxes[list(BOX)].to_numpy(float) * (width, height, width, height):
                corner = (box[0] - left - 3, box[1] - top - 3)
                frame = Rectangle(corner, box[2] - box[0] + 6, box[3] - box[1] + 6, fill=False, linewidth=1.4)
                frame.set_edgecolor(VERMILLION)
                ax.add_patch(frame)
            ax.set(xticks=[], yticks=[], xlim=(0, across), ylim=(along, 0))
        pair[0].set_ylabel("verbatim")
        pair[1].set_ylabel("hidden")
        pair[0].set_title(_wrapped(f"{first['kind']}: {first['text']}"), fontsize=TEXT, loc="left", parse_math=False)
    caption = (
        "Pieces of pages. Framed: the words of the query, which the hidden form takes off the page and out of its text."
    )
    return finish_figure(figure, "What hiding a query takes off its page", caption, spines=True)


def _wrapped(text: str, width: int = 62, most: int = 2) -> str:
    return "\n".join(textwrap.wrap(inert(text), width, max_lines=most, placeholder=" …"))
