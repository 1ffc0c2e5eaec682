"""From options to pooled layers: what every command that needs them does first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from miner_diag.backbones import Backbone, LoadOptions, load_backbone
from miner_diag.backbones.base import SIDES, Side
from miner_diag.backbones.late import LateBackbone
from miner_diag.backbones.reader import EXTRA, can_read_pictures
from miner_diag.corpus.core import Corpus, Page, Query
from miner_diag.corpus.options import DataOptions
from miner_diag.embeddings.folder import StoreFolder
from miner_diag.embeddings.forward import embed_layers
from miner_diag.embeddings.noise import NoiseFloor, noise_floor
from miner_diag.embeddings.options import StoreOptions
from miner_diag.embeddings.processes import one_process, processes
from miner_diag.embeddings.shards import StoreError
from miner_diag.embeddings.store import LAYERS, EmbeddingStore, layer_bytes
from miner_diag.embeddings.stored import StoredCorpus, StoredSide, items_words, size_words

if TYPE_CHECKING:
    from miner_diag.runs import RunFolder

Loaded = TypeVar("Loaded", Backbone, LateBackbone)


class CorpusStores(NamedTuple):
    """The pooled layers of both sides of a corpus."""

    queries: EmbeddingStore
    """Rows are those of ``corpus.queries``."""
    pages: EmbeddingStore
    """Rows are those of ``corpus.pages``."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """Queries and pages that have passed through a backbone."""

    corpus: Corpus
    """The queries and pages."""
    backbone: Backbone
    """The retriever."""
    stores: CorpusStores
    """The pooled layers of queries and pages; rows are those of `corpus`."""

    @cached_property
    def noise(self) -> NoiseFloor:
        """What of a number is rounding; 16 pages are embedded alone when this is read for the first time."""
        return noise_floor(self.stores.pages, self.backbone, self.corpus.pages)

    def facts(self) -> dict[str, Any]:
        """Return what ``run.json`` says of all this."""
        facts = facts_of(self.backbone, self.corpus, self.stores.pages.counts)
        stores = {"queries": str(self.stores.queries.folder), "pages": str(self.stores.pages.folder)}
        return facts | {"stores": stores, "noise_floor": self.noise.as_dict()}

    def notes(self) -> list[str]:
        """Return sentences on what the retriever did not get to read, and on vectors that depend on their batch."""
        notes = unread_notes(self.stores.pages.counts, len(self.corpus.pages), self.backbone)
        caution = self.noise.caution(self.backbone.name, str(self.backbone.dtype).removeprefix("torch."))
        return notes if caution is None else [*notes, caution]


class EmbeddedCorpus:
    """A corpus, a retriever, and the store in which their pooled layers are kept.

    Nothing is embedded until a part is taken, and no item is embedded twice, whichever command asks first.

    Parameters
    ----------
    corpus : Corpus
        All splits.
    backbone : Backbone
        A frozen retriever.
    options : StoreOptions
        Where embeddings are kept.
    run : RunFolder, optional
        Gets the times of the stages.
    progress : bool
        Whether sizes are told before it starts, and bars are shown after two seconds.
    several_processes : bool
        Whether the processes of a launcher share the work. A command that does not provide for them is refused there.

    Raises
    ------
    ValueError
        If several processes were started and that is not provided for.
    """

    def __init__(
        self,
        corpus: Corpus,
        backbone: Backbone,
        options: StoreOptions | None = None,
        *,
        run: RunFolder | None = None,
        progress: bool = True,
        several_processes: bool = False,
    ) -> None:
        self.corpus = corpus
        """The queries and pages of all splits."""
        self.backbone = backbone
        """The retriever."""
        self.options = options or StoreOptions()
        """Where embeddings are kept."""
        self._run = run
        sharing = processes() if several_processes else one_process()
        queries, pages = (self._side(side) for side in SIDES)
        self._stored = StoredCorpus(corpus, queries, pages, self._sizes, sharing, progress=progress)

    def take(self, part: Corpus) -> Embedded:
        """Return the pooled layers of some of the queries and pages; what is not in the store is embedded.

        A shard of the store is embedded whole, whichever of its items are asked for.

        Parameters
        ----------
        part : Corpus
            Queries and pages of `corpus`: ``corpus.split("validation")``, or a split of
            :func:`~miner_diag.corpus.splits.resplit`.

        Raises
        ------
        ValueError
            If the part holds other items than `corpus`, nothing can be read on any of its pages, an item cannot be
            embedded (:class:`NonFiniteError`, :class:`OutOfMemoryError`), or the store cannot be used
            (:class:`StoreError`).
        """
        queries, pages = self._stored.take(part)
        stores = CorpusStores(
            *(
                EmbeddingStore(rows, self.backbone.layer_shape(side), self.backbone.kept(side))
                for side, rows in zip(SIDES, (queries, pages), strict=True)
            )
        )
        refuse_unread_pages(self.backbone, part, stores.pages.counts)
        if self._run is not None:
            self._run.stage("embed")
        return Embedded(part, self.backbone, stores)

    def _side(self, side: Side) -> StoredSide:
        n_layers, width = self.backbone.layer_shape(side)
        key = {**self.backbone.key(side), "token_budget": str(self.options.token_budget)}
        fields = {"layers": n_layers, "width": width, "dtype": "float32"}
        if "layer_pooling" in key:  # both lie in the store, and the option says which vectors are read
            key["layer_pooling"] = "both"
            fields["kept"] = self.backbone.kept(side).count
        folder = StoreFolder(self.options.store, LAYERS, side, self.backbone.name, key, fields)
        return StoredSide(folder, self.corpus, self._embed)

    def _embed(
        self, items: Sequence[Query] | Sequence[Page], side: Side, advance: Callable[[int], object]
    ) -> Mapping[str, np.ndarray]:
        return embed_layers(self.backbone, items, side, self.options.token_budget, advance)

    def _sizes(self, counts: Mapping[Side, int]) -> tuple[str, int]:
        shapes = {side: self.backbone.layer_shape(side) for side in sorted(counts)}  # pages first, as in the sentence
        kept = {side: self.backbone.kept(side).count for side in shapes}
        size = sum(layer_bytes((counts[side], kept[side], width)) for side, (_, width) in shapes.items())
        layers = " and ".join(dict.fromkeys(f"{n_layers} layers x {width}" for n_layers, width in shapes.values()))
        if any(kept[side] > n_layers for side, (n_layers, _) in shapes.items()):
            layers += ", inner ones under both poolings (--layer-pooling)"
        return f"embedding {items_words(counts)} with {self.backbone.name}: {layers}, {size_words(size)}", size


def open_corpus(
    load: LoadOptions,
    data: DataOptions,
    store: StoreOptions,
    run: RunFolder | None = None,
    *,
    split: str = "all",
    corpus: Corpus | None = None,
    progress: bool = True,
    several_processes: bool = False,
) -> EmbeddedCorpus:
    """Load a corpus and a retriever, and open the store of their pooled layers; nothing is embedded yet.

    Parameters
    ----------
    load : LoadOptions
        Which retriever.
    data : DataOptions
        Which queries and pages, of all splits.
    store : StoreOptions
        Where embeddings are kept.
    run : RunFolder, optional
        Gets the times of the stages.
    split : str
        What ``data.limit`` draws from; without a limit all splits are loaded in any case.
    corpus : Corpus, optional
        What `data` names, if it is loaded already.
    progress : bool
        Whether sizes are told before it starts, and bars are shown after two seconds.
    several_processes : bool
        Whether the processes of a launcher share the work.

    Raises
    ------
    ValueError
        If the data or the retriever cannot be used; see the functions that this calls.
    """
    if not several_processes:
        one_process()  # said before anything is loaded
    corpus, backbone = load_both(load_backbone, load, data, run, split=split, corpus=corpus, progress=progress)
    return EmbeddedCorpus(corpus, backbone, store, run=run, progress=progress, several_processes=several_processes)


def load_both(
    load_retriever: Callable[..., Loaded],
    load: LoadOptions,
    data: DataOptions,
    run: RunFolder | None,
    *,
    split: str,
    corpus: Corpus | None,
    progress: bool,
) -> tuple[Corpus, Loaded]:
    """Return the corpus, loaded if it is not given, and what `load_retriever` loads; other parameters as above."""
    if corpus is None:
        corpus = data.load_around(split)
        if run is not None:
            run.stage("corpus")
    backbone = load_retriever(load, render=corpus.render, progress=progress)
    if run is not None:
        run.stage("backbone")
    return corpus, backbone


def unread_notes(counts: Mapping[str, int], n_pages: int, backbone: Backbone | LateBackbone) -> list[str]:
    """Return sentences on what a retriever did not get to read of `n_pages` pages, as the store counted it."""
    notes = []
    if counts["truncated"]:
        limit = backbone.key("page").get("page_max_tokens")
        note = f"{counts['truncated']:,} of {n_pages:,} pages are cut at {f'{limit} tokens' if limit else 'the limit'}"
        if (share := share_read(counts)) is not None:
            note += f": {100 * share:.0f} % of the characters of all pages are read"
        notes.append(note + ("; --long-pages windows reads all" if backbone.long_pages == "truncate" else ""))
    if counts["empty"]:
        notes.append(f"{counts['empty']} of {n_pages} pages have no text to read (see --reader)")
    return notes


def share_read(counts: Mapping[str, int]) -> float | None:
    """Return the share of the texts' characters that a retriever read, as the store counted them; None if not known."""
    return counts["characters_read"] / counts["characters"] if counts["characters"] else None


def facts_of(backbone: Backbone | LateBackbone, corpus: Corpus, pages: Mapping[str, int]) -> dict[str, Any]:
    """Return what ``run.json`` says of a retriever, what it ran over, and what the store counted of the pages."""
    return {
        "backbone": backbone.key(),
        "last_layer": backbone.last_layer,
        "corpus": corpus.name,
        "corpus_part": corpus.part,
        "corpus_revision": corpus.revision,
        "n_queries": len(corpus.queries),
        "n_pages": len(corpus.pages),
        "pages_without_text": pages["empty"],
        "pages_truncated": pages["truncated"],
        "share_of_characters_read": share_read(pages),
        "skipped": {item.name: item.reason for item in corpus.skipped},
    }


def refuse_unread_pages(backbone: Backbone | LateBackbone, part: Corpus, counts: Mapping[str, int]) -> None:
    """Check that the retriever has read something on at least one page.

    Raises
    ------
    StoreError
        If every page was empty to it.
    """
    if counts["empty"] == len(part.pages):
        way_out = (
            "look at the pages, or take a retriever that looks at their pictures" if can_read_pictures() else EXTRA
        )
        raise StoreError(
            f"{backbone.name} finds nothing to read on any of the {len(part.pages)} pages of {part.name} "
            f"({part.part}); {way_out}"
        )
