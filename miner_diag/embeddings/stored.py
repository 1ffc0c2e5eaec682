"""A corpus and what is kept of it: shards are looked up, what is missing is embedded, and rows of it are handed out."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from tqdm import tqdm

from miner_diag.backbones.base import Side, ids_of
from miner_diag.corpus.core import Corpus, Page, Query
from miner_diag.embeddings.folder import StoreFolder
from miner_diag.embeddings.plan import plan_shards
from miner_diag.embeddings.processes import Processes
from miner_diag.embeddings.shards import EMPTY, TRUNCATED, Shard, StoreError
from miner_diag.texts import inert


class EmbedItems(Protocol):
    """Runs the items of a shard through the retriever."""

    def __call__(
        self, items: Sequence[Query] | Sequence[Page], side: Side, advance: Callable[[int], object]
    ) -> Mapping[str, np.ndarray]:
        """Return the tensors of a shard; `advance` takes the number of items after each batch."""
        ...


@dataclass(frozen=True, eq=False)
class Rows:
    """Items of a store: where each one lies."""

    folder: StoreFolder
    """The store."""
    ids: tuple[str, ...]
    """The ids of the n items."""
    shards: tuple[Shard, ...]
    """The shards that hold them."""
    shard_numbers: np.ndarray
    """[n] int64, the shard of each item."""
    shard_rows: np.ndarray
    """[n] int64, the row of each item in its shard."""

    def by_shard(self, numbers: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, Shard, np.ndarray]]:
        """Yield shard by shard: positions in `numbers` (in all items if not given), the shard, and rows in it."""
        numbers = np.arange(len(self.ids)) if numbers is None else numbers
        shard_numbers = self.shard_numbers[numbers]
        order = np.argsort(shard_numbers, kind="stable")
        opened, starts = np.unique(shard_numbers[order], return_index=True)
        for number, positions in zip(opened.tolist(), np.split(order, starts[1:]), strict=True):
            yield positions, self.shards[number], self.shard_rows[numbers[positions]]

    def counts(self) -> dict[str, int]:
        """Return what was noted of the items.

        Returns
        -------
        dict
            How many are "empty" and how many "truncated"; how many "characters" the texts have, and how many of them
            were read ("characters_read"). Texts whose length is not known count for neither.
        """
        notes, characters = self.noted("notes"), self.noted("characters")
        read, in_all = characters.sum(axis=0).tolist()
        return {
            "empty": int((notes & EMPTY > 0).sum()),
            "truncated": int((notes & TRUNCATED > 0).sum()),
            "characters": in_all,
            "characters_read": read,
        }

    def noted(self, name: str) -> np.ndarray:
        """Return what was noted of each item: a tensor of the shards, [n, …] int64."""
        values = np.empty((len(self.ids), *self.shards[0].tensors[name].shape[1:]), dtype=np.int64)
        for positions, shard, rows in self.by_shard():
            values[positions] = shard.tensors[name][rows]
        return values

    def take(self, ids: Sequence[str]) -> Rows:
        """Return some of the items, in the order of `ids`.

        Raises
        ------
        ValueError
            If an id is not among them; it is named.
        """
        number_of = {item_id: number for number, item_id in enumerate(self.ids)}
        missing = [item_id for item_id in ids if item_id not in number_of]
        if missing:
            raise ValueError(
                f"{self.folder.path} was opened without item {missing[0]!r} ({len(missing)} of {len(ids)} are not "
                "among the items that were taken)"
            )
        numbers = np.array([number_of[item_id] for item_id in ids], dtype=np.int64)
        return Rows(self.folder, tuple(ids), self.shards, self.shard_numbers[numbers], self.shard_rows[numbers])


class StoredSide:
    """The queries or the pages of a corpus, and the folder in which their vectors are kept.

    Parameters
    ----------
    folder : StoreFolder
        The store.
    corpus : Corpus
        All splits.
    embed : callable
        Runs the items of a shard through the retriever.
    """

    def __init__(self, folder: StoreFolder, corpus: Corpus, embed: EmbedItems) -> None:
        self.folder, self.side, self.form = folder, folder.side, corpus.form
        self.items = corpus.queries if self.side == "query" else corpus.pages
        self.ids = ids_of(self.items, self.side)
        self.shards = plan_shards(self.items, corpus.form, folder.kind.shard_items[self.side])
        self._embed = embed
        self._number_of = {item_id: number for number, item_id in enumerate(self.ids)}
        self._shard_numbers = np.empty(len(self.items), dtype=np.int64)
        self._shard_rows = np.empty(len(self.items), dtype=np.int64)
        for number, shard in enumerate(self.shards):
            self._shard_numbers[list(shard.positions)] = number
            self._shard_rows[list(shard.positions)] = np.arange(len(shard.positions))

    def numbers_of(self, part: Corpus) -> np.ndarray:
        """Return the numbers of a part's items among all.

        Raises
        ------
        ValueError
            If the part holds an item that the corpus does not hold.
        """
        items = part.queries if self.side == "query" else part.pages
        numbers = []
        for item_id, item in zip(ids_of(items, self.side), items, strict=True):
            number = self._number_of.get(item_id)
            if number is None or self.items[number] != item or part.form != self.form:
                raise ValueError(
                    f"part must hold queries and pages of the corpus that was opened; {self.side} {item_id!r} "
                    f"({part.name}, {part.form}, {part.part}) is not among them. Open the corpus that it is a part of"
                )
            numbers.append(number)
        return np.array(numbers, dtype=np.int64)

    def missing(self, numbers: np.ndarray) -> list[int]:
        """Return which shards with one of these items are not there, in the order of the plan."""
        present = self.folder.present()
        return [
            number
            for number in np.unique(self._shard_numbers[numbers]).tolist()
            if self.shards[number].name not in present
        ]

    def count(self, shards: Sequence[int]) -> int:
        """Return how many items some shards hold."""
        return sum(len(self.shards[number].positions) for number in shards)

    def embed(self, number: int, advance: Callable[[int], object]) -> None:
        """Embed the items of a shard, and write it."""
        shard = self.shards[number]
        items = [self.items[position] for position in shard.positions]
        tensors = self._embed(items, self.side, advance)  # type: ignore[arg-type]
        self.folder.write(shard.name, [self.ids[position] for position in shard.positions], tensors)

    def rows(self, numbers: np.ndarray) -> Rows:
        """Return where some items lie; their shards are opened and checked."""
        opened, shard_numbers = np.unique(self._shard_numbers[numbers], return_inverse=True)
        shards = tuple(self.folder.shard(self.shards[number].name) for number in opened.tolist())
        return Rows(
            self.folder,
            tuple(self.ids[number] for number in numbers.tolist()),
            shards,
            shard_numbers.astype(np.int64),
            self._shard_rows[numbers],
        )


class StoredCorpus:
    """Both sides of a corpus and their stores; items are embedded when they are taken for the first time.

    Parameters
    ----------
    corpus : Corpus
        All splits.
    queries, pages : StoredSide
        Its sides.
    sizes : callable
        Takes how many items of each side are to be embedded; returns what is told before it starts, and how many bytes
        it will take on disk (0 where that is not known).
    processes : Processes
        How many processes share the work, and which one this is.
    progress : bool
        Whether sizes are told and bars are shown.
    """

    def __init__(
        self,
        corpus: Corpus,
        queries: StoredSide,
        pages: StoredSide,
        sizes: Callable[[Mapping[Side, int]], tuple[str, int]],
        processes: Processes,
        *,
        progress: bool = True,
    ) -> None:
        self.corpus, self.sides = corpus, (queries, pages)
        self._sizes, self._processes, self._progress = sizes, processes, progress
        self._opened = False

    def take(self, part: Corpus) -> tuple[Rows, Rows]:
        """Return where the queries and pages of a part lie; what is missing of them is embedded before.

        Raises
        ------
        ValueError
            If the part is not one of this corpus, an item cannot be embedded, or a store cannot be used.
        """
        numbers = [side.numbers_of(part) for side in self.sides]
        if not self._opened:
            self._open()
        self._fill(numbers)
        queries, pages = (side.rows(n) for side, n in zip(self.sides, numbers, strict=True))
        return queries, pages

    def _open(self) -> None:
        for side in self.sides:
            side.folder.open()
            if self._processes.is_main:
                side.folder.note_use(self.corpus)
        self._opened = True

    def _fill(self, numbers: Sequence[np.ndarray]) -> None:
        """Embed what is missing; several processes deal the missing shards out among them."""
        missing = [side.missing(n) for side, n in zip(self.sides, numbers, strict=True)]
        if self._processes.is_main and any(missing):
            self._announce(missing)
        self._processes.wait()  # nobody writes before all have seen the same
        dealt = iter(range(sum(map(len, missing))))
        for side, shards in zip(self.sides, missing, strict=True):
            self._embed(side, [number for number in shards if self._processes.takes(next(dealt))])
        self._processes.wait()
        if self._processes.is_main:  # what another command has taken away meanwhile
            for side, n in zip(self.sides, numbers, strict=True):
                self._embed(side, side.missing(n))
        self._processes.wait()

    def _embed(self, side: StoredSide, shards: Sequence[int]) -> None:
        bar = tqdm(
            total=side.count(shards),
            desc=f"embedding {'queries' if side.side == 'query' else 'pages'}",
            unit=side.side,
            delay=2,
            disable=not (self._progress and shards and self._processes.is_main),
        )
        with bar:
            for number in shards:
                side.embed(number, bar.update)

    def _announce(self, missing: Sequence[Sequence[int]]) -> None:
        """Say what is going to be embedded, and refuse what the disk has no room for."""
        counts = {side.side: side.count(shards) for side, shards in zip(self.sides, missing, strict=True) if shards}
        sentence, size = self._sizes(counts)
        root = self.sides[0].folder.path.parent
        free = shutil.disk_usage(root).free
        if size > free:
            raise StoreError(
                f"{sentence}: {root} has no room for that, {size_words(free)} are free there; name another folder with "
                "--store, or take fewer pages with --limit"
            )
        if self._progress:
            tqdm.write(inert(sentence), file=sys.stderr)


def items_words(counts: Mapping[Side, int]) -> str:
    """Return numbers of items in words.

    Examples
    --------
    >>> items_words({"query": 1, "page": 1340})
    '1,340 pages and 1 query'
    """
    words = {
        "page": ("page", "pages"),
        "query": ("query", "queries"),
    }
    return " and ".join(
        f"{counts[side]:,} {words[side][counts[side] != 1]}" for side in ("page", "query") if side in counts
    )


def size_words(n_bytes: float) -> str:
    """Return a size in words.

    Examples
    --------
    >>> size_words(3_612_672), size_words(900)
    ('3.6 MB', '1 kB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"
