"""A data set of a public benchmark as a manifest: where it is, which commit of it, and what its tables hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from miner_diag.corpus.core import Benchmark, CorpusError, Metric
from miner_diag.corpus.fields_file import check_fields, read_fields, shown
from miner_diag.corpus.hub_manifest import NAME, texts
from miner_diag.hub import COMMIT, HUB_ID

SHARED = ("queries", "corpus", "qrels")
"""The configurations of a data set with one table for all languages."""
BY_LANGUAGE = ("LANGUAGE-queries", "LANGUAGE-corpus", "LANGUAGE-qrels")
"""The configurations of a data set with tables for each language."""
LANGUAGE = "LANGUAGE"
"""What stands for the language in a configuration's name."""
_LANGUAGE = re.compile(r"[a-z]{2,30}")


@dataclass(frozen=True)
class BenchmarkCounts:
    """What a benchmark's library counted in a data set."""

    pages: int
    """The rows of the corpus."""
    pictures: int
    """The different pictures among them."""
    queries: int
    """The queries of each language that are judged."""
    judgements: int
    """The judgements of each language with a grade above 0."""


@dataclass(frozen=True)
class BenchmarkManifest:
    """A data set of a public benchmark, by name."""

    name: str
    """What ``--data`` takes."""
    source: str
    """"hub"."""
    benchmark: str
    """The benchmark, as "ViDoRe V3"."""
    task: str
    """What mteb calls the data set."""
    hub_id: str
    """owner/name of the data set."""
    revision: str
    """The full commit hash that is read."""
    description: str
    """What the data set is, in one sentence."""
    configs: tuple[str, ...]
    """`SHARED` or `BY_LANGUAGE`."""
    split: str
    """The data set's own split that is read; where there is another one alone, that one is."""
    languages: tuple[str, ...]
    """The languages of the queries, by their English names in small letters."""
    counts: BenchmarkCounts
    """What is counted in it."""
    metric: Metric
    """The metric that stands for it in the benchmark's average."""
    query_prompt: str
    """The instruction that mteb passes to retrievers that take the task's own."""
    licence: str
    """The licence, as mteb states it."""
    facts: str
    """Where these facts are from."""
    notes: str = ""
    """What a user should know."""

    def of_benchmark(self) -> Benchmark:
        """Return what a corpus says of its benchmark."""
        return Benchmark(self.benchmark, self.task, self.metric, self.query_prompt)


def is_benchmark_manifest(path: Path | str) -> bool:
    """Tell whether a manifest file is of a public benchmark; a file that cannot be read is not."""
    try:
        return "benchmark" in read_fields(path)
    except ValueError:
        return False


def read_benchmark_manifest(path: Path | str) -> BenchmarkManifest:
    """Read a manifest file.

    Raises
    ------
    CorpusError
        If a field is missing, unknown or of the wrong kind; names the file and the field.
    """
    where = f"manifest {path}"
    try:
        content = read_fields(path)
        for name in ("configs", "languages"):
            content[name] = texts(content.get(name), f"{where}: {name}")
        counts = check_fields(BenchmarkCounts, content.get("counts"), f"{where}: counts")
        content["counts"] = BenchmarkCounts(**counts)
        given = frozenset({"configs", "languages", "counts", "metric"})
        manifest = BenchmarkManifest(**check_fields(BenchmarkManifest, content, where, given=given))
    except CorpusError:
        raise
    except ValueError as error:
        raise CorpusError(str(error)) from None
    for pattern, name in ((NAME, "name"), (HUB_ID, "hub_id"), (NAME, "split"), (COMMIT, "revision")):
        if not pattern.fullmatch(getattr(manifest, name)):
            raise CorpusError(f"{where}: {name} must match {pattern.pattern}; got {shown(getattr(manifest, name))}")
    for name, value, choices in (
        ("source", manifest.source, ("hub",)),
        ("configs", manifest.configs, (SHARED, BY_LANGUAGE)),
        ("metric", manifest.metric, get_args(Metric)),
    ):
        if value not in choices:
            raise CorpusError(f"{where}: {name} must be {' or '.join(map(str, choices))}; got {shown(value)}")
    languages = manifest.languages
    if not languages or len(set(languages)) < len(languages) or not all(map(_LANGUAGE.fullmatch, languages)):
        raise CorpusError(f"{where}: languages must be names in small letters, each once; got {shown(languages)}")
    return manifest
