"""One entry for every source: a name, a folder of PDFs, a table, or a manifest file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import get_args

from miner_diag.corpus.benchmark import is_benchmark_folder, load_benchmark, load_benchmark_folder
from miner_diag.corpus.benchmark_manifest import is_benchmark_manifest, read_benchmark_manifest
from miner_diag.corpus.core import Corpus, CorpusError, Form
from miner_diag.corpus.folder import load_folder
from miner_diag.corpus.hub_data import is_hub_folder, load_hub_data, load_hub_folder
from miner_diag.corpus.hub_manifest import is_hub_manifest, read_hub_manifest
from miner_diag.corpus.limits import DEFAULT_LIMITS, PdfLimits
from miner_diag.corpus.manifest import load_manifest
from miner_diag.corpus.manifest_file import manifest_folder, manifest_names, read_manifest
from miner_diag.corpus.summary import language_note
from miner_diag.corpus.table import is_table, load_table

logger = logging.getLogger(__name__)


def load_corpus(
    data: Path | str = "sample",
    *,
    queries: Form | None = None,
    fold: int = 0,
    ignore_self: bool = False,
    subset: str | None = None,
    data_revision: str | None = None,
    limits: PdfLimits = DEFAULT_LIMITS,
) -> Corpus:
    """Load queries, pages and qrels; documents that are not in English are said once, as a warning.

    Parameters
    ----------
    data : str or path
        The name of a shipped manifest ("sample", "debian-docs-small", "vidore-v3-hr" and others), a folder of PDFs, a
        folder with a table in BEIR form or with parquet files, or a manifest file of your own (.yaml).
    queries : {"hidden", "verbatim"}, optional
        Whether a query's own words are taken out of its page; "hidden" if not given. A table or a data set of a hub
        brings its own queries, of which nothing is hidden, so it takes neither.
    fold : int
        Number of the split by document; 0 is the default.
    ignore_self : bool
        For a table whose queries are pages too: whether the page that has a query's own id is left out of that query's
        ranking.
    subset : str, optional
        For a data set of a hub or its folder: the subset that is read, as "en", or the language of the queries, as
        "english"; all of them if not given.
    data_revision : str, optional
        For a data set of a hub: the full commit hash that is read instead of its manifest's.
    limits : PdfLimits
        The bounds of reading and drawing PDFs; what goes over one is left out by name.

    Raises
    ------
    CorpusError
        If there is no such data, nothing of it can be used, or an option is given that has no effect on it.
    """
    if queries is not None and queries not in get_args(Form):
        raise CorpusError(f"queries must be one of {', '.join(get_args(Form))}; got {queries!r}")
    corpus = _hub(data, queries, fold, ignore_self, subset, data_revision)
    if corpus is None:
        corpus = _load(data, queries, fold, ignore_self, limits)
    if note := language_note(corpus):
        logger.warning(note)
    return corpus


def _hub(
    data: Path | str,
    queries: Form | None,
    fold: int,
    ignore_self: bool,
    subset: str | None,
    data_revision: str | None,
) -> Corpus | None:
    """Return a data set of a hub, or a folder laid out like one; None where the data are something else."""
    path = manifest_folder() / f"{data}.yaml" if str(data) in manifest_names() else Path(data)
    by_manifest = path.is_file() and is_hub_manifest(path)
    by_folder = path.is_dir() and not is_table(path) and is_hub_folder(path)
    benchmark = is_benchmark_manifest(path) if by_manifest else by_folder and is_benchmark_folder(path)
    without_effect = {
        "--queries": queries is not None and (by_manifest or by_folder),
        "--ignore-self": ignore_self and (by_manifest or by_folder),
        "--subset": subset is not None and not (by_manifest or by_folder),
        "--data-revision": data_revision is not None and not by_manifest,
        "--fold": fold != 0 and benchmark,
    }
    reasons = {
        "--queries": "it brings its own queries, of which nothing is hidden",
        "--ignore-self": "it is for tables whose queries may be pages",
        "--subset": "only a data set of a hub, or a folder of its parquet files, has subsets",
        "--data-revision": "only a data set of a hub has revisions",
        "--fold": "it is test data alone, which is not dealt to splits",
    }
    for flag, unused in without_effect.items():
        if unused:
            raise CorpusError(f"{flag} has no effect on data {str(data)!r}: {reasons[flag]}. Leave it out")
    if by_manifest and benchmark:
        return load_benchmark(read_benchmark_manifest(path), revision=data_revision, subset=subset)
    if benchmark:
        return load_benchmark_folder(path, subset=subset)
    if by_manifest:
        return load_hub_data(read_hub_manifest(path), revision=data_revision, subset=subset, fold=fold)
    return load_hub_folder(path, subset=subset, fold=fold) if by_folder else None


def _load(data: Path | str, queries: Form | None, fold: int, ignore_self: bool, limits: PdfLimits) -> Corpus:
    form: Form = queries or "hidden"
    path = Path(data)
    if ignore_self and (str(data) in manifest_names() or not (path.is_dir() and is_table(path))):
        raise CorpusError(
            f"--ignore-self has an effect on tables only, whose queries may be pages too; data {str(data)!r} is none, "
            "so leave it out"
        )
    if str(data) in manifest_names():
        return load_manifest(read_manifest(manifest_folder() / f"{data}.yaml"), form=form, fold=fold, limits=limits)
    if path.is_dir() and is_table(path):
        if queries is not None:
            raise CorpusError(
                f"{path} is a table, which brings its own queries, so queries {queries!r} has no effect; leave out "
                "--queries"
            )
        return load_table(path, fold=fold, ignore_self=ignore_self, limits=limits)
    if path.is_dir():
        return load_folder(path, form=form, fold=fold, limits=limits)
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        return load_manifest(read_manifest(path), form=form, fold=fold, limits=limits)
    raise CorpusError(
        f"data {str(data)!r} is neither a data set ({', '.join(manifest_names())}) nor a folder of PDFs, a folder with "
        "a table (queries.jsonl, corpus.jsonl, qrels.tsv or qrels/test.tsv) or with parquet files, or a manifest file "
        "(.yaml)"
    )
