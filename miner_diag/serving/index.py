"""A folder of PDFs as an index on disk: what changed is embedded, and the engine is brought to the same state.

An index is made of ``index.json`` (whose model and engine it is), a file for each document with its vectors, and the
engine's own files, which hold the same points. Every step can be cut off: the next run finds what is there and does
what is missing. Points have ids that follow from a document's content, so that none is there twice.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from miner_diag.backbones.options import LoadOptions
from miner_diag.corpus.core import Skipped
from miner_diag.corpus.folder import find_documents, plain_name, read_documents
from miner_diag.files import remove_leftovers, sha256_file, write_atomic
from miner_diag.locks import LOCK_FILE, lock_folder
from miner_diag.sealed import DamagedError, read_sealed, sealed
from miner_diag.serving.engine import (
    EXTRA,
    BrokenEngineError,
    Engine,
    EngineKind,
    Quantization,
    ServerOptions,
    Space,
    default_kind,
    open_engine,
)
from miner_diag.serving.errors import ServingError
from miner_diag.serving.indexed_documents import FOLDER, IndexedDocument, embed_document, file_of, read_indexed
from miner_diag.serving.retriever import FusedRetriever
from miner_diag.serving.side_by_side import SideBySide

logger = logging.getLogger(__name__)

FORMAT = 1
"""Raised when the layout of an index changes."""

FACTS, ENGINE, UPLOADED = "index.json", "engine", "uploaded.json"
"""What the index is, the folder of its engines, and beside each engine's files what was sent to it."""

WAIT = "an index is open in one process at a time; wait until that one has ended"
"""What a command does where another one has the index open."""


@dataclass(frozen=True)
class IndexFacts:
    """What an index remembers."""

    folder: str
    """The folder of PDFs."""
    load: dict[str, Any]
    """How the backbone is loaded, where there is no fusion run."""
    run: str | None
    """The fusion run."""
    fingerprints: dict[str, str]
    """"fused" and "backbone", or "backbone" alone -> what makes it this model."""
    widths: dict[str, int]
    """The same -> width of the vectors."""
    engine: EngineKind
    """What searches."""
    quantization: Quantization
    """How the engine compresses vectors."""
    server: dict[str, Any]
    """The server, where that is the engine."""

    @property
    def main(self) -> str:
        """Whose answers count."""
        return next(iter(self.widths))

    def retrievers(self, run: Path | None = None) -> SideBySide:
        """Load the retriever of the index.

        Parameters
        ----------
        run : path, optional
            Where the fusion run lies, if it was moved.

        Raises
        ------
        ServingError
            If what is found is another model.
        ValueError
            If it cannot be loaded.
        """
        if run is not None and self.run is None:
            raise ServingError("run has no effect: the index is of a backbone without a fusion. Leave it out")
        found = load_retrievers(LoadOptions(**self.load), Path(self.run) if run is None and self.run else run)
        if found.fingerprints != self.fingerprints:
            raise ServingError(
                f"the index was made with {_model_words(self.load, self.run)}, and what is loaded now is another model "
                "(other weights, settings or another fusion), whose vectors cannot be compared with those in it; give "
                "the same model, or make another index"
            )
        return found

    def space(self, name: str) -> Space:
        """Return what the points of one kind of vectors have in common."""
        return Space(self.widths[name], self.quantization)

    def open_engine(self, index: Path, name: str) -> Engine:
        """Open the engine of one kind of vectors; errors as in :func:`~miner_diag.serving.engine.open_engine`."""
        return open_engine(
            self.engine, engine_folder(index, name), self.space(name), server=ServerOptions(**self.server), name=name
        )


@dataclass(frozen=True)
class IndexReport:
    """What a run over a folder did."""

    index: Path
    """The index."""
    facts: IndexFacts
    """What it remembers."""
    documents: int
    """Documents that can be found now."""
    pages: int
    """Pages that can be found now."""
    embedded: tuple[str, ...]
    """Documents that were embedded."""
    kept: int
    """Documents that were there."""
    removed: tuple[str, ...]
    """Documents that were there, and are gone or changed."""
    skipped: tuple[Skipped, ...]
    """What was left out."""
    indexed: int
    """Vectors of the main kind that are in what makes search fast."""
    rebuilt: tuple[str, ...]
    """Engines that were filled anew, because their files could not be read."""

    def lines(self) -> list[str]:
        """Return what a person takes away."""
        told = [
            f"{self.documents:,} documents with {self.pages:,} pages can be found: {len(self.embedded)} embedded, "
            f"{self.kept} as they were, {len(self.removed)} taken out."
        ]
        if self.removed:
            more = f" and {len(self.removed) - 5} more" if len(self.removed) > 5 else ""
            told.append(f"Gone or changed since: {', '.join(self.removed[:5])}{more}.")
        for name in self.rebuilt:
            told.append(f"The engine's files of {name} could not be read and were made again; nothing is lost.")
        if self.facts.engine == "exact":
            told.append(f"Every page is scored for every question (no engine is installed: {EXTRA}).")
        else:
            told.append(f"{self.facts.engine}: {self.indexed:,} of {self.pages:,} vectors are in its graph.")
        return told


def load_retrievers(load: LoadOptions, run: Path | None) -> SideBySide:
    """Load a backbone, or the fusion that a run hands out with its backbone beside it.

    Parameters
    ----------
    load : LoadOptions
        The backbone, where there is no run; beside one, only where and at which precision it runs counts.
    run : path, optional
        A fusion run.

    Raises
    ------
    ServingError
        If there is a run, and options of `load` would have no effect.
    ValueError
        If it cannot be loaded.
    """
    if run is None:
        return SideBySide.of(FusedRetriever.from_model(load))
    unused = sorted(set(load.given()) - {"device", "dtype"})
    if unused:
        raise ServingError(
            f"--{unused[0].replace('_', '-')} has no effect beside --run: the run says which backbone it was fitted to "
            "and how that is loaded. Leave it out"
        )
    given = load.given()
    retriever = FusedRetriever.from_run(run, device=given.get("device"), dtype=given.get("dtype"))
    return SideBySide.of(retriever)


def make_index(
    folder: Path,
    index: Path,
    load: LoadOptions,
    run: Path | None = None,
    *,
    quantization: Quantization = "none",
    server: ServerOptions | None = None,
    engine: EngineKind | None = None,
) -> IndexReport:
    """Make an index of a folder of PDFs, or bring one up to date.

    Parameters
    ----------
    folder : path
        The PDFs, also in folders below it.
    index : path
        The index.
    load, run
        As in :func:`load_retrievers`.
    quantization : {"none", "int8", "binary"}
        How the engine compresses vectors.
    server : ServerOptions, optional
        A server that holds the points.
    engine : str, optional
        Which engine; the one that :func:`~miner_diag.serving.engine.default_kind` names if it is not given.

    Raises
    ------
    ServingError
        If the index is of another model, folder, engine, quantization or version, or `index` holds something else.
    FolderInUseError
        If another process has the index open.
    PlaceError
        If it cannot be written; what was done stays. It is an OSError.
    ValueError
        If the folder or the retriever cannot be used.
    """
    server = server or ServerOptions()
    files, skipped = find_documents(folder)
    _refuse_other_files(index)
    lock = lock_folder(index, "miner-diag index", WAIT)
    try:
        remove_leftovers(index)
        known = read_facts(index) if (index / FACTS).is_file() else None
        if known is not None:
            _refuse_other_folder(index, known, folder)
        retrievers = load_retrievers(load, run)
        facts = IndexFacts(
            plain_name(folder.absolute()),
            {name: value for name, value in asdict(load).items() if value != getattr(LoadOptions(), name)},
            None if run is None else str(Path(run).absolute()),
            retrievers.fingerprints,
            retrievers.widths,
            engine or (known.engine if known is not None and server == ServerOptions() else default_kind(server)),
            quantization,
            asdict(server),
        )
        if known is not None:
            _refuse_other_index(index, known, facts)
        write_atomic(index / FACTS, json.dumps(sealed({"format": FORMAT, **asdict(facts)}), indent=2) + "\n")
        found = _bring_up_to_date(index, facts, folder, files, retrievers)
        indexed, rebuilt = 0, []
        for name in facts.widths:
            n_indexed, is_rebuilt = fill_engine(index, facts, name, found.documents)
            indexed = n_indexed if name == facts.main else indexed
            rebuilt += [name] if is_rebuilt else []
    finally:
        lock.release()
    return IndexReport(
        index,
        facts,
        len(found.documents),
        sum(len(document.pages) for document in found.documents.values()),
        tuple(found.embedded),
        len(found.documents) - len(found.embedded),
        tuple(found.removed),
        tuple([*skipped, *found.skipped]),
        indexed,
        tuple(rebuilt),
    )


@dataclass(frozen=True)
class _UpToDate:
    """The documents of an index after a run over its folder."""

    documents: dict[str, IndexedDocument]
    embedded: list[str]
    removed: list[str]
    skipped: list[Skipped]


def _bring_up_to_date(
    index: Path, facts: IndexFacts, folder: Path, files: Mapping[str, Path], retrievers: SideBySide
) -> _UpToDate:
    """Embed what is new or changed, one document after the other, and take out what is gone."""
    before = read_indexed(index, facts.fingerprints)
    documents: dict[str, IndexedDocument] = {}
    changed: dict[str, Path] = {}
    for doc_id, path in tqdm(files.items(), desc="documents", unit="doc", delay=2.0):
        sha256 = sha256_file(path) if path.is_file() else ""
        held = before.get(sha256)
        if held is None or sha256 in documents:  # of a copy, what reads documents says that it is one
            changed[doc_id] = path
            continue
        if held.doc_id != doc_id:  # the file was renamed
            held = replace(held, doc_id=doc_id)
            held.write(index, facts.fingerprints)
        documents[sha256] = held
    embedded, skipped = [], []
    with tqdm(total=len(changed), desc="embedding", unit="doc", delay=2.0) as bar:
        for doc_id, path in changed.items():
            read, left_out = read_documents({doc_id: path}, inside=folder)
            skipped += left_out
            for document in read:
                if document.sha256 in documents:
                    first = documents[document.sha256].doc_id
                    skipped.append(Skipped(doc_id, f"{path.name} is a copy of {first}"))
                    continue
                made = embed_document(retrievers, document)
                made.write(index, facts.fingerprints)
                documents[made.sha256] = made
                embedded.append(doc_id)
            bar.update()
    gone = [sha256 for sha256 in before if sha256 not in documents]
    for sha256 in gone:
        file_of(index, sha256).unlink()
    skipped += [Skipped(what, reason) for document in documents.values() for what, reason in document.left_out]
    return _UpToDate(documents, embedded, [before[sha256].doc_id for sha256 in gone], skipped)


def fill_engine(
    index: Path, facts: IndexFacts, name: str, documents: Mapping[str, IndexedDocument]
) -> tuple[int, bool]:
    """Bring an engine to the state of the documents: send what it lacks, delete what is gone, build its graph.

    While points are sent, no file says what was sent, so that a run that was cut off is made good by the next one.

    Returns
    -------
    n_indexed, rebuilt
        How many vectors are in what makes search fast, and whether its files could not be read and were made again.
    """
    marker, rebuilt = engine_folder(index, name) / UPLOADED, False
    try:
        engine = facts.open_engine(index, name)
    except BrokenEngineError as error:
        logger.warning("%s; it is filled again from what the index keeps", error)
        shutil.rmtree(engine_folder(index, name))
        engine, rebuilt = facts.open_engine(index, name), True
    try:
        points = {sha256: document.points() for sha256, document in documents.items()}
        wanted = {point for ids, _ in points.values() for point in ids}
        sent = _read_uploaded(marker)
        names = {sha256: document.doc_id for sha256, document in documents.items()}
        if sent == names and engine.count() == len(wanted):
            return engine.indexed_count(), rebuilt
        marker.unlink(missing_ok=True)
        there = engine.ids()
        engine.delete(sorted(there - wanted))
        with tqdm(total=len(wanted), desc=f"{facts.engine}, {name}", unit="page", delay=2.0) as bar:
            for sha256, (ids, payloads) in points.items():
                if sent.get(sha256) != names[sha256] or not there.issuperset(ids):
                    engine.upsert(ids, documents[sha256].vectors[name], payloads)
                bar.update(len(ids))
        engine.optimize()
        if (count := engine.count()) != len(wanted):
            raise ServingError(
                f"the engine of {index} holds {count} points of {len(wanted)}; run the same command again"
            )
        indexed = engine.indexed_count()
    finally:
        engine.close()
    write_atomic(marker, json.dumps(sealed({"documents": names})) + "\n")
    return indexed, rebuilt


def engine_folder(index: Path, name: str) -> Path:
    """Return the folder of the engine of one kind of vectors."""
    return index / ENGINE / name


def read_facts(index: Path) -> IndexFacts:
    """Read ``index.json``.

    Raises
    ------
    ServingError
        If there is no index, it is of another version, or it is damaged.
    """
    path = index / FACTS
    if not path.is_file():
        raise ServingError(
            f"{index} is no index ({FACTS} is missing); make one with miner-diag index FOLDER --out {index}"
        )
    try:
        content = read_sealed(path)
        if content.get("format") != FORMAT:
            raise ServingError(
                f"{index} has index format {content.get('format')}, this version reads {FORMAT}; make it again in "
                "another folder, or with the version of this package that made it"
            )
        return IndexFacts(**{field.name: content[field.name] for field in fields(IndexFacts)})
    except (DamagedError, KeyError) as error:
        raise ServingError(
            f"{path} is damaged ({error}); delete {index} and make it again with miner-diag index"
        ) from None


def refuse_unfinished(index: Path, facts: IndexFacts) -> None:
    """Raise ServingError if the last run over the folder was cut off before its engines were filled."""
    if not all((engine_folder(index, name) / UPLOADED).is_file() for name in facts.widths):
        raise ServingError(
            f"{index} was not finished: the last run was stopped before its end; run miner-diag index {facts.folder} "
            f"--out {index} again"
        )


def _read_uploaded(marker: Path) -> dict[str, Any]:
    """Return what was sent to an engine, nothing if that is not known."""
    try:
        return dict(read_sealed(marker)["documents"])
    except (DamagedError, OSError, KeyError):
        return {}


def _refuse_other_files(index: Path) -> None:
    """Raise ServingError if a folder holds something else than an index."""
    ours = {FACTS, FOLDER, ENGINE, LOCK_FILE}
    others = sorted(path.name for path in index.iterdir() if path.name not in ours) if index.is_dir() else []
    others = [name for name in others if "-partial-" not in name]
    if others and not (index / FACTS).is_file():
        raise ServingError(f"out must be an index or a new folder; {index} holds other files, as {others[0]}")


def _refuse_other_folder(index: Path, known: IndexFacts, folder: Path) -> None:
    """Raise ServingError if the index is of another folder that is still there: its documents would be taken out."""
    if plain_name(folder.absolute()) != known.folder and Path(known.folder).is_dir():
        raise ServingError(
            f"{index} is the index of {known.folder}; got the folder {folder}, for which its documents would be taken "
            "out. Choose another --out"
        )


def _refuse_other_index(index: Path, known: IndexFacts, facts: IndexFacts) -> None:
    """Raise ServingError if an index was made otherwise than it is asked for now."""
    if known.fingerprints != facts.fingerprints:
        raise ServingError(
            f"{index} was made with {_model_words(known.load, known.run)}; got {_model_words(facts.load, facts.run)}, "
            "whose vectors cannot be compared with those in it. Choose another --out, or the same model"
        )
    for what in ("engine", "quantization", "server"):
        before, now = getattr(known, what), getattr(facts, what)
        if before != now:
            raise ServingError(
                f"{index} was made with {what} {before}; got {now}. Choose another --out, or the same {what}"
            )


def _model_words(load: Mapping[str, Any], run: str | None) -> str:
    return f"the backbone {load.get('model', LoadOptions().model)}" if run is None else f"the fusion run {run}"
