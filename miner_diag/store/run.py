"""List what the store holds, and delete it on request: what the command of this folder does."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from miner_diag.embeddings.options import StoreOptions
from miner_diag.embeddings.stored import size_words
from miner_diag.store.inventory import delete_stores, list_stores, store_table
from miner_diag.tables import table_text
from miner_diag.texts import inert


@dataclass(frozen=True)
class StoreCommandOptions:
    """List what the store holds: which retriever, which data, how large, when it was last used; delete it on request.

    A store holds the vectors of one side, queries or pages. What is deleted is embedded again when it is needed.
    """

    store: Path = StoreOptions.store
    """The folder in which all commands keep embeddings."""
    delete: tuple[str, ...] = ()
    """The names of the stores that are deleted, as the list shows them."""


def run(options: StoreCommandOptions) -> None:
    """Run the command."""
    if options.delete:
        for store in delete_stores(options.store, options.delete):
            print(inert(f"deleted {store.name}: {store.items:,} items, {size_words(store.size)}"))
    stores = list_stores(options.store)
    if not stores:
        print(inert(f"{options.store} holds nothing"))
        return
    print(table_text(store_table(stores), index=False, na_rep=""))
    for store in stores:
        for problem in store.problems:
            print(inert(f"{store.name}: {problem}"))
    print(inert(f"{len(stores)} stores, {size_words(sum(store.size for store in stores))} in {options.store}"))
    if not options.delete:
        words = ["miner-diag", "store"]
        words += [] if options.store == StoreOptions.store else ["--store", str(options.store)]
        print(inert(f"next: {shlex.join(words)} --delete NAME [NAME ...]"))
