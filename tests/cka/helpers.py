"""Layers with planted properties, and stores made of arrays."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from scipy.stats import ortho_group

N_PAGES, N_QUERIES, D = 80, 96, 16
NAMES = ("constant", "noise", "rotated", "rotated_apart", "copy", "loud", "final")


def plant():
    """Make queries [Q, L, D] and pages [P, L, D] whose last layer retrieves, and inner layers of which all is known.

    constant: one vector for all. noise: nothing. rotated: the final layer, both sides turned alike. rotated_apart: the
    final layer, queries and pages turned differently, so CKA is as before and cosines between them are worthless.
    copy: the final layer, scaled and blurred. loud: the final layer with rows of wildly different length, so cosines
    are as before and CKA hangs on a handful of rows. The last 16 queries ask for pages that others ask for too.
    """
    rng = np.random.default_rng(5)
    answer = np.concatenate([np.arange(64), np.arange(16), np.arange(16)])
    meaning = rng.normal(size=(N_PAGES, D))
    page = meaning + 0.5 * rng.normal(size=meaning.shape)
    query = meaning[answer] + 0.5 * rng.normal(size=(N_QUERIES, D))
    turn, other_turn = (ortho_group.rvs(D, random_state=rng) for _ in range(2))
    one = rng.normal(size=D)

    def layers(final, turn_apart):
        n = len(final)
        return {
            "constant": np.tile(one, (n, 1)),
            "noise": rng.normal(size=(n, D)),
            "rotated": final @ turn,
            "rotated_apart": final @ turn_apart,
            "copy": 7 * (final + 0.3 * rng.normal(size=(n, D))),
            "loud": final * np.exp(3 * rng.normal(size=(n, 1))),
            "final": final,
        }

    queries, pages = (
        np.stack([by_name[name] for name in NAMES], axis=1).astype(np.float32)
        for by_name in (layers(query, turn), layers(page, other_turn))
    )
    return SimpleNamespace(
        queries=queries,
        pages=pages,
        gold=[{int(row): 1} for row in answer],
        answer=answer,
        names=NAMES,
        layer={name: number for number, name in enumerate(NAMES)},
        ids={
            "query_ids": [f"q{row:03}" for row in range(N_QUERIES)],
            "page_ids": [f"p{row:03}" for row in range(N_PAGES)],
        },
    )


class CountedStore:
    """Rows of an array, read as those of an embedding store are; what was read is counted."""

    def __init__(self, vectors, ids=None):
        self.vectors, self.shape, self.ids = vectors, vectors.shape, ids
        self.rows_read, self.most_rows, self.layers_read = 0, 0, []

    @property
    def layer_embeddings(self):
        raise AssertionError("all layers of all items were asked for at once")

    def rows(self, rows):
        self.rows_read += len(rows)
        self.most_rows = max(self.most_rows, len(rows))
        return self.vectors[rows]

    def layer(self, layer):
        self.layers_read.append(layer)
        return self.vectors[:, layer]
