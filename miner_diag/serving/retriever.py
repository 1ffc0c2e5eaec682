"""A backbone and what was fitted to its layers as one object that encodes queries and pages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from miner_diag.backbones import Backbone, LoadOptions, load_backbone
from miner_diag.backbones.base import SIDES, Encoded, Side
from miner_diag.backbones.options import Dtype
from miner_diag.corpus.core import Page, Query, Skipped
from miner_diag.embeddings.forward import pool_layers
from miner_diag.embeddings.options import TOKEN_BUDGET
from miner_diag.embeddings.store import LAYERS
from miner_diag.evaluation.systems import embedding_width, read_sources
from miner_diag.files import canonical_json, sha256_bytes
from miner_diag.fusion.baselines import OneLayer, ShuffledLayers
from miner_diag.fusion.form import refuse_other_backbone
from miner_diag.fusion.saved_systems import FittedTo, read_backbone_key
from miner_diag.fusion.served import content_of, load_served, served_form
from miner_diag.fusion.system import System, check_directions, check_states, device_of
from miner_diag.serving.errors import ServingError
from miner_diag.serving.folder import read_folder, write_folder
from miner_diag.serving.given_pages import Given, GivenPages, Reads

logger = logging.getLogger(__name__)

BACKBONE = "backbone"
"""What names the backbone's own embedding instead of a system."""
_SURELY_LONG = 1e-20  # the square of a length that can be brought to one
ROUNDING = frozenset({"torch", "transformers", "device", "attention", "pillow"})
"""Fields of a backbone's key that say where it runs: they move vectors by rounding, and make no other model of it."""


@dataclass(frozen=True, eq=False)
class EncodedPages:
    """Vectors of pages, and what was noticed of each."""

    vectors: np.ndarray
    """[P, D] float32, of length one."""
    pages: tuple[Page, ...]
    """[P] id, document, number and text layer of each page."""
    notes: tuple[str, ...]
    """[P] "empty" where there was nothing to read (such pages share one vector), "truncated" where the end of a page
    was not read, "" else."""
    skipped: tuple[Skipped, ...]
    """Pages of the PDFs that could not be read, which have no vector."""

    @property
    def ids(self) -> list[str]:
        """The pages' ids; "path/number" for pages of PDFs."""
        return [page.page_id for page in self.pages]


class FusedRetriever:
    """A frozen backbone and a system over its layers: queries and pages in, one vector each out.

    Only layers that the system reads are pooled, in one forward, and blocks above the highest of them are not run. A
    fusion is applied in its merged form. Vectors have length one, so that a dot product is the cosine.

    Make one with :meth:`from_run`, :meth:`from_model` or :meth:`from_pretrained`. One thread at a time may use it.

    Parameters
    ----------
    backbone : Backbone
        The retriever, loaded with ``render=given.render``.
    given : GivenPages
        Reads and draws pages.
    system : System
        What makes a vector of its layers.
    system_name : str
        What the system is called; "backbone" for the backbone's own embedding.
    fitted_to : FittedTo, optional
        The pages that the system was fitted to, where it was.
    """

    def __init__(
        self,
        backbone: Backbone,
        given: GivenPages,
        system: System,
        system_name: str,
        fitted_to: FittedTo | None = None,
    ) -> None:
        if isinstance(system, ShuffledLayers):
            raise ServingError(
                f"{system_name} is a control that mixes the layers of different items, so it cannot be served; take "
                "another system of the run"
            )
        if backbone.shared_layers:
            check_states(system, (0, *backbone.layer_shape("page")))
        elif not isinstance(system, OneLayer) or system.layers[0] != system.n_layers - 1:
            raise ServingError(
                f"{backbone.name} is a dual encoder, whose sides share the final layer alone; serve that (backbone)"
            )
        self.backbone, self.system, self.system_name, self.fitted_to = backbone, system, system_name, fitted_to
        self.served = served_form(system).eval()
        """The system in its merged form."""
        self._given = given
        self._layers = {
            side: self.served.layers if backbone.shared_layers else (backbone.layer_shape(side)[0] - 1,)
            for side in SIDES
        }

    @classmethod
    def from_run(
        cls, folder: Path | str, system: str | None = None, *, device: str | None = None, dtype: Dtype | None = None
    ) -> FusedRetriever:
        """Load what ``python -m miner_diag.fusion`` left in a folder.

        Parameters
        ----------
        folder : path
            The run.
        system : str, optional
            The name of a saved system of the run ("miner", "trained_maps", a head), of which the seed that validation
            likes best is taken, or "backbone"; the fusion that the run hands out if it is not given.
        device, dtype : str, optional
            These take the place of what the run was fitted with.

        Raises
        ------
        FusionError
            If a file is missing, damaged or changed, the system is unknown, or it was fitted to another backbone.
        ValueError
            If the folder holds no fusion run, or the backbone cannot be loaded.
        """
        (source,) = read_sources([str(folder)], device=device, dtype=dtype)
        if source.folder is None or source.load is None:
            raise ServingError(f"{folder} is no fusion run; make one with python -m miner_diag.fusion --out {folder}")
        if system == BACKBONE:
            return cls.from_model(source.load)
        found = load_served(str(folder), source.folder, system)
        retriever = cls._load(source.load, lambda _: found.module, found.name, found.fitted_to)
        retriever._refuse_other_model(f"{folder} holds systems", read_backbone_key(source.folder), dtype)
        return retriever

    @classmethod
    def from_model(cls, model: LoadOptions | str = "page-text", layer: int | None = None) -> FusedRetriever:
        """Load a backbone alone, or one chosen layer of it, pooled.

        Parameters
        ----------
        model : LoadOptions or str
            The retriever: what ``--model`` takes, or all its options.
        layer : int, optional
            The layer, 0 to n_layers; the final one, with which the backbone retrieves, if it is not given.

        Raises
        ------
        FusionError
            If there is no such layer.
        ValueError
            If the backbone cannot be loaded.
        """

        def one_layer(backbone: Backbone) -> System:
            n_layers = backbone.layer_shape("page")[0]
            return OneLayer(n_layers - 1 if layer is None else layer, n_layers, embedding_width(backbone))

        load = LoadOptions(model) if isinstance(model, str) else model
        return cls._load(load, one_layer, BACKBONE if layer is None else f"layer-{layer}")

    @classmethod
    def from_pretrained(
        cls,
        model: Path | str,
        revision: str | None = None,
        *,
        device: str = "auto",
        dtype: Dtype | None = None,
        trust_remote_code: bool = False,
    ) -> FusedRetriever:
        """Load what :meth:`save_pretrained` wrote.

        Parameters
        ----------
        model : path or str
            The folder, or owner/name on a hub.
        revision : str, optional
            The commit hash of a hub id; the newest is taken, with a warning, if it is not given.
        device : str
            Where the forward runs.
        dtype : str, optional
            The precision of the forward, instead of the saved one.
        trust_remote_code : bool
            Let the backbone run Python code that it brings along, with your rights.

        Raises
        ------
        ServingError
            If it is no such folder, or a file is damaged or changed.
        FusionError
            If the backbone that is found is not the one that was saved; the fields that differ are named.
        ValueError
            If the backbone cannot be loaded.
        """
        saved = read_folder(model, revision, trust_remote_code=trust_remote_code)
        load = replace(saved.load, device=device, dtype=dtype or saved.load.dtype)
        retriever = cls._load(load, lambda _: saved.system, saved.system_name, saved.fitted_to)
        retriever._refuse_other_model(f"{model} was saved", saved.key, dtype)
        return retriever

    def save_pretrained(self, folder: Path | str, *, with_backbone: bool | None = None) -> None:
        """Write the retriever as a folder that :meth:`from_pretrained` reads on another machine.

        Parameters
        ----------
        folder : path
            Where to; it is made.
        with_backbone : bool, optional
            Whether the backbone's files are copied into the folder. If it is not given, those of a local folder are;
            an embedded backbone and one of a hub are named, with their revision.

        Raises
        ------
        ServingError
            If the backbone's files cannot come along.
        PlaceError
            If the folder cannot be written. It is an OSError.
        """
        folder = Path(folder)
        write_folder(folder, self.backbone, self.system, self.system_name, self.fingerprint, with_backbone)
        if self.fitted_to is not None:
            self.fitted_to.write(folder)

    def push_to_hub(self, repo_id: str, *, private: bool = True) -> str:
        """Save the retriever with its card and upload both to a hub; return the address of the commit.

        Parameters
        ----------
        repo_id : str
            owner/name; it is made if it is not there.
        private : bool
            Whether a repository that is made is seen by its owner alone.

        Raises
        ------
        ServingError
            If the name can be none of a hub, or the hub does not take it.
        """
        from miner_diag.serving.hub_folder import write_hub_folder
        from miner_diag.serving.upload import push_folder

        with TemporaryDirectory() as folder:
            write_hub_folder(self, Path(folder))
            return push_folder(folder, repo_id, private=private)

    @classmethod
    def _load(
        cls,
        load: LoadOptions,
        make: Callable[[Backbone], System],
        system_name: str,
        fitted_to: FittedTo | None = None,
    ) -> FusedRetriever:
        given = GivenPages()
        backbone = load_backbone(load, render=given.render)
        return cls(backbone, given, make(backbone), system_name, fitted_to)

    def beside(self, system: System, system_name: str) -> FusedRetriever:
        """Return a retriever that reads another system over the same backbone, which is not loaded once more."""
        return FusedRetriever(self.backbone, self._given, system, system_name)

    @property
    def name(self) -> str:
        """What tables call it: the backbone, and the system behind it."""
        return self.backbone.name if self.system_name == BACKBONE else f"{self.backbone.name}-{self.system_name}"

    @property
    def revision(self) -> str:
        """What pins the weights of the backbone."""
        return self.backbone.revision

    @cached_property
    def width(self) -> int:
        """The number D of coordinates of a vector."""
        return embedding_width(self.backbone)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that are read."""
        return self._layers["page"]

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 over all that makes it this model: weights, settings and prompts of the backbone, and the system.

        Where it runs and with which library versions, which moves vectors by rounding alone, is left out.
        """
        facts: dict[str, Any] = {side: model_key(self.backbone.key(side)) for side in SIDES}
        for side in SIDES:
            facts[side].pop("backbone")  # a name; the revision says which weights
        return sha256_bytes(canonical_json({**facts, "system": content_of(self.system)}).encode())

    def encode_queries(self, texts: Sequence[str], *, progress: bool = True) -> np.ndarray:
        """Return the vectors of queries [Q, D], float32, of length one; the backbone's prompt is put before each.

        Raises
        ------
        ServingError
            If `texts` is no list of texts, or a text is empty.
        """
        if isinstance(texts, str):
            raise ServingError("texts must be a list, also of one query; got a single str")
        for number, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise ServingError(f"texts[{number}] must be a text that is not empty; got {text!r}")
        items = [Query(f"query {number}", text, "given", "") for number, text in enumerate(texts)]
        vectors, encoded = self._encode(items, "query", progress)
        cut = [number for number, item in enumerate(encoded) if item.truncated]
        if cut:
            logger.warning(
                "%d of %d queries are longer than %s reads, the first is texts[%d]; their end is not read",
                len(cut),
                len(items),
                self.backbone.name,
                cut[0],
            )
        return vectors

    def encode_pages(
        self,
        pages: Sequence[Given],
        *,
        render: Callable[[str, int], Any] | None = None,
        progress: bool = True,
    ) -> EncodedPages:
        """Return the vectors of pages, and what was noticed of each.

        Parameters
        ----------
        pages : sequence of path, picture, str or Page
            A ``Path`` names a PDF, of which every page is taken, or a picture; a PIL picture is a page; a ``str`` is a
            page's text. Pages of a corpus are taken as they are.
        render : callable, optional
            ``corpus.render``, where pages of a corpus must be looked at.
        progress : bool
            Show bars, after two seconds.

        Raises
        ------
        ServingError
            If an item is of another kind, or the backbone does not read it: a text where it looks at pictures.
        CorpusError
            If a file cannot be read.
        """
        taken = self._given.take(pages, self.reads, self.backbone.name, render)
        vectors, encoded = self._encode(taken.seen, "page", progress)
        notes = tuple("empty" if item.empty else "truncated" if item.truncated else "" for item in encoded)
        return EncodedPages(vectors, tuple(taken.pages), notes, tuple(taken.skipped))

    @cached_property
    def reads(self) -> Reads:
        """What is read of a page: texts that are given, pictures, or both."""
        reader = self.backbone.key("page").get("reader", "")  # those that look at pictures by themselves have none
        return Reads(reader.startswith(("text-layer", "auto")), reader != "text-layer")

    def _refuse_other_model(self, subject: str, key: Mapping[str, str], dtype: Dtype | None) -> None:
        """Refuse a backbone that is not the one of a key, but for where it runs and a precision that the user chose."""
        stated, loaded = model_key(key), model_key(self.backbone.key())
        if dtype is not None:
            stated.pop("dtype", None), loaded.pop("dtype", None)
        if stated.get("reader") != loaded.get("reader"):
            logger.warning(
                "pages without a text layer are read otherwise here (%s) than for %s (%s); their vectors differ",
                loaded.pop("reader", "no reader"),
                self.name,
                stated.pop("reader", "no reader"),
            )
        refuse_other_backbone(subject, stated, loaded)

    def _encode(
        self, items: Sequence[Query] | Sequence[Page], side: Side, progress: bool
    ) -> tuple[np.ndarray, list[Encoded]]:
        """Return vectors [n, D], and what entered the backbone; batches are those of all our commands."""
        if len(items) == 1:  # the way of a query: a bar would cost some of it
            encoded = self.backbone.prepare(items, side)
            return self.fuse(encoded, side), encoded
        vectors = [np.empty((0, self.width), dtype=np.float32)] if not items else []
        encoded = []
        step = LAYERS.shard_items[side]
        bar = tqdm(
            total=len(items),
            desc=f"encoding {'queries' if side == 'query' else 'pages'}",
            unit=side,
            delay=2,
            disable=not progress,
        )
        with bar:
            for first in range(0, len(items), step):
                prepared = self.backbone.prepare(items[first : first + step], side)
                states = pool_layers(self.backbone, prepared, side, TOKEN_BUDGET, bar.update, self._layers[side])
                vectors.append(self._fused(states, side, first))
                encoded += prepared
        return np.concatenate(vectors), encoded

    def fuse(self, encoded: Sequence[Encoded], side: Side) -> np.ndarray:
        """Return the vectors [n, D] of items that the backbone has prepared."""
        states = pool_layers(self.backbone, encoded, side, TOKEN_BUDGET, lambda _: None, self._layers[side])
        return self._fused(states, side, 0)

    def _fused(self, states: np.ndarray, side: Side, first: int) -> np.ndarray:
        """Return the vectors [n, D] of pooled states [n, K, D] of the layers that are read."""
        with torch.inference_mode():
            tensor = torch.from_numpy(states)
            if self.backbone.device.type != "cpu":  # else the system lies there too, and asking takes its time
                tensor = tensor.to(device_of(self.served))
            squares = np.einsum("nkd,nkd->nk", states, states)
            if not (squares > _SURELY_LONG).all() or not np.isfinite(squares).all():
                check_directions(self.served, tensor, side, first)  # which says what is wrong, and takes longer
            array: np.ndarray = self.served(tensor, side).cpu().numpy()
        return array


def model_key(key: Mapping[str, str]) -> dict[str, str]:
    """Return a backbone's key without what says where it runs; see `ROUNDING`."""
    return {name: value for name, value in key.items() if name not in ROUNDING}
