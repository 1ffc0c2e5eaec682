"""A folder of PDFs: the user's own documents become a benchmark without annotation."""

from __future__ import annotations

import logging
from pathlib import Path

from tqdm.auto import tqdm

from miner_diag.corpus.assemble import assemble
from miner_diag.corpus.core import Corpus, CorpusError, Form, Skipped
from miner_diag.corpus.document import Document, read_document
from miner_diag.files import PlaceError, cache_folder, remove_leftovers
from miner_diag.texts import inert

logger = logging.getLogger(__name__)

LEFTOVER_SECONDS = 60.0
"""A half-written file in the cache that has not changed for so long, and that no process holds, is deleted."""


def load_folder(folder: Path | str, *, form: Form = "hidden", fold: int = 0) -> Corpus:
    """Read every PDF below `folder` (names ending in .pdf) into a corpus.

    A document's name in the corpus is its path below the folder without the ending. A file that can't be used is left
    out by name, with its reason in ``Corpus.skipped``; so is a copy of another file, and a link that leads out of the
    folder.

    Raises
    ------
    CorpusError
        If there is no such folder, no PDF in it, or none that gives a query.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CorpusError(f"{folder} is not a folder")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() == ".pdf" and (p.is_file() or p.is_symlink()))
    if not paths:
        raise CorpusError(f"{folder} holds no PDF (no file whose name ends in .pdf)")
    files: dict[str, Path] = {}
    for path in paths:
        inside = path.relative_to(folder)
        name = inside.with_suffix("").as_posix()
        files[inside.as_posix() if name in files else name] = path
    documents, skipped = read_documents(files, inside=folder)
    return assemble(folder.resolve().name, documents, form=form, fold=fold, skipped=skipped)


def read_documents(files: dict[str, Path], *, inside: Path | None = None) -> tuple[list[Document], list[Skipped]]:
    """Read documents with a progress bar; what can't be read is named, with its reason.

    Parameters
    ----------
    files : dict
        doc_id -> path.
    inside : path, optional
        Folder that no link may lead out of.

    Raises
    ------
    PlaceError
        If the cache folder cannot be read or written.
    """
    documents: list[Document] = []
    skipped: list[Skipped] = []
    first: dict[str, str] = {}
    remove_leftovers(cache_folder(), seconds=LEFTOVER_SECONDS)
    for doc_id, path in tqdm(files.items(), desc="documents", unit="doc", delay=2.0):
        try:
            if inside is not None and not path.resolve().is_relative_to(inside.resolve()):
                raise CorpusError(f"{path.name} is a link that leads out of {inside}")
            document = read_document(path, doc_id)
            if document.sha256 in first:
                raise CorpusError(f"{path.name} is a copy of {first[document.sha256]}")
        except PlaceError:
            raise  # the cache is to blame, not the document
        except (CorpusError, OSError) as error:
            logger.warning("%s is left out: %s", inert(doc_id), inert(error))
            skipped.append(Skipped(doc_id, str(error)))
            continue
        first[document.sha256] = doc_id
        documents.append(document)
    return documents, skipped
