"""Training on cached layers: queries against all training pages, early stopping on validation, resumable."""

from __future__ import annotations

import copy
import hashlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from miner_diag.files import canonical_json
from miner_diag.fusion.errors import FusionError
from miner_diag.fusion.system import System, ndcg_of, states_of
from miner_diag.probes.gate_probes import LEAST_STEPS
from miner_diag.probes.hard_negatives import mine_hard_negatives
from miner_diag.probes.kinds import unit
from miner_diag.probes.retrieval_data import RetrievalData
from miner_diag.training_state import fill_optimizer, keep_state, part_of, take_state


@dataclass(frozen=True)
class FusionTrainOptions:
    """How a fusion, and all that it is compared with, is trained. notebooks/LOG.md says how the defaults came about."""

    temperature: float = 0.05
    """The number that divides cosines in the loss."""
    learning_rate: float = 3e-4
    """The learning rate of matrices (AdamW)."""
    weight_learning_rate: float = 1e-2
    """The learning rate of layer weights, bias and gates (AdamW)."""
    weight_decay: float = 0.0
    """The weight decay of AdamW."""
    batch_size: int = 512
    """The number of query-page pairs in a step; fewer where an epoch would have less than 8 steps."""
    negatives: int = 2048
    """The number of training pages, with or without a query, that stand against each query beside the pages of its
    batch; all are taken if there are fewer."""
    hard_negatives: int = 0
    """The number of hard negatives of each query of a batch that stand against all of its queries: the pages that the
    final layer takes for an answer, and that are none. The form miner has 16, and no others but its batch."""
    guard: float = 0.95
    """A page that scores above this share of the answer's score, under the final layer, is no hard negative."""
    page_to_query: float = 0.0
    """The weight of the loss that sets each page against the queries of the batch; the loss that sets each query
    against the pages has the rest."""
    epochs: int = 12
    """The largest number of passes over the training pairs."""
    patience: int = 3
    """Training stops when validation nDCG@5 has not risen for so many epochs; the best epoch is kept, 0 included."""
    mrl: bool = False
    """Train the first 1/2, 1/4 and 1/8 of the vector, too (Matryoshka)."""
    seed: int = 0
    """The seed of the first training: of its random parts, of shuffling and of the negatives. Further trainings have
    seed + 1, seed + 2, …"""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("temperature", "learning_rate", "weight_learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)}")
        if not 0 <= self.page_to_query <= 1:
            raise ValueError(f"page_to_query must be between 0 and 1; got {self.page_to_query}")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay must be at least 0; got {self.weight_decay}")
        if not 0 < self.guard <= 1:
            raise ValueError(f"guard must be above 0 and at most 1; got {self.guard}")
        if not self.hard_negatives and self.guard != FusionTrainOptions.guard:
            raise ValueError("guard has no effect without hard_negatives; leave it out")
        for name, least in (
            ("batch_size", 2),
            ("negatives", 0),
            ("hard_negatives", 0),
            ("epochs", 0),
            ("patience", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A system at its best epoch."""

    system: System
    """The system, frozen, on the CPU."""
    ndcg: np.ndarray
    """[Q] validation nDCG@5 of each query."""
    curve: tuple[float, ...]
    """Mean validation nDCG@5 before training and after each epoch."""
    loss: tuple[float, ...]
    """Mean training loss of each epoch."""
    best_epoch: int
    """0 where training did not help."""
    seconds: float
    """The time of training and of its validation."""

    @property
    def score(self) -> float:
        """Mean validation nDCG@5."""
        return float(self.ndcg.mean())


def train(
    system: System,
    train_split: RetrievalData,
    validation: RetrievalData,
    options: FusionTrainOptions,
    *,
    device: Any = "cpu",
    state: Path | None = None,
    progress: bool = False,
    name: str = "fusion",
    hard: np.ndarray | None = None,
) -> TrainedRun:
    """Train a system's parameters; return it at the epoch with the best validation nDCG@5.

    The loss is InfoNCE: a query against the pages of its batch and other training pages and, if asked for, a page
    against the queries of its batch. Cells whose page (or one that looks the same) answers the query are masked.

    Parameters
    ----------
    system : System
        It is left as it is; a copy is trained. One without trained parameters is only evaluated.
    train_split, validation : RetrievalData
        What it is fitted to, and what decides when to stop.
    options : FusionTrainOptions
        How it is trained.
    device : str
        Where to train.
    state : path, optional
        File that is written after each epoch; a training that was stopped goes on there and ends with the same numbers.
        One that is damaged or of another training is put aside.
    progress : bool
        Show a bar after two seconds.
    name : str
        The system's name in the bar and in errors.
    hard : ndarray [Q, n], optional
        Hard negatives of the training queries that were mined before with the same options; else they are mined here.

    Raises
    ------
    FusionError
        If there are fewer than two training pairs, no validation query, or the loss is not finite.
    """
    query_rows, page_rows = train_split.pairs
    if len(query_rows) < 2:
        raise FusionError(f"at least 2 training pairs are needed, one has no negatives; got {len(query_rows)}")
    if not validation.relevance.n_queries:
        raise FusionError("validation must hold at least one query: it decides when training stops")
    system = copy.deepcopy(system).to(device)
    groups = system.groups()
    rates = {"maps": options.learning_rate, "weights": options.weight_learning_rate}
    trained = [{"params": groups[name], "lr": rates[name]} for name in rates if groups[name]]
    run = _Run(system, ndcg_of(system, validation, device))
    start = time.perf_counter()
    if not trained or options.epochs == 0:
        return run.done(time.perf_counter() - start)
    optimiser = torch.optim.AdamW(trained, weight_decay=options.weight_decay)
    rng = np.random.default_rng(options.seed)
    key = _key(system, name, options, query_rows, page_rows)
    before, is_done = run.resume(state, key, optimiser, rng)
    if is_done:
        return run.done(before)
    batch_size = max(2, min(options.batch_size, len(query_rows) // LEAST_STEPS))
    per_epoch = len(query_rows) // batch_size
    if hard is None:
        hard = mine_hard_negatives(train_split, options.hard_negatives, options.guard)
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
                pairs = query_rows[rows], page_rows[rows]
                loss = batch_loss(system, train_split, pairs, options, rng, device, hard[pairs[0]])
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
    hard: np.ndarray,
) -> Tensor:
    """Return InfoNCE of a batch of pairs, rows of queries [B] and of their pages [B], with hard negatives [B, n]."""
    n_pages = split.pages.shape[0]
    drawn = rng.choice(n_pages, size=min(options.negatives, n_pages), replace=False)
    pages, own = np.unique(np.concatenate([rows[1], drawn, hard[hard >= 0]]), return_inverse=True)
    own = own[: len(rows[1])]
    answers = split.known_matches(rows[0], pages)
    same_page = answers[:, own]  # [B, B]: two queries of one page are no negatives of each other's page
    answers[np.arange(len(own)), own] = False
    z_queries = system(states_of(split.queries, rows[0], system.layers, device), "query")
    z_pages = system(states_of(split.pages, pages, system.layers, device), "page")
    np.fill_diagonal(same_page, False)
    masked, shared, column = (torch.from_numpy(array).to(device) for array in (answers, same_page, own))
    widths = [z_pages.shape[1]]
    if options.mrl:
        widths += [max(1, widths[0] // part) for part in (2, 4, 8)]
    losses = []
    for width in widths:
        q, p = (z_queries, z_pages) if width == widths[0] else (unit(z[:, :width]) for z in (z_queries, z_pages))
        scores = (q @ p.T / options.temperature).masked_fill(masked, -torch.inf)
        row = torch.arange(len(column), device=device)
        to_pages = scores.logsumexp(1) - scores[row, column]
        loss = (1 - options.page_to_query) * to_pages.mean()
        if options.page_to_query:
            back = (q @ p[column].T / options.temperature).masked_fill(shared, -torch.inf)
            loss = loss + options.page_to_query * (back.logsumexp(0) - back.diagonal()).mean()
        losses.append(loss)
    return torch.stack(losses).mean()


def _key(system: System, name: str, options: FusionTrainOptions, query_rows: np.ndarray, page_rows: np.ndarray) -> str:
    """Return what a state must share to be of this training: start, what is trained, options and pairs."""
    start = hashlib.sha256()
    for part, tensor in sorted(system.state_dict().items()):
        start.update(part.encode() + tensor.detach().cpu().numpy().tobytes())
    for rows in (query_rows, page_rows):
        start.update(np.ascontiguousarray(rows, dtype=np.int64).tobytes())
    trained = sorted(part for part, parameter in system.named_parameters() if parameter.requires_grad)
    return canonical_json(
        {
            "name": name,
            "options": asdict(options),
            "layers": list(system.layers),
            "trained": trained,
            "start": start.hexdigest(),
        }
    )


class _Run:
    """A training as it stands after some epoch: what is best, what was measured, and its file."""

    def __init__(self, system: System, ndcg: np.ndarray) -> None:
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
            "done": optimiser is None,
        }
        keep_state(path, key, noted, tensors, optimiser)

    def resume(self, path: Path | None, key: str, optimiser: Any, rng: np.random.Generator) -> tuple[float, bool]:
        """Take up what `keep` wrote, if it did; return the seconds spent before, and whether nothing is left to do."""
        state = take_state(path, key)
        if state is None:
            return 0.0, False
        noted, tensors = state
        self.best = part_of(tensors, "best.")
        self.ndcg, self.curve, self.loss = tensors["ndcg"].numpy(), noted["curve"], noted["loss"]
        self.best_epoch = noted["best_epoch"]
        if not noted["done"]:
            self.system.load_state_dict(part_of(tensors, "now."))
            fill_optimizer(optimiser, tensors)
            rng.bit_generator.state = noted["rng"]
        return float(noted["seconds"]), bool(noted["done"])
