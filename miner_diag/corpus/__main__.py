"""``python -m miner_diag.corpus``: fetch and check a data set, and show what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from miner_diag.command import run_command
from miner_diag.corpus.core import Form
from miner_diag.corpus.load import load_corpus
from miner_diag.corpus.manifest import frozen_text, read_manifest, read_manifest_documents
from miner_diag.corpus.summary import corpus_summary, skipped_lines
from miner_diag.files import atomic_path, write_atomic
from miner_diag.provenance import RunClock, write_run


@dataclass(frozen=True)
class CorpusOptions:
    """Fetch and check a data set, and show what is in it."""

    data: str = "sample"
    """A data set (sample, debian-docs-small, debian-docs-large), a folder of PDFs, a folder with a table in BEIR form
    (queries.jsonl, corpus.jsonl, qrels.tsv), or a manifest file (.yaml)."""
    queries: Form = "hidden"
    """hidden: a query's own words are taken out of its page; verbatim: pages as they are."""
    fold: int = 0
    """Salts the splits by document; 0 is the default partition."""
    pictures: int = 0
    """Draw this many pages with their queries into the output folder, evenly spread over the queries."""
    out: Path = Path("runs/corpus")
    """Folder that is written to."""
    freeze: Path | None = None
    """A manifest file: read its documents and write their counts and content hash into it, then stop."""


def run(options: CorpusOptions) -> None:
    """Run the command."""
    clock = RunClock()
    if options.freeze is not None:
        manifest = read_manifest(options.freeze)
        write_atomic(options.freeze, frozen_text(manifest, read_manifest_documents(manifest)))
        print(f"{options.freeze}: counts and content hash written")
        return
    corpus = load_corpus(options.data, queries=options.queries, fold=options.fold)
    clock.stage("load")
    summary = corpus_summary(corpus)
    write_atomic(options.out / "corpus.csv", summary.to_csv(index=False))
    write_atomic(options.out / "skipped.csv", "".join(f"{s.name}\t{s.reason}\n" for s in corpus.skipped))
    step = max(1, len(corpus.queries) // max(1, options.pictures))
    for number, query in enumerate(corpus.queries[::step][: options.pictures]):
        page_id = next(iter(corpus.qrels[query.query_id]))
        with atomic_path(options.out / f"page-{number:03d}.png") as path:
            corpus.render(page_id).save(path)
        print(f"page-{number:03d}.png  {page_id}  {query.kind}: {query.text}")
    clock.stage("pictures")
    facts = {"corpus_revision": corpus.revision, "skipped": {s.name: s.reason for s in corpus.skipped}}
    write_run(options.out, "miner_diag.corpus", options, clock, **facts)
    print(summary.to_string(index=False))
    print("\n".join(skipped_lines(corpus.skipped)) or "nothing was left out")
    print(f"{corpus.name}, {corpus.form} queries, fold {corpus.fold}: written to {options.out}")


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    run_command(CorpusOptions, run, "corpus", args)


if __name__ == "__main__":
    main()
