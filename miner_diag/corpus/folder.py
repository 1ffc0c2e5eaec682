"""A folder of PDFs: the user's own documents become a benchmark without annotation."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from tqdm.auto import tqdm

from miner_diag.corpus.assemble import assemble
from miner_diag.corpus.core import Corpus, CorpusError, Form, Skipped
from miner_diag.corpus.document import Document, read_document
from miner_diag.corpus.limits import DEFAULT_LIMITS, PdfLimits
from miner_diag.files import PlaceError, cache_folder, remove_leftovers
from miner_diag.texts import inert

logger = logging.getLogger(__name__)

LEFTOVER_SECONDS = 60.0
"""A half-written file in the cache that has not changed for so long, and that no process holds, is deleted."""


def load_folder(
    folder: Path | str, *, form: Form = "hidden", fold: int = 0, limits: PdfLimits = DEFAULT_LIMITS
) -> Corpus:
    r"""Read every PDF below `folder` (names ending in .pdf) into a corpus.

    A document's name in the corpus is its path below the folder without the ending; bytes of it that are not UTF-8 are
    written out, as in ``caf\xe9``. A file that can't be used is left out by name, with its reason in
    ``Corpus.skipped``; so is a copy of another file, a link that leads out of the folder, and whatever of a document
    goes over `limits`. Links to folders are not entered, but named: what lies inside the folder is found where it is.

    Raises
    ------
    CorpusError
        If there is no such folder, no PDF in it, or none that gives a query.
    """
    folder = Path(folder)
    files, not_entered = find_documents(folder)
    documents, skipped = read_documents(files, inside=folder, limits=limits)
    name = plain_name(folder.resolve().name)
    return assemble(name, documents, form=form, fold=fold, skipped=[*not_entered, *skipped], limits=limits)


def find_documents(folder: Path) -> tuple[dict[str, Path], list[Skipped]]:
    """Return doc_id -> path of every PDF below a folder, as :func:`load_folder` names them, and what was not entered.

    Raises
    ------
    CorpusError
        If there is no such folder, or no PDF in it.
    """
    if not folder.is_dir():
        raise CorpusError(f"{plain_name(folder)} is not a folder")
    paths, not_entered = _find_pdfs(folder)
    if not paths:
        more = "".join(f"; {item.name}: {item.reason}" for item in not_entered[:3])
        raise CorpusError(f"{plain_name(folder)} holds no PDF (no file whose name ends in .pdf){more}")
    return _named(folder, paths), not_entered


def plain_name(path: Path | str) -> str:
    r"""Return a path as text that can be written anywhere: each byte that is not UTF-8 is written out.

    Examples
    --------
    >>> plain_name("caf\udce9.pdf")
    'caf\\xe9.pdf'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _find_pdfs(folder: Path) -> tuple[list[Path], list[Skipped]]:
    """Return the PDFs below a folder in order, and the folders that were not entered."""
    paths: list[Path] = []
    not_entered: list[Skipped] = []

    def note(error: OSError) -> None:
        name = plain_name(Path(error.filename).relative_to(folder))
        not_entered.append(Skipped(name, f"the folder cannot be read ({error.strerror})"))

    for here, inner, names in os.walk(folder, onerror=note):
        paths += [Path(here) / name for name in names if Path(name).suffix.lower() == ".pdf"]
        for path in (Path(here) / name for name in inner):
            if path.is_symlink():
                name = plain_name(path.relative_to(folder))
                within = path.resolve().is_relative_to(folder.resolve())
                why = f"is a link to {plain_name(path.resolve())}, "
                why += "which is read where it is" if within else "which is outside; copy it into the folder to use it"
                not_entered.append(Skipped(name, why))
    readable = [path for path in paths if path.is_file() or path.is_symlink()]
    return sorted(readable), sorted(not_entered, key=lambda item: item.name)


def _named(folder: Path, paths: Iterable[Path]) -> dict[str, Path]:
    """Return document name -> path; names are unique."""
    files: dict[str, Path] = {}
    for path in paths:
        inside = path.relative_to(folder)
        name = plain_name(inside.with_suffix(""))
        name = first = plain_name(inside) if name in files else name
        number = 1
        while name in files:
            number += 1
            name = f"{first} ({number})"
        files[name] = path
    return files


def read_documents(
    files: dict[str, Path], *, inside: Path | None = None, limits: PdfLimits = DEFAULT_LIMITS
) -> tuple[list[Document], list[Skipped]]:
    """Read documents with a progress bar; what can't be read is named, with its reason.

    Parameters
    ----------
    files : dict
        doc_id -> path.
    inside : path, optional
        Folder that no link may lead out of.
    limits : PdfLimits
        The bounds of each document.

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
            document = read_document(path, doc_id, limits)
            if document.sha256 in first:
                raise CorpusError(f"{path.name} is a copy of {first[document.sha256]}")
        except PlaceError:
            raise  # the cache is to blame, not the document
        except (CorpusError, OSError) as error:
            reason = plain_name(str(error))
            logger.warning("%s is left out: %s", inert(doc_id), inert(reason))
            skipped.append(Skipped(doc_id, reason))
            continue
        first[document.sha256] = doc_id
        documents.append(document)
    return documents, skipped
