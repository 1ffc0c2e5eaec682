"""Training on cached layers: queries against all training pages, early stopping on validation, resumable."""

from __future__ import annotations

import copy
import hashlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from miner_diag.files import canonical_json
from miner_diag.fusion.model import FusionError
from miner_diag.probes.kinds import unit
from miner_diag.probes.probe_stack import Side
from miner_diag.probes.retrieval_data import RetrievalData, Vectors, rows_of
from miner_diag.retrieval.ndcg import ndcg_at_k
from miner_diag.training_state import fill_optimizer, keep_state, part_of, take_state

LEAST_STEPS = 8
"""Of an epoch: with few pairs, batches are smaller instead."""

_BLOCK = 4096  # items embedded at once


class System(Protocol):
    """What is trained and judged: a module from the states of some layers to one vector."""

    layers: tuple[int, ...]
    """Which hidden states it reads."""

    def __call__(self, vectors: Tensor, side: Side = ...) -> Tensor:
        """Return [N, D], of length one, for states [N, K, D]."""
        ...

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters that learn slowly ("maps") and fast ("weights")."""
        ...

    def to(self, device: Any) -> System:
        """Move it, as modules move."""
        ...


@dataclass(frozen=True)
class FusionTrainOptions:
    """How a fusion, and all it is held against, is trained. notebooks/LOG.md says how the defaults came about."""

    temperature: float = 0.05
    """Divides cosines in the loss."""
    learning_rate: float = 3e-4
    """Of matrices (AdamW)."""
    weight_learning_rate: float = 1e-2
    """Of layer weights, bias and gates (AdamW)."""
    weight_decay: float = 0.0
    """Of AdamW."""
    batch_size: int = 512
    """Query-page pairs of a step; fewer where an epoch would have less than `LEAST_STEPS` steps."""
    negatives: int = 2048
    """Training pages, with or without a query, that stand against each query beside the pages of its batch; all if
    there are fewer."""
    page_to_query: float = 0.0
    """Weight of the loss that sets each page against the queries of the batch; the rest is on queries against pages."""
    epochs: int = 12
    """At most so many passes over the training pairs."""
    patience: int = 3
    """Training stops when validation nDCG@5 has not risen for so many epochs; the best epoch is kept, 0 included."""
    mrl: bool = False
    """Train the first 1/2, 1/4 and 1/8 of the vector, too (Matryoshka)."""
    seed: int = 0
    """Of shuffling and of the negatives."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("temperature", "learning_rate", "weight_learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)}")
        if not 0 <= self.page_to_query <= 1:
            raise ValueError(f"page_to_query must be between 0 and 1; got {self.page_to_query}")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay must be at least 0; got {self.weight_decay}")
        for name, least in (("batch_size", 2), ("negatives", 0), ("epochs", 0), ("patience", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A system at its best epoch."""

    system: Any
    """The module, frozen."""
    ndcg: np.ndarray
    """[Q] validation nDCG@5 of each query."""
    curve: tuple[float, ...]
    """Mean validation nDCG@5 before training and after each epoch."""
    loss: tuple[float, ...]
    """Mean training loss of each epoch."""
    best_epoch: int
    """0 where training did not help."""
    seconds: float
    """Of training and its validation."""

    @property
    def score(self) -> float:
        """Mean validation nDCG@5."""
        return float(self.ndcg.mean())


def embed_split(system: System, judged: RetrievalData, device: Any = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Return a system's vectors of queries [Q, D] and pages [P, D], float32."""
    if torch.device(device).type != "cpu":  # a trained system lies on the CPU
        system = copy.deepcopy(system).to(device)
    sides: tuple[tuple[Vectors, Side], ...] = ((judged.queries, "query"), (judged.pages, "page"))
    embedded = []
    with torch.no_grad():
        for vectors, side in sides:
            n = vectors.shape[0]
            blocks = [np.arange(first, min(first + _BLOCK, n)) for first in range(0, n, _BLOCK)]
            found = [system(take(vectors, rows, system.layers, device), side).cpu().numpy() for rows in blocks]
            embedded.append(np.concatenate(found))
    return embedded[0], embedded[1]


def ndcg_of(system: System, judged: RetrievalData, device: Any = "cpu", width: int | None = None) -> np.ndarray:
    """Return nDCG@5 [Q] of a system's vectors, cut to their first `width` coordinates if given."""
    queries, pages = (side[:, :width] for side in embed_split(system, judged, device))
    if width is not None:
        queries, pages = (unit(torch.from_numpy(side)).numpy() for side in (queries, pages))
    return ndcg_at_k(queries @ pages.T, judged.relevance, 5)


def train(
    system: Any,
    train_split: RetrievalData,
    validation: RetrievalData,
    options: FusionTrainOptions,
    *,
    device: Any = "cpu",
    state: Path | None = None,
    progress: bool = False,
    name: str = "fusion",
) -> TrainedRun:
    """Train a system's parameters; return it at the epoch with the best validation nDCG@5.

    The loss is InfoNCE: a query against the pages of its batch and other training pages and, if asked for, a page
    against the queries of its batch. Cells whose page (or one that looks the same) answers the query are masked.

    Parameters
    ----------
    system : System
        Left as it is; a copy is trained. One without parameters is only judged.
    train_split, validation : RetrievalData
        What it is fitted to, and what decides when to stop.
    options : FusionTrainOptions
        How.
    device : str
        Where.
    state : path, optional
        File that is written after each epoch; a training that was stopped goes on there and ends with the same numbers.
    progress : bool
        Show a bar after two seconds.
    name : str
        For the bar and for errors.

    Raises
    ------
    FusionError
        If there are fewer than two training pairs, no validation query, the loss is not finite, or `state` belongs to
        another training.
    """
    query_rows, page_rows = train_split.pairs
    if len(query_rows) < 2:
        raise FusionError(f"at least 2 training pairs are needed, one has no negatives; got {len(query_rows)}")
    if not validation.relevance.n_queries:
        raise FusionError("validation must hold at least one query: it decides when training stops")
    system = copy.deepcopy(system).to(device)
    groups = system.groups()
    rates = {"maps": options.learning_rate, "weights": options.weight_learning_rate}
    learned = [{"params": groups[key], "lr": rates[key]} for key in rates if groups[key]]
    run = _Run(system, ndcg_of(system, validation, device))
    start = time.perf_counter()
    if not learned or options.epochs == 0:
        return run.done(time.perf_counter() - start)
    optimiser = torch.optim.AdamW(learned, weight_decay=options.weight_decay)
    rng = np.random.default_rng(options.seed)
    key = _key(system, name, options, query_rows, page_rows)
    before, whole = run.resume(state, key, optimiser, rng)
    if whole:
        return run.done(before)
    batch_size = max(2, min(options.batch_size, len(query_rows) // LEAST_STEPS))
    per_epoch = len(query_rows) // batch_size
    bar = tqdm(
        total=options.epochs * per_epoch,
        initial=len(run.loss) * per_epoch,
        desc=name,
        unit="step",
        delay=2,
        disable=not progress,
        leave=False,
    )
    with bar:
        while len(run.loss) < options.epochs and len(run.loss) - run.best_epoch < options.patience:
            order, losses = rng.permutation(len(query_rows)), []
            for step in range(per_epoch):
                rows = order[step * batch_size : (step + 1) * batch_size]
                loss = batch_loss(system, train_split, (query_rows[rows], page_rows[rows]), options, rng, device)
                if not loss.isfinite():
                    raise FusionError(
                        f"the loss of {name} is {loss.item()} at step {step} of epoch {len(run.loss) + 1}; lower the "
                        "learning rates, raise the temperature, or check that the layers are finite"
                    )
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                losses.append(loss.item())
                bar.update()
            run.note(ndcg_of(system, validation, device), float(np.mean(losses)))
            run.keep(state, key, optimiser, rng, before + time.perf_counter() - start)
    seconds = before + time.perf_counter() - start
    run.keep(state, key, None, rng, seconds)
    return run.done(seconds)


def batch_loss(
    system: System,
    split: RetrievalData,
    rows: tuple[np.ndarray, np.ndarray],
    options: FusionTrainOptions,
    rng: np.random.Generator,
    device: Any,
) -> Tensor:
    """Return InfoNCE of a batch of pairs (rows of queries [B], rows of their pages [B])."""
    n_pages = split.pages.shape[0]
    drawn = rng.choice(n_pages, size=min(options.negatives, n_pages), replace=False)
    pages, own = np.unique(np.concatenate([rows[1], drawn]), return_inverse=True)
    own = own[: len(rows[1])]
    known = split.known_matches(rows[0], pages)
    same_page = known[:, own]  # [B, B]: two queries of one page are no negatives of each other's page
    known[np.arange(len(own)), own] = False
    z_queries = system(take(split.queries, rows[0], system.layers, device), "query")
    z_pages = system(take(split.pages, pages, system.layers, device), "page")
    np.fill_diagonal(same_page, False)
    masked, shared, place = (torch.from_numpy(array).to(device) for array in (known, same_page, own))
    widths = [z_pages.shape[1]]
    if options.mrl:
        widths += [max(1, widths[0] // part) for part in (2, 4, 8)]
    losses = []
    for width in widths:
        asked, offered = (
            (z_queries, z_pages) if width == widths[0] else (unit(z[:, :width]) for z in (z_queries, z_pages))
        )
        scores = (asked @ offered.T / options.temperature).masked_fill(masked, -torch.inf)
        there = torch.arange(len(place), device=device)
        to_pages = scores.logsumexp(1) - scores[there, place]
        loss = (1 - options.page_to_query) * to_pages.mean()
        if options.page_to_query:
            back = (asked @ offered[place].T / options.temperature).masked_fill(shared, -torch.inf)
            loss = loss + options.page_to_query * (back.logsumexp(0) - back.diagonal()).mean()
        losses.append(loss)
    return torch.stack(losses).mean()


def take(vectors: Vectors, rows: np.ndarray, layers: tuple[int, ...], device: Any) -> Tensor:
    """Return the states [n, K, D] of some items at some layers, float32."""
    found = vectors[rows[:, None], np.array(layers)] if isinstance(vectors, np.ndarray) else None
    if found is None:
        found = rows_of(vectors, rows)[:, layers]
    return torch.from_numpy(np.ascontiguousarray(found, dtype=np.float32)).to(device)


def _key(system: Any, name: str, options: FusionTrainOptions, query_rows: np.ndarray, page_rows: np.ndarray) -> str:
    """Return what a state must share to be of this training: start, what is learned, options and pairs."""
    start = hashlib.sha256()
    for part, tensor in sorted(system.state_dict().items()):
        start.update(part.encode() + tensor.detach().cpu().numpy().tobytes())
    for rows in (query_rows, page_rows):
        start.update(np.ascontiguousarray(rows, dtype=np.int64).tobytes())
    learned = sorted(part for part, parameter in system.named_parameters() if parameter.requires_grad)
    return canonical_json(
        {
            "name": name,
            "options": asdict(options),
            "layers": list(system.layers),
            "learned": learned,
            "start": start.hexdigest(),
        }
    )


class _Run:
    """A training as it stands after some epoch: what is best, what was measured, and its file."""

    def __init__(self, system: Any, ndcg: np.ndarray) -> None:
        self.system, self.ndcg, self.best_epoch = system, ndcg, 0
        self.curve: list[float] = [float(ndcg.mean())]
        self.loss: list[float] = []
        self.best = {name: tensor.clone() for name, tensor in system.state_dict().items()}

    def note(self, ndcg: np.ndarray, loss: float) -> None:
        """Take in an epoch."""
        self.loss.append(loss)
        if ndcg.mean() > max(self.curve):
            self.ndcg, self.best_epoch = ndcg, len(self.loss)
            self.best = {name: tensor.clone() for name, tensor in self.system.state_dict().items()}
        self.curve.append(float(ndcg.mean()))

    def done(self, seconds: float) -> TrainedRun:
        """Return the best."""
        self.system.load_state_dict(self.best)
        frozen = self.system.cpu().requires_grad_(False)
        return TrainedRun(frozen, self.ndcg, tuple(self.curve), tuple(self.loss), self.best_epoch, seconds)

    def keep(self, path: Path | None, key: str, optimiser: Any, rng: np.random.Generator, seconds: float) -> None:
        """Write everything the next epoch depends on; without `optimiser`, what a finished training left."""
        if path is None:
            return
        tensors: dict[str, Any] = {f"best.{name}": tensor for name, tensor in self.best.items()} | {"ndcg": self.ndcg}
        if optimiser is not None:
            tensors |= {f"now.{name}": tensor for name, tensor in self.system.state_dict().items()}
        noted = {
            "curve": self.curve,
            "loss": self.loss,
            "best_epoch": self.best_epoch,
            "seconds": seconds,
            "rng": rng.bit_generator.state,
            "whole": optimiser is None,
        }
        keep_state(path, key, noted, tensors, optimiser)

    def resume(self, path: Path | None, key: str, optimiser: Any, rng: np.random.Generator) -> tuple[float, bool]:
        """Take up what `keep` wrote, if it did; return the seconds spent before, and whether nothing is left to do."""
        found = take_state(path, key, FusionError)
        if found is None:
            return 0.0, False
        noted, tensors = found
        self.best = part_of(tensors, "best.")
        self.ndcg, self.curve, self.loss = tensors["ndcg"].numpy(), noted["curve"], noted["loss"]
        self.best_epoch = noted["best_epoch"]
        if not noted["whole"]:
            self.system.load_state_dict(part_of(tensors, "now."))
            fill_optimizer(optimiser, tensors)
            rng.bit_generator.state = noted["rng"]
        return float(noted["seconds"]), bool(noted["whole"])
