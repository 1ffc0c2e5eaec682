"""From options to the splits that probes see: the whole corpus is embedded once, splits are rows of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from miner_diag.corpus import Corpus
from miner_diag.embeddings.job import Embedded, StoreOptions, embed
from miner_diag.embeddings.rows import StoreRows
from miner_diag.probes.probe_stack import ProbeError
from miner_diag.probes.retrieval_data import RetrievalData, Side, Vectors, final_at_every_layer
from miner_diag.provenance import RunClock
from miner_diag.retrieval.relevance import Relevance


@dataclass(frozen=True)
class Split:
    """One split of a corpus with its layers."""

    corpus: Corpus
    """Its queries and pages."""
    judged: RetrievalData
    """Its vectors and judgements, rows as in `corpus`."""

    def facts(self) -> dict[str, int | str]:
        """Return what ``run.json`` says of it."""
        return {
            "corpus_part": self.corpus.part,
            "corpus_revision": self.corpus.revision,
            "n_queries": len(self.corpus.queries),
            "n_pages": len(self.corpus.pages),
            "n_pairs": len(self.judged.pairs[0]),
            "n_documents": len({page.doc_id for page in self.corpus.pages}),
        }


@dataclass(frozen=True)
class Splits:
    """A backbone's layers of the training and the validation split."""

    train: Split
    """What probes are fitted to."""
    validation: Split
    """What decides everything else."""


def embed_whole(options: StoreOptions, folder: Path, clock: RunClock) -> Embedded:
    """Embed all splits into ``folder/queries`` and ``folder/pages``, or open what is there.

    Raises
    ------
    ValueError
        If the data or the model can't be used, or the folder holds another store.
    """
    return embed(replace(options, split="all"), folder, clock)


def fitting_splits(
    embedded: Embedded, corpus: Corpus | None = None, *, memory_gb: float = 4.0, side: Side | None = None
) -> Splits:
    """Return train and validation; the test split is not touched.

    Parameters
    ----------
    embedded : Embedded
        All splits, as `embed_whole` gives them.
    corpus : Corpus, optional
        The same items dealt out otherwise (:func:`~miner_diag.corpus.splits.resplit`).
    memory_gb : float
        A side of a split that is larger is read from disk row by row.
    side : str, optional
        Of two towers, whose layers are wanted: they are set against the final embedding of the other side, because
        layer l of one tower has no counterpart in the other.

    Raises
    ------
    ProbeError
        If a page's picture stands in both splits, which a probe could learn by heart; or if the backbone has two towers
        and no side is named, or shared layers and one is.
    ValueError
        If a split holds no query.
    """
    corpus = corpus or embedded.corpus
    train, validation = (take_split(embedded, corpus, name, memory_gb, side) for name in ("train", "validation"))
    shared = {page.page_hash for page in train.corpus.pages} & {page.page_hash for page in validation.corpus.pages}
    if shared:
        raise ProbeError(
            f"{len(shared)} page pictures stand in train and in validation, so validation would flatter the probes; "
            "take another --fold, or put these documents into one"
        )
    return Splits(train, validation)


def take_split(
    embedded: Embedded, corpus: Corpus, name: str, memory_gb: float = 4.0, side: Side | None = None
) -> Split:
    """Return one split of an embedded corpus; sides above `memory_gb` are read row by row."""
    if embedded.backbone.shared_layers == (side is not None):
        raise ProbeError(
            f"{embedded.backbone.name} has two towers, whose layers must not be paired: name the side to probe"
            if side is None
            else f"{embedded.backbone.name} has one stack of layers for both sides, so no side of it stands alone"
        )
    part = corpus.split(name)
    ids = [query.query_id for query in part.queries], [page.page_id for page in part.pages]
    sides = [StoreRows(store, some) for store, some in zip(embedded.stores, ids, strict=True)]
    vectors: list[Vectors] = [
        rows.layer_embeddings if 4 * rows.shape[0] * rows.shape[1] * rows.shape[2] <= memory_gb * 1e9 else rows
        for rows in sides
    ]
    fixed: Side | None = None
    if side is not None:
        fixed, place = ("query", 0) if side == "page" else ("page", 1)
        _, n_layers, width = sides[1 - place].shape
        vectors[place] = final_at_every_layer(sides[place].layer(sides[place].shape[1] - 1), n_layers, width)
    judged = RetrievalData.of(
        vectors[0],
        vectors[1],
        Relevance.from_qrels(part.qrels, *ids),
        [page.page_hash for page in part.pages],
        [query.doc_id for query in part.queries],
        fixed,
    )
    return Split(part, judged)
