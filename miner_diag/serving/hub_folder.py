"""A folder that is ready for a hub: the saved retriever, its card, and what sentence-transformers reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from miner_diag.files import write_atomic
from miner_diag.serving.model_card import CARD, model_card
from miner_diag.serving.retriever import FusedRetriever
from miner_diag.serving.sentence_folder import write_module_form


def write_hub_folder(
    retriever: FusedRetriever, folder: Path, evaluations: Sequence[Path] = (), *, with_backbone: bool | None = None
) -> None:
    """Write ``config.json``, ``model.safetensors``, the card ``README.md``, and the module of a text retriever.

    Parameters
    ----------
    retriever : FusedRetriever
        What is written.
    folder : path
        Where to; it is made.
    evaluations : sequence of path
        Runs of ``python -m miner_diag.evaluation`` whose scores the card shows.
    with_backbone : bool, optional
        As in :meth:`FusedRetriever.save_pretrained`.
    """
    card = model_card(retriever, evaluations)  # what it refuses is refused before anything is written
    if retriever.reads.texts:
        write_module_form(retriever, folder, with_backbone=with_backbone)
    else:
        retriever.save_pretrained(folder, with_backbone=with_backbone)
    write_atomic(folder / CARD, card)
