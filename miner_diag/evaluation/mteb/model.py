"""A retriever, or a saved system over its layers, as a model of mteb: its vectors and its exact search."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from miner_diag.backbones import Backbone, LoadOptions, load_backbone
from miner_diag.backbones.base import SIDES, Side
from miner_diag.backbones.known import TASKS_WORDS
from miner_diag.backbones.registry import with_task_words
from miner_diag.corpus.core import Corpus, Page, Query
from miner_diag.embeddings.embedded import refuse_unread_pages, unread_notes
from miner_diag.embeddings.forward import embed_layers
from miner_diag.embeddings.options import TOKEN_BUDGET
from miner_diag.embeddings.shards import EMPTY, TRUNCATED
from miner_diag.embeddings.store import LAYERS
from miner_diag.evaluation.compare import EvaluationError
from miner_diag.evaluation.mteb.rows import GivenCorpus, GivenPages, read_queries
from miner_diag.evaluation.systems import embedding_width, read_sources, refuse_leakage
from miner_diag.files import canonical_json, sha256_bytes
from miner_diag.fusion.served import ServedSystem, content_of, load_served
from miner_diag.fusion.system import apply
from miner_diag.retrieval.search import top_k as best_pages

logger = logging.getLogger(__name__)

EXTRA = 'mteb is not installed; it comes with the extra "mteb": pip install "miner-diag[mteb]"'
ORGANIZATION = "miner_diag"
"""What stands before a model's name, so that mteb never takes a published run of the same retriever for ours."""
REVISION_DIGITS = 40
"""Hexadecimal digits of a revision, as many as a commit has."""


class EncodedPage(NamedTuple):
    """A page that has passed through the retriever."""

    vector: np.ndarray
    """[D] float32, what is searched."""
    notes: int
    """The bits of `EMPTY` and `TRUNCATED`."""
    characters: np.ndarray
    """[2] how many characters were read, and how many its text has."""


class MtebModel:
    """A retriever, or a saved system over its layers, that follows mteb's ``SearchProtocol``.

    Vectors are made as by all our commands, and compared by cosine in float32 over all pages. mteb asks for a corpus
    again under every language; a page is known by its picture's bytes and its text, so it is encoded once, in whatever
    subset, split or task it comes again. Vectors of pages are kept in memory while the model lives.

    Prompts are those of the retriever (``LoadOptions.protocol``), not the task's: the authors', or under "mteb" those
    that its manifest names. Where these are a task's own words, and the task at hand says it otherwise, that is an
    error which says what to give. Batches are those of our commands (a number of tokens), so mteb's ``batch_size`` has
    no effect.

    Parameters
    ----------
    backbone : Backbone
        The retriever, loaded with ``render=pages.render``.
    pages : GivenPages
        Reads and draws what mteb hands over.
    system : ServedSystem, optional
        What makes a page's layers one vector; the retriever's own embedding is taken if it is not given.
    """

    def __init__(self, backbone: Backbone, pages: GivenPages, system: ServedSystem | None = None) -> None:
        self.backbone, self.system = backbone, system
        self.mteb_model_meta = model_meta(backbone, system)
        """Name and revision, as mteb wants them."""
        self._given = pages
        self._encoded: dict[str, EncodedPage] = {}
        self._indexed: tuple[list[str], np.ndarray] | None = None

    def index(
        self,
        corpus: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: Mapping[str, Any],
        num_proc: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Encode the pages of a corpus that were not met before; mteb calls it, and describes its arguments.

        Raises
        ------
        EvaluationError
            If the corpus cannot be read, another precision than float32 is asked for, the words before queries are not
            those of the protocol, or the system was fitted to a page of the corpus.
        ValueError
            If the retriever finds nothing to read on any page, or a page cannot be encoded.
        """
        task, self._indexed = task_metadata.name, None
        _refuse_precision(encode_kwargs)
        self._refuse_other_words(task_metadata)
        given = self._given.take(corpus, task_metadata.get_modalities(_prompt_type("document")), task)
        pages, part = tuple(given.pages.values()), f"{hf_subset}, {hf_split}"
        if not pages:
            raise EvaluationError(f"the corpus of {task} ({part}) holds no page")
        as_corpus = Corpus(task, "verbatim", 0, pages, (), {}, {}, self._given.render, part=part)
        if self.system is not None:
            refuse_leakage(self.system.given, self.system.fitted_to, as_corpus)
        new = [content for content in given.pages if content not in self._encoded]
        self._encode_pages(given, new, encode_kwargs)
        counts = self._counts(given)
        refuse_unread_pages(self.backbone, as_corpus, counts)
        if new:  # said once of the same pages
            for note in unread_notes(counts, len(pages), self.backbone):
                logger.warning("%s: %s", task, note)
        self._indexed = given.ids, np.stack([self._encoded[content].vector for content in given.contents])

    def search(
        self,
        queries: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: Mapping[str, Any],
        top_ranked: Mapping[str, list[str]] | None = None,
        num_proc: int | None = None,
        **kwargs: Any,
    ) -> dict[str, dict[str, float]]:
        """Return {query id: {page id: cosine}} of the `top_k` best pages; mteb calls it, and describes its arguments.

        With `top_ranked` (tasks of reranking) a query sees the pages that are listed for it alone.

        Raises
        ------
        EvaluationError
            If nothing was indexed, the queries are no texts, or `top_ranked` lists a page that is not in the corpus.
        """
        if self._indexed is None:
            raise EvaluationError(f"search of {task_metadata.name} has no pages; call index with its corpus first")
        asked = read_queries(queries, task_metadata.get_modalities(_prompt_type("query")), task_metadata.name)
        if not asked:
            return {}
        page_ids, pages = self._indexed
        query_ids = [query.query_id for query in asked]
        embedded = self._embedded(asked, "query", encode_kwargs)
        vectors = np.concatenate([self._retrieved(tensors, "query") for tensors in embedded])
        if top_ranked is None:
            return _ranked(vectors, pages, top_k, query_ids, page_ids)
        row_of = {page_id: row for row, page_id in enumerate(page_ids)}
        results: dict[str, dict[str, float]] = {}
        for query_id, vector in zip(query_ids, vectors, strict=True):
            listed = list(dict.fromkeys(top_ranked.get(query_id, ())))
            unknown = [page_id for page_id in listed if page_id not in row_of]
            if unknown:
                raise EvaluationError(
                    f"top_ranked of {task_metadata.name} lists page {unknown[0]!r} for query {query_id!r}, which is "
                    "not in the corpus"
                )
            rows = [row_of[page_id] for page_id in listed]
            results |= _ranked(vector[None], pages[rows], top_k, [query_id], listed) if rows else {query_id: {}}
        return results

    def _encode_pages(self, given: GivenCorpus, new: Sequence[str], encode_kwargs: Mapping[str, Any]) -> None:
        """Encode pages, and keep what is needed of them; what was done stays if a later one cannot be."""
        contents = iter(new)
        for tensors in self._embedded([given.pages[content] for content in new], "page", encode_kwargs):
            vectors = self._retrieved(tensors, "page")
            for row in zip(vectors, tensors["notes"], tensors["characters"], strict=True):
                self._encoded[next(contents)] = EncodedPage(*row)

    def _embedded(
        self, items: Sequence[Query] | Sequence[Page], side: Side, encode_kwargs: Mapping[str, Any]
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield what `embed_layers` makes of the items, as many at once as a shard of the store holds."""
        step = LAYERS.shard_items[side]
        bar = tqdm(
            total=len(items),
            desc=f"encoding {'queries' if side == 'query' else 'pages'}",
            unit=side,
            delay=2,
            disable=not encode_kwargs.get("show_progress_bar", True),
        )
        with bar:
            for first in range(0, len(items), step):
                yield embed_layers(self.backbone, items[first : first + step], side, TOKEN_BUDGET, bar.update)

    def _retrieved(self, tensors: Mapping[str, np.ndarray], side: Side) -> np.ndarray:
        """Return what is compared of the layers of some items, [n, D] float32."""
        layers = tensors["layer_embeddings"][:, list(self.backbone.kept(side).layers)]
        if self.system is not None:
            return apply(self.system.module, layers, side)
        return layers[:, -1, : embedding_width(self.backbone)].copy()

    def _counts(self, given: GivenCorpus) -> dict[str, int]:
        """Return what was noted of the pages of a corpus, as the store counts it."""
        encoded = [self._encoded[content] for content in given.pages]
        read, in_all = np.sum([page.characters for page in encoded], axis=0).tolist()
        return {
            "empty": sum(bool(page.notes & EMPTY) for page in encoded),
            "truncated": sum(bool(page.notes & TRUNCATED) for page in encoded),
            "characters": in_all,
            "characters_read": read,
        }

    def _refuse_other_words(self, task_metadata: Any) -> None:
        """Refuse a task whose own words should stand before its queries by the protocol, and do not."""
        prompt = task_metadata.prompt
        words = prompt.get("query") if isinstance(prompt, Mapping) else prompt
        if words and with_task_words(self.backbone.options, words) != self.backbone.options:
            raise EvaluationError(
                f"the words before a query of {task_metadata.name} must be its own under --protocol mteb of "
                f"{self.backbone.name}: {words!r}; the manifest has those of ViDoRe V3: {TASKS_WORDS!r}. Load it with "
                f"LoadOptions(..., query_prompt={words!r})"
            )


def load_mteb_model(given: LoadOptions | str | Path = "page-text", system: str | None = None) -> MtebModel:
    """Load a retriever, or a saved system of a fusion run, as a model of mteb.

    Parameters
    ----------
    given : LoadOptions, str or path
        The retriever: what ``--model`` takes, or all its options. Or the folder of a fusion run.
    system : str, optional
        The name of a saved system of that run ("miner", "trained_maps", a head), of which the seed that validation
        likes best is taken; the fusion that the run hands out if it is not given.

    Raises
    ------
    EvaluationError
        If mteb is not installed, the folder is not there, or a system is named without a run.
    ValueError
        If the retriever cannot be loaded, or the run's files are not those of this retriever.

    Examples
    --------
    >>> model = load_mteb_model("page-text")  # doctest: +SKIP
    >>> mteb.evaluate(model, mteb.get_benchmark("ViDoRe(v3)").tasks)  # doctest: +SKIP
    """
    try:
        import mteb  # noqa: F401  (said before weights are loaded)
    except ImportError as error:
        raise EvaluationError(EXTRA) from error
    if isinstance(given, LoadOptions):
        folder, load = None, given
    else:
        (source,) = read_sources([str(given)])
        if source.load is None:
            raise EvaluationError(
                f"{given} is a run file, which holds rankings and embeds nothing; give a retriever or the folder of a "
                "fusion run"
            )
        folder, load = source.folder, source.load
    if system is not None and folder is None:
        raise EvaluationError(
            f"system names a saved system of a fusion run, and {given} is a retriever; got {system!r}. Leave it out, "
            "or give the folder of the run"
        )
    pages = GivenPages()
    backbone = load_backbone(load, render=pages.render)
    served = None if folder is None else load_served(str(given), folder, system, backbone.key())
    return MtebModel(backbone, pages, served)


def model_meta(backbone: Backbone, system: ServedSystem | None = None) -> Any:
    """Return mteb's ``ModelMeta``: what is known is said, what is not stays None.

    The revision is a hash over everything that changes a number: the keys of both sides and the system's parameters.
    What it is the hash of stands in ``loader_kwargs``, which mteb saves beside the scores.
    """
    from mteb.models import ModelMeta

    facts: dict[str, Any] = {side: backbone.key(side) for side in SIDES}
    facts |= {"token_budget": TOKEN_BUDGET, "system": None if system is None else content_of(system.module)}
    name = backbone.name if system is None else f"{backbone.name}-{system.name}"
    reads_pictures = backbone.key("page").get("reader") != "text-layer"
    unknown = {field: None for field, kind in ModelMeta.model_fields.items() if kind.is_required()}
    return ModelMeta.model_validate(
        {
            **unknown,
            "name": f"{ORGANIZATION}/{name}",
            "revision": sha256_bytes(canonical_json(facts).encode())[:REVISION_DIGITS],
            "loader_kwargs": facts,
            "embed_dim": embedding_width(backbone),
            "framework": ["PyTorch"],
            "similarity_fn_name": "cosine",
            "modalities": ["text", "image"] if reads_pictures else ["text"],
        }
    )


def _ranked(
    queries: np.ndarray, pages: np.ndarray, k: int, query_ids: Sequence[str], page_ids: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the best pages of every query, all of them where there are fewer than k."""
    hits = best_pages(queries, pages, min(k, len(pages)), query_ids=query_ids, page_ids=page_ids)
    return hits.to_run(query_ids, page_ids)


def _refuse_precision(encode_kwargs: Mapping[str, Any]) -> None:
    """Refuse another precision, which mteb would write beside scores of float32 vectors."""
    precision = encode_kwargs.get("precision")
    if precision not in (None, "float32"):
        raise EvaluationError(f"precision in encode_kwargs must be float32, as vectors are here; got {precision!r}")


def _prompt_type(side: str) -> Any:
    from mteb.types import PromptType

    return PromptType(side)
