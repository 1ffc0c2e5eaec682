"""What the store holds: for which retriever and which data, how large it is, and its deletion."""

from miner_diag.store.inventory import KeptStore, delete_stores, list_stores, store_table

__all__ = ["KeptStore", "delete_stores", "list_stores", "store_table"]
