"""A data set of a hub as a manifest: where it is, which commit of it, and what its rows hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miner_diag.corpus.core import CorpusError
from miner_diag.corpus.fields_file import check_count, check_fields, check_text, read_fields, shown
from miner_diag.hub import COMMIT, HUB_ID

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""The name of a data set or of a split."""

COLUMNS = ("id", "query", "image", "negatives")
"""The columns that are read: the row's id, its question ("" or null for a page alone), the page's picture, and ids of
rows whose pages were mined as hard negatives. Of these, ``query`` and ``image`` must be there."""


@dataclass(frozen=True)
class HubManifest:
    """A data set on a hub, by name."""

    name: str
    """What ``--data`` takes."""
    source: str
    """"hub"."""
    hub_id: str
    """owner/name of the data set."""
    revision: str | None
    """The full commit hash that is read; null where none is known for sure, and then the user must give one."""
    description: str
    """What the data set is, in one sentence."""
    split: str
    """The data set's own split that is read."""
    subsets: tuple[str, ...]
    """Its configurations, as languages; empty where it has one alone."""
    columns: tuple[str, ...]
    """Which of `COLUMNS` it has."""
    counts: Mapping[str, int]
    """The numbers of "rows" and of "queries" (rows with a question) over all subsets, as published."""
    licence: str
    """The SPDX identifier, or what is known."""
    facts: str
    """Where these facts are from."""
    notes: str = ""
    """What a user should know: why a revision is missing, what was not checked."""


def is_hub_manifest(path: Path | str) -> bool:
    """Tell whether a manifest file is of a data set on a hub; a file that cannot be read is not."""
    try:
        return read_fields(path).get("source") == "hub"
    except ValueError:
        return False


def read_hub_manifest(path: Path | str) -> HubManifest:
    """Read a manifest file.

    Raises
    ------
    CorpusError
        If a field is missing, unknown or of the wrong kind; names the file and the field.
    """
    where = f"manifest {path}"
    try:
        content = read_fields(path)
        for name in ("subsets", "columns"):
            content[name] = texts(content.get(name), f"{where}: {name}")
        manifest = HubManifest(**check_fields(HubManifest, content, where, given=frozenset({"subsets", "columns"})))
        if not isinstance(manifest.counts, dict):
            raise CorpusError(f"{where}: counts must hold rows and queries; got {shown(manifest.counts)}")
        if set(manifest.counts) != {"rows", "queries"}:
            raise CorpusError(f"{where}: counts must hold rows and queries; got {sorted(map(str, manifest.counts))}")
        for name, count in manifest.counts.items():
            check_count(count, f"{where}: counts of {name}")
    except CorpusError:
        raise
    except ValueError as error:
        raise CorpusError(str(error)) from None
    for pattern, name in ((NAME, "name"), (HUB_ID, "hub_id"), (NAME, "split")):
        if not pattern.fullmatch(getattr(manifest, name)):
            raise CorpusError(f"{where}: {name} must match {pattern.pattern}; got {shown(getattr(manifest, name))}")
    if manifest.source != "hub":
        raise CorpusError(f"{where}: source must be hub; got {manifest.source!r}")
    if manifest.revision is not None and not COMMIT.fullmatch(manifest.revision):
        raise CorpusError(f"{where}: revision must be a full commit hash or null; got {shown(manifest.revision)}")
    if not set(manifest.columns) <= set(COLUMNS) or not {"query", "image"} <= set(manifest.columns):
        raise CorpusError(f"{where}: columns must be query, image and any of id, negatives; got {manifest.columns}")
    return manifest


def texts(value: Any, what: str) -> tuple[str, ...]:
    """Return a list of texts as a tuple; raises CorpusError."""
    if not isinstance(value, list):
        raise CorpusError(f"{what} must be a list of texts; got {shown(value)}")
    return tuple(check_text(item, what) for item in value)
