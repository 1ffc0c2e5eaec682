"""What the store shares between data sets: pages with the same ids, pictures and order are embedded once."""

from dataclasses import replace

import numpy as np

from miner_diag.corpus import load_corpus
from miner_diag.embeddings import EmbeddedCorpus
from tests.corpus.benchmarks import N_PAGES, shared_tables, tables_by_language, write_benchmark
from tests.embeddings.helpers import PretendBackbone

PAGES = [f"page-{number}" for number in (0, 1, 2, 4, 5)]
"""The pages of `tables_by_language`: page 3 is a copy of page 2."""


class PretendViewer(PretendBackbone):
    """It looks at the pictures: a page's vectors are a function of its picture's hash."""

    def __init__(self):
        super().__init__()
        self.pages = []
        """The pages that it was given, in order."""

    def prepare(self, items, side):
        encoded = super().prepare(items, side)
        if side == "page":
            self.pages += [item.page_id for item in items]
            for item, read in zip(items, encoded, strict=True):
                read.inputs["words"] = np.array([int(item.page_hash[:6], 16)])
        return [replace(read, empty=False) for read in encoded]


def embedded_pages(options, *corpora):
    """Embed corpora one after the other into one store; return the ids of the pages that each of them embedded."""
    found = []
    for corpus in corpora:
        backbone = PretendViewer()
        stores = EmbeddedCorpus(corpus, backbone, options, progress=False).take(corpus).stores
        assert stores.pages.ids == tuple(page.page_id for page in corpus.pages)
        found.append(sorted(backbone.pages))
    return found


def test_a_page_is_embedded_once_for_all_languages_whichever_is_asked_first(tmp_path, options):
    folder = write_benchmark(tmp_path / "data", tables_by_language())
    spanish, every = load_corpus(folder, subset="spanish"), load_corpus(folder)
    assert len(every.pages) == N_PAGES - 1
    assert embedded_pages(options, spanish, every) == [PAGES, []]


def test_two_data_sets_of_the_same_pages_share_them_whatever_they_ask(tmp_path, options):
    """As ViDoRe V2's ESG reports, which two of its sets ask about."""
    first = load_corpus(write_benchmark(tmp_path / "first", shared_tables()))
    grades = {0: {5: 1}, 1: {0: 2}}
    second = load_corpus(write_benchmark(tmp_path / "second", shared_tables(["english"], grades=grades)))
    assert first.pages == second.pages and first.queries != second.queries
    assert embedded_pages(options, first, second) == [["0", "1", "2", "4", "5"], []]


def test_pages_under_other_ids_or_beside_others_are_embedded_again(tmp_path, options):
    """The store's files hold pages in the order of a corpus, under their ids: a picture alone is not what it knows."""
    first = load_corpus(write_benchmark(tmp_path / "first", shared_tables()))
    renamed = load_corpus(write_benchmark(tmp_path / "renamed", tables_by_language()))
    assert {page.page_hash for page in first.pages} == {page.page_hash for page in renamed.pages}
    assert embedded_pages(options, first, renamed) == [["0", "1", "2", "4", "5"], PAGES]
