"""Training: the probes of all layers and both kinds as one batched problem on cached vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from miner_diag.probes.initialization import Start, low_rank, starting_weights
from miner_diag.probes.kinds import KINDS, both_probes, unit
from miner_diag.probes.probe_stack import ProbeError, ProbeStack
from miner_diag.probes.retrieval_data import RetrievalData, layer_of, rows_of
from miner_diag.retrieval.ndcg import ndcg_at_k

K = 5
"""nDCG is taken at this rank."""


@dataclass(frozen=True)
class ProbeTrainOptions:
    """How probes are fitted. The defaults were chosen on the validation split; figures/03_probe_sweep.csv says how."""

    temperature: float = 0.1
    """The number that divides cosines in the loss."""
    start: Start = "least_squares"
    """Where projections start: at the identity, at a random rotation (orthogonal), or at the linear map that comes
    closest to the final layer (least_squares)."""
    ridge: float = 0.01
    """The ridge of least_squares, relative to the mean second moment of the layer."""
    rank: int | None = None
    """The rank of the projections; they have full rank if this is not given."""
    gate_l1: float = 0.1
    """The weight of the gate's L1 norm over its L2 norm: larger values give sparser base probes."""
    to_final: float = 0.3
    """The weight of 1 - cosine between an item's probe output and its final embedding."""
    sides: Literal["shared", "per-side"] = "shared"
    """Whether queries and pages share a probe (shared) or have one each (per-side). In a dual encoder only one side has
    a probe, so per-side is refused."""
    learning_rate: float = 3e-4
    """The learning rate of projections (AdamW)."""
    gate_learning_rate: float = 3e-2
    """The learning rate of gates (AdamW)."""
    weight_decay: float = 0.01
    """The weight decay of AdamW."""
    batch_size: int = 256
    """The number of pairs in a batch; all other pages of it are a query's negatives."""
    epochs: int = 20
    """The largest number of passes over the training pairs."""
    patience: int = 3
    """Training ends when no probe of any layer has reached a new best validation nDCG@5 for so many epochs. Until then
    all probes are trained and evaluated; each is kept as it was at its own best epoch."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("temperature", "learning_rate", "gate_learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)}")
        for name in ("ridge", "gate_l1", "to_final", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0; got {getattr(self, name)}")
        if self.start == "least_squares" and self.ridge == 0:
            raise ValueError(
                "ridge must be above 0 with start least_squares: moments of a layer can be singular; got 0"
            )
        if self.start != "least_squares" and self.ridge != ProbeTrainOptions.ridge:
            raise ValueError(
                f"ridge is an option of start least_squares and has no effect with start {self.start}; leave it out"
            )
        for name, least in (("batch_size", 2), ("epochs", 0), ("patience", 1), ("rank", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}; got {value}")

    def with_start(self, start: Start) -> ProbeTrainOptions:
        """Return the options with another start; a ridge, which only least_squares has, is kept for it alone."""
        ridge = self.ridge if start == "least_squares" else ProbeTrainOptions.ridge
        return replace(self, start=start, ridge=ridge)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Probes at their best epoch, and how they got there."""

    stack: ProbeStack
    """The probes at their best epochs."""
    last: ProbeStack
    """The probes as the last epoch left them."""
    ndcg: np.ndarray
    """[2, L, Q] nDCG@5 of each validation query, at the best epoch of each probe."""
    curve: np.ndarray
    """[epochs + 1, 2, L] mean validation nDCG@5; entry 0 is before training."""
    loss: np.ndarray
    """[epochs, 2, L] mean training loss."""
    best_epoch: np.ndarray
    """[2, L]; 0 where training did not help."""
    n_steps: int
    """The number of the optimiser's steps."""
    n_negatives: int
    """The number of query-page cells that served as negatives, over all steps."""
    n_masked: int
    """The number of cells that were no negatives, because the page (or one that looks the same) answers the query."""


def fit_probes(
    train: RetrievalData,
    validation: RetrievalData,
    options: ProbeTrainOptions | None = None,
    *,
    seed: int = 0,
    backbone: dict[str, str] | None = None,
    shared_layers: bool = True,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Fitted:
    """Fit both kinds of probe to every layer.

    Every step embeds one batch of pairs with all 2 L probes at once ([2 L, B, D]) and adds their losses up. No
    parameter is shared, so each probe gets the gradient that it would get alone. The loss is InfoNCE both ways
    (queries to pages and pages to queries) with the batch as negatives; cells whose page answers the query are masked.

    Parameters
    ----------
    train : RetrievalData
        What the probes are fitted to; a store larger than memory is read row by row.
    validation : RetrievalData
        What decides which epoch of each probe is kept, and when training ends.
    options : ProbeTrainOptions, optional
        The defaults if not given.
    seed : int
        Seed of shuffling and of a random start.
    backbone : dict, optional
        The backbone's key, kept with the probes.
    shared_layers : bool
        Whether queries and pages pass the same layers; if not (a dual encoder), `train` and `validation` must hold the
        layers of one side, the other side fixed.
    device : str
        Where to train.
    progress : bool
        Show a bar after two seconds.

    Raises
    ------
    ProbeError
        If the sides don't fit the backbone, there are fewer than two pairs, the rank exceeds the width, or a loss is
        not finite (layer, kind and step are named).
    """
    options = options or ProbeTrainOptions()
    n_sides = _n_sides(options.sides, shared_layers, train.fixed)
    if (train.n_layers, train.width) != (validation.n_layers, validation.width):
        raise ProbeError(
            f"train and validation must have the same layers and width; got {list(train.pages.shape[1:])} and "
            f"{list(validation.pages.shape[1:])}"
        )
    if options.rank is not None and options.rank > train.width:
        raise ProbeError(f"rank must be at most the width, {train.width}; got {options.rank}")
    query_rows, page_rows = train.pairs
    if len(query_rows) < 2:
        raise ProbeError(f"at least 2 training pairs are needed, one has no negatives; got {len(query_rows)}")
    rng = np.random.default_rng(seed)
    parameters = _Parameters(train, options, n_sides, rng, device)
    optimiser = torch.optim.AdamW(parameters.groups(), weight_decay=options.weight_decay)
    best = _Best(parameters, evaluate_probes(*parameters.tensors(), validation))
    curve, losses = [best.ndcg.mean(axis=2)], []
    n_steps = n_negatives = n_masked = 0
    per_epoch = max(1, len(query_rows) // options.batch_size)
    bar = tqdm(total=options.epochs * per_epoch, desc="probes", unit="step", delay=2, disable=not progress)
    with bar:
        for epoch in range(1, options.epochs + 1):
            summed = torch.zeros(2, train.n_layers, device=device)
            batches = np.array_split(rng.permutation(len(query_rows)), per_epoch)
            for batch in batches:
                rows = query_rows[batch], page_rows[batch]
                known = train.known_matches(*rows)
                step_loss, penalty = _loss(parameters, train, rows, known, options, device)
                n_steps += 1
                _refuse_non_finite(step_loss, n_steps)
                optimiser.zero_grad(set_to_none=True)
                (step_loss.sum() + penalty).backward()
                optimiser.step()
                summed += step_loss.detach()
                masked = int(known.sum()) - len(batch)
                n_masked, n_negatives = n_masked + masked, n_negatives + len(batch) * (len(batch) - 1) - masked
                bar.update()
            losses.append((summed / len(batches)).cpu().numpy())
            curve.append(best.update(parameters, evaluate_probes(*parameters.tensors(), validation), epoch))
            bar.set_postfix(ndcg=f"{best.ndcg.mean():.3f}")
            if (epoch - best.epoch >= options.patience).all():
                break
    loss = np.array(losses).reshape(-1, 2, train.n_layers)
    stack = ProbeStack(best.gates, best.weights, dict(backbone or {}))
    gates, weights = (tensor.cpu().numpy() for tensor in parameters.tensors())
    last = ProbeStack(gates, weights, stack.backbone)
    return Fitted(stack, last, best.ndcg, np.array(curve), loss, best.epoch, n_steps, n_negatives, n_masked)


def evaluate_probes(gates: Tensor, weights: Tensor, data: RetrievalData) -> np.ndarray:
    """Return nDCG@5 of both kinds of probe for every query, reading `data` layer by layer.

    Parameters
    ----------
    gates : Tensor [L, S, D]
        The base probes.
    weights : Tensor [L, S, D, D]
        The normalized projections.
    data : RetrievalData
        The queries and pages to evaluate them on.

    Returns
    -------
    ndarray [2, L, Q]
        Base probes first.
    """
    values = np.empty((2, data.n_layers, data.relevance.n_queries))
    for layer in range(data.n_layers):
        for kind, scores in enumerate(probe_scores(gates[layer], weights[layer], data, layer)):
            values[kind, layer] = ndcg_at_k(scores, data.relevance, K)
    return values


@torch.no_grad()
def probe_scores(gate: Tensor, weight: Tensor, data: RetrievalData, layer: int) -> np.ndarray:
    """Return scores [2, Q, P] of one layer's probes: gate [S, D], weight [S, D, D]."""
    queries, pages = (_tensor(layer_of(v, layer), gate.device) for v in (data.queries, data.pages))
    z_queries = both_probes(gate[0], weight[0], queries, fixed=data.fixed == "query")
    z_pages = both_probes(gate[-1], weight[-1], pages, fixed=data.fixed == "page")
    return (z_queries @ z_pages.mT).cpu().numpy()


class _Parameters:
    """What is trained: gates [L, S, D], and projections [L, S, D, D] or their two factors."""

    def __init__(
        self, train: RetrievalData, options: ProbeTrainOptions, n_sides: int, rng: np.random.Generator, device: Any
    ) -> None:
        start = starting_weights(options.start, train, n_sides=n_sides, ridge=options.ridge, rng=rng)
        self.gates = torch.ones(train.n_layers, n_sides, train.width, device=device, requires_grad=True)
        factors = [start] if options.rank is None else list(low_rank(start, options.rank))
        self.factors = [factor.detach().contiguous().to(device).requires_grad_() for factor in factors]
        self.rates = options.gate_learning_rate, options.learning_rate

    def groups(self) -> list[dict[str, Any]]:
        """Parameters and their learning rates."""
        return [
            {"params": [self.gates], "lr": self.rates[0]},
            {"params": self.factors, "lr": self.rates[1]},
        ]

    def weights(self) -> Tensor:
        """W [L, S, D, D]."""
        return self.factors[0] if len(self.factors) == 1 else self.factors[0] @ self.factors[1]

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Gates and weights, without their history."""
        with torch.no_grad():
            return self.gates.detach(), self.weights().detach()


class _Best:
    """Keeps each probe as it was at its best epoch so far."""

    def __init__(self, parameters: _Parameters, ndcg: np.ndarray) -> None:
        gates, weights = parameters.tensors()
        self.gates, self.weights = gates.cpu().numpy().copy(), weights.cpu().numpy().copy()
        self.ndcg = ndcg
        self.epoch = np.zeros(ndcg.shape[:2], dtype=np.int64)

    def update(self, parameters: _Parameters, ndcg: np.ndarray, epoch: int) -> np.ndarray:
        """Take over the probes that are better than ever; return the means [2, L] of all probes over queries."""
        means = ndcg.mean(axis=2)
        better = means > self.ndcg.mean(axis=2)
        gates, weights = (tensor.cpu().numpy() for tensor in parameters.tensors())
        self.gates[better[0]], self.weights[better[1]] = gates[better[0]], weights[better[1]]
        self.ndcg[better] = ndcg[better]
        self.epoch[better] = epoch
        return means


def _loss(
    parameters: _Parameters,
    train: RetrievalData,
    rows: tuple[np.ndarray, np.ndarray],
    known: np.ndarray,
    options: ProbeTrainOptions,
    device: Any,
) -> tuple[Tensor, Tensor]:
    """Return InfoNCE [2, L] of a batch of pairs, and the penalties' sum."""
    # [L, B, D] for each side
    queries = _tensor(rows_of(train.queries, rows[0]).swapaxes(0, 1), device)
    pages = _tensor(rows_of(train.pages, rows[1]).swapaxes(0, 1), device)
    gates, weights = parameters.gates, parameters.weights()
    z_queries = both_probes(gates[:, 0], weights[:, 0], queries, fixed=train.fixed == "query")  # [2, L, B, D]
    z_pages = both_probes(gates[:, -1], weights[:, -1], pages, fixed=train.fixed == "page")
    scores = z_queries @ z_pages.mT / options.temperature  # [2, L, B, B]
    own = torch.arange(len(rows[0]), device=device)
    mask = torch.from_numpy(known).to(device).clone()
    mask[own, own] = False
    scores = scores.masked_fill(mask, -torch.inf)
    true = scores.diagonal(dim1=-2, dim2=-1)
    loss = 0.5 * (scores.logsumexp(-1) + scores.logsumexp(-2)).sub(2 * true).mean(-1)
    penalty = torch.zeros((), device=device)
    if options.gate_l1:
        penalty = penalty + options.gate_l1 * (gates.abs().mean(-1) / gates.square().mean(-1).sqrt()).sum()
    if options.to_final:
        for z, vectors in ((z_queries, queries), (z_pages, pages)):
            penalty = penalty + 0.5 * options.to_final * (1 - (z * unit(vectors[-1])).sum(-1)).mean(-1).sum()
    return loss, penalty


def _refuse_non_finite(loss: Tensor, step: int) -> None:
    finite = loss.detach().isfinite()
    if not finite.all():
        kind, layer = (int(index) for index in (~finite).nonzero()[0])
        value = float(loss.detach()[kind, layer])
        raise ProbeError(
            f"the loss of the {KINDS[kind]} probe of layer {layer} is {value} at step {step}; lower its "
            "learning rate, raise the temperature, or check that the layer's vectors are finite"
        )


def _n_sides(sides: str, shared_layers: bool, fixed: str | None) -> int:
    if fixed is None and not shared_layers:
        raise ProbeError(
            "layer l of a query and of a page are different things in a dual encoder; probe one side against the final "
            "embedding of the other (fixed='query' or 'page')"
        )
    if fixed is not None and sides == "per-side":
        raise ProbeError("sides must be shared for a dual encoder, where only one side has a probe; got per-side")
    return 2 if sides == "per-side" else 1


def _tensor(vectors: np.ndarray, device: Any) -> Tensor:
    return torch.from_numpy(np.array(vectors, dtype=np.float32, order="C")).to(device)
