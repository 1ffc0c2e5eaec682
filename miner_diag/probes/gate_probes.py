"""MINER's own probes: a gate on a layer's neurons, and for layers that are not aligned a map behind it.

``z = p * x`` (base) and ``z = W~ (p * x)`` (normalized projection), every row of W~ at unit length, x being the layer's
pooled state: the equations of the authors' page. What that page leaves open follows their public prototype of February
2026 where it shows it (x at unit length; p starts at 1 and W~ at random; L1 on p; mined hard negatives; Adam), and is
our choice elsewhere. The options below say which is which; how ours came about stands in notebooks/LOG.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from miner_diag.files import canonical_json, sha256_bytes
from miner_diag.probes.hard_negatives import mine_hard_negatives
from miner_diag.probes.initialization import least_squares_map
from miner_diag.probes.kinds import Kind, unit
from miner_diag.probes.probe_stack import ProbeError
from miner_diag.probes.retrieval_data import RetrievalData, rows_of
from miner_diag.retrieval.ndcg import ndcg_at_k
from miner_diag.training_state import fill_optimizer, keep_state, part_of, take_state

K = 5
"""nDCG is taken at this rank."""

LARGEST_SCALE = 100.0
"""The cap of 1 / temperature, as in CLIP and in the authors' prototype."""

LEAST_STEPS = 8
"""The smallest number of steps in an epoch: with few pairs, batches are smaller instead."""

Sides = Literal["shared", "pages", "per_side"]


@dataclass(frozen=True)
class GateProbeOptions:
    """How MINER's probes are fitted."""

    schedule: Literal["own", "prototype"] = "own"
    """own: the options below. prototype: the published schedule of the authors' prototype, and no other option may be
    given: only pages are probed, against the frozen final vector of the query, with its hard negatives alone, in
    batches of 256, for 10 epochs, with an L1 weight of 1e-4 and seed 42."""
    sides: Sides = "shared"
    """shared: queries and pages pass one probe, as on the authors' page. pages: only pages do, and a query stays what
    the backbone makes of it, as in the prototype. per_side: each side has a probe of its own (ours)."""
    unit_input: bool = True
    """Bring x to unit length before the gate (prototype)."""
    unit_output: bool = True
    """Bring the output of a projection to unit length, as that of a base probe always is (ours; the prototype does not,
    so that a smaller gate lowers the score)."""
    start: Literal["random", "least_squares"] = "random"
    """Where W~ starts: at random (prototype), or at the linear map that comes closest to the final layer (ours)."""
    l1: float = 1.0
    """The weight of the mean of abs(p) in the loss. The prototype has 1e-4, under which p hardly leaves 1."""
    hard_negatives: int = 16
    """The number of hard negatives of each query (prototype)."""
    guard: float = 0.95
    """A page that scores above this share of the answer's score, under the backbone, is no hard negative (ours)."""
    in_batch: bool = True
    """Let the pages of the other queries of the batch, and their hard negatives, stand against a query, too (ours)."""
    temperature: float = 0.07
    """Where the learnable temperature starts (prototype)."""
    learning_rate: float = 1e-3
    """The learning rate of W~ and the temperature (Adam; prototype)."""
    gate_learning_rate: float = 3e-2
    """The learning rate of p (Adam). The prototype has 1e-3, with which some hundred steps cannot bring p near 0."""
    batch_size: int = 256
    """The number of query-page pairs in a step (prototype); fewer where an epoch would have less than 8 steps
    (ours)."""
    epochs: int = 10
    """The number of passes over the training pairs (prototype). Of each probe the epoch with the best validation
    nDCG@5 is kept, 0 included."""
    seed: int = 0
    """The seed of shuffling and of a random start."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("temperature", "learning_rate", "gate_learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)}")
        if self.temperature < 1 / LARGEST_SCALE:
            raise ValueError(f"temperature must be at least {1 / LARGEST_SCALE:g}, its cap; got {self.temperature}")
        if not 0 <= self.l1 < float("inf"):
            raise ValueError(f"l1 must be at least 0; got {self.l1}")
        if not 0 < self.guard <= 1:
            raise ValueError(f"guard must be above 0 and at most 1; got {self.guard}")
        for name, least in (("hard_negatives", 0), ("batch_size", 2), ("epochs", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}")
        if not self.in_batch and not self.hard_negatives:
            raise ValueError("a query needs negatives: hard_negatives must be at least 1 without in_batch")
        if self.schedule == "prototype":
            given = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
            if given != ["schedule"]:
                raise ValueError(
                    f"schedule prototype sets all other options of these probes; leave {', '.join(given[1:])} out"
                )

    def settled(self) -> GateProbeOptions:
        """Return the options that are followed: those of the prototype where it was asked for."""
        if self.schedule == "own":
            return self
        return GateProbeOptions(
            sides="pages",
            unit_output=False,
            in_batch=False,
            l1=1e-4,
            gate_learning_rate=1e-3,
            guard=1.0,
            seed=42,
        )


@dataclass(frozen=True, eq=False)
class GateProbes:
    """Fitted probes of some layers, each at its best epoch."""

    layers: tuple[int, ...]
    """[M] the layer of each probe."""
    kinds: tuple[Kind, ...]
    """[M] its kind."""
    gates: np.ndarray
    """[M, S, D] float32: p; S is 2 where queries and pages have probes of their own (query first), else 1."""
    maps: tuple[np.ndarray | None, ...]
    """[M] W~ [S, D, D] float32 with rows of unit length; None for a base probe."""
    options: GateProbeOptions
    """How they were fitted."""
    ndcg: np.ndarray
    """[M, Q] nDCG@5 of each validation query."""
    curve: np.ndarray
    """[epochs + 1, M] mean validation nDCG@5; entry 0 is before training."""
    loss: np.ndarray
    """[epochs, M] mean training loss, without the L1 term."""
    best_epoch: np.ndarray
    """[M] the epoch that was kept; 0 where training did not help."""
    temperature: np.ndarray
    """[M] the learned temperature at the last epoch."""
    n_hard: float
    """The mean number of hard negatives of a query."""

    @property
    def scores(self) -> np.ndarray:
        """[M] mean validation nDCG@5."""
        means: np.ndarray = self.ndcg.mean(axis=1)
        return means

    def salience(self, number: int) -> np.ndarray:
        """Return the salience [D] of a layer's input neurons: abs(p), the larger one where sides have their own."""
        largest: np.ndarray = np.abs(self.gates[number]).max(axis=0)
        return largest

    def number_of(self, layer: int, kind: Kind) -> int:
        """Return the number of the probe of a layer and kind.

        Raises
        ------
        ProbeError
            If it was not fitted.
        """
        for number, fitted in enumerate(zip(self.layers, self.kinds, strict=True)):
            if fitted == (layer, kind):
                return number
        raise ProbeError(f"no {kind} probe of layer {layer} was fitted")


def fit_gate_probes(
    train: RetrievalData,
    validation: RetrievalData,
    layers: Sequence[int],
    kinds: Sequence[Kind],
    options: GateProbeOptions | None = None,
    *,
    device: str | torch.device = "cpu",
    state: Path | None = None,
    progress: bool = False,
) -> GateProbes:
    """Fit one probe for each of some layers, all in one batched problem; no parameter is shared between probes.

    The loss is InfoNCE of a query against its page, hard negatives and, unless left out, the rest of the batch. Cells
    whose page (or one that looks the same) answers the query are masked.

    Parameters
    ----------
    train : RetrievalData
        What the probes are fitted to, and where hard negatives are mined.
    validation : RetrievalData
        What decides which epoch of each probe is kept.
    layers, kinds : sequence [M]
        The layer and the kind of each probe.
    options : GateProbeOptions, optional
        The defaults if not given.
    device : str
        Where to train.
    state : path, optional
        File that is written after each epoch; a fit that was stopped goes on there and ends with the same numbers.
    progress : bool
        Show a bar after two seconds.

    Raises
    ------
    ProbeError
        If there are fewer than two pairs or no more pages than hard negatives, a layer is not there, or a loss is not
        finite.
    """
    options = (options or GateProbeOptions()).settled()
    if train.fixed is not None:
        raise ProbeError(
            "MINER's probes need a backbone whose queries and pages pass the same layers; this is one half "
            "of a dual encoder"
        )
    if not len(layers) or len(layers) != len(kinds) or not set(layers) <= set(range(train.n_layers)):
        raise ProbeError(f"layers must be some of 0 … {train.n_layers - 1}, with a kind each; got {list(layers)}")
    query_rows, page_rows = train.pairs
    if len(query_rows) < 2:
        raise ProbeError(f"at least 2 training pairs are needed, one has no negatives; got {len(query_rows)}")
    hard = mine_hard_negatives(train, options.hard_negatives, options.guard)
    rng = np.random.default_rng(options.seed)
    module = _Module(train, layers, kinds, options).to(device)
    optimiser = torch.optim.Adam(module.groups(), lr=options.learning_rate)
    run = _Run(module, module.evaluate(validation))
    key = _key(train, hard, layers, kinds, options)
    run.resume(state, key, optimiser, rng)
    per_epoch = max(min(LEAST_STEPS, len(query_rows) // 2), -(-len(query_rows) // options.batch_size))
    bar = tqdm(
        total=options.epochs * per_epoch,
        initial=len(run.loss) * per_epoch,
        desc="MINER's probes",
        unit="step",
        delay=2,
        disable=not progress,
        leave=False,
    )
    with bar:
        while len(run.loss) < options.epochs:
            summed = torch.zeros(len(layers), device=device)
            batches = np.array_split(rng.permutation(len(query_rows)), per_epoch)
            for batch in batches:
                loss = module.loss(train, (query_rows[batch], page_rows[batch]), hard, options)
                _refuse_non_finite(loss, module, len(run.loss) + 1)
                optimiser.zero_grad(set_to_none=True)
                (loss.sum() + options.l1 * module.gates.abs().mean(dim=-1).sum()).backward()
                optimiser.step()
                module.cap()
                summed += loss.detach()
                bar.update()
            run.note(module.evaluate(validation), (summed / len(batches)).cpu().numpy())
            run.keep(state, key, optimiser, rng)
    return run.probes(layers, kinds, options, float((hard >= 0).sum(axis=1).mean()))


class _Module(nn.Module):
    """The probes of M layers: gates [M, S, D], maps [N, S, D, D] of the N projections, a temperature each."""

    def __init__(
        self,
        train: RetrievalData,
        layers: Sequence[int],
        kinds: Sequence[Kind],
        options: GateProbeOptions,
    ) -> None:
        super().__init__()
        width, n_sides = train.width, 2 if options.sides == "per_side" else 1
        self.layers, self.kinds, self.options = list(layers), list(kinds), options
        self.final = train.n_layers - 1
        self.gates = nn.Parameter(torch.ones(len(layers), n_sides, width))
        self.projections = [number for number, kind in enumerate(kinds) if kind != "base"]
        starts = []
        for number in self.projections:
            rng = np.random.default_rng([options.seed, layers[number]])  # whatever other probes are fitted beside it
            drawn = rng.normal(size=(n_sides, width, width)).astype(np.float32)
            if options.start == "least_squares":
                drawn = np.repeat(least_squares_map(train, layers[number], options.unit_input)[None], n_sides, axis=0)
            starts.append(torch.from_numpy(drawn))
        self.maps = nn.Parameter(unit(torch.stack(starts)) if starts else torch.zeros(0, n_sides, width, width))
        self.log_scale = nn.Parameter(torch.full((len(layers),), -float(np.log(options.temperature))))

    def groups(self) -> list[dict[str, Any]]:
        """Return parameters with learning rates; the optimiser's own where none is given."""
        return [
            {"params": [self.gates], "lr": self.options.gate_learning_rate},
            {"params": [self.maps, self.log_scale]},
        ]

    def unit_maps(self) -> Tensor:
        """Return W~ [N, S, D, D]: rows of unit length."""
        return unit(self.maps)

    def outputs(self, states: Tensor, side: int) -> Tensor:
        """Return z [M, N, D] for the states [M, N, D] of each probe's layer."""
        x = unit(states) if self.options.unit_input else states
        number = side if self.gates.shape[1] == 2 else 0
        gated = self.gates[:, number, None] * x
        if not self.projections:
            return unit(gated)
        projected = gated[self.projections] @ self.unit_maps()[:, number].mT
        base = [number for number, kind in enumerate(self.kinds) if kind == "base"]
        z = torch.empty_like(gated)
        z[base] = unit(gated[base])
        z[self.projections] = unit(projected) if self.options.unit_output else projected
        return z

    def embed(self, vectors: Any, rows: np.ndarray, side: int) -> Tensor:
        """Return z [M, n, D] of some items; a query that passes no probe is its final vector at unit length."""
        device = self.gates.device
        if side == 0 and self.options.sides == "pages":
            final = torch.from_numpy(np.array(rows_of(vectors, rows)[:, self.final], dtype=np.float32)).to(device)
            return unit(final).expand(len(self.layers), -1, -1)
        states = np.array(rows_of(vectors, rows)[:, self.layers].swapaxes(0, 1), dtype=np.float32, order="C")
        return self.outputs(torch.from_numpy(states).to(device), side)

    def loss(
        self, train: RetrievalData, rows: tuple[np.ndarray, np.ndarray], hard: np.ndarray, options: GateProbeOptions
    ) -> Tensor:
        """Return InfoNCE [M] of a batch of pairs."""
        own_hard = hard[rows[0]]
        pages, place = np.unique(np.concatenate([rows[1], own_hard[own_hard >= 0]]), return_inverse=True)
        own = place[: len(rows[1])]
        masked = train.known_matches(rows[0], pages)
        if not options.in_batch:  # only a query's own hard negatives stand against it
            stands = np.zeros(masked.shape, dtype=bool)
            lines, _ = np.nonzero(own_hard >= 0)
            stands[lines, place[len(rows[1]) :]] = True
            masked |= ~stands
        masked[np.arange(len(own)), own] = False
        device = self.gates.device
        z_queries, z_pages = self.embed(train.queries, rows[0], 0), self.embed(train.pages, pages, 1)
        scores = z_queries @ z_pages.mT * self.log_scale.exp()[:, None, None]
        scores = scores.masked_fill(torch.from_numpy(masked).to(device), -torch.inf)
        targets = torch.from_numpy(own).to(device).expand(len(self.layers), -1)
        return functional.cross_entropy(scores.transpose(1, 2), targets, reduction="none").mean(dim=1)

    def cap(self) -> None:
        """Keep 1 / temperature at most `LARGEST_SCALE`."""
        with torch.no_grad():
            self.log_scale.clamp_(max=float(np.log(LARGEST_SCALE)))

    @torch.no_grad()
    def evaluate(self, data: RetrievalData) -> np.ndarray:
        """Return nDCG@5 [M, Q] of every probe; z is compared by its direction, as any retriever's vector is."""
        z_queries, z_pages = (
            unit(self.embed(vectors, np.arange(vectors.shape[0]), side))
            for side, vectors in enumerate((data.queries, data.pages))
        )
        return np.stack(
            [ndcg_at_k((q @ p.T).cpu().numpy(), data.relevance, K) for q, p in zip(z_queries, z_pages, strict=True)]
        )


class _Run:
    """A fit as it stands after some epoch: each probe at its best epoch, and what was measured."""

    def __init__(self, module: _Module, ndcg: np.ndarray) -> None:
        self.module, self.ndcg = module, ndcg
        self.curve, self.loss = [ndcg.mean(axis=1)], list[np.ndarray]()
        self.best_epoch = np.zeros(len(ndcg), dtype=np.int64)
        self.gates = module.gates.detach().cpu().numpy().copy()
        self.maps = module.unit_maps().detach().cpu().numpy().copy()

    def note(self, ndcg: np.ndarray, loss: np.ndarray) -> None:
        """Take in an epoch."""
        means = ndcg.mean(axis=1)
        better = means > np.max(self.curve, axis=0)
        self.loss.append(loss)
        self.curve.append(means)
        self.ndcg = np.where(better[:, None], ndcg, self.ndcg)
        self.best_epoch[better] = len(self.loss)
        gates, maps = self.module.gates.detach().cpu().numpy(), self.module.unit_maps().detach().cpu().numpy()
        self.gates[better] = gates[better]
        rows = better[self.module.projections]
        self.maps[rows] = maps[rows]

    def keep(self, path: Path | None, key: str, optimiser: Any, rng: np.random.Generator) -> None:
        """Write everything that the next epoch depends on."""
        if path is None:
            return
        tensors: dict[str, Any] = {f"now.{name}": tensor for name, tensor in self.module.state_dict().items()}
        tensors |= {"gates": self.gates, "maps": self.maps, "ndcg": self.ndcg, "best_epoch": self.best_epoch}
        tensors |= {"curve": np.array(self.curve), "loss": np.array(self.loss)}
        keep_state(path, key, {"rng": rng.bit_generator.state}, tensors, optimiser)

    def resume(self, path: Path | None, key: str, optimiser: Any, rng: np.random.Generator) -> None:
        """Take up what `keep` wrote, if it did."""
        state = take_state(path, key)
        if state is None:
            return
        noted, tensors = state
        arrays = {name: tensor.numpy().copy() for name, tensor in tensors.items() if "." not in name}
        self.gates, self.maps, self.ndcg = arrays["gates"], arrays["maps"], arrays["ndcg"]
        self.best_epoch, self.curve, self.loss = arrays["best_epoch"], list(arrays["curve"]), list(arrays["loss"])
        self.module.load_state_dict(part_of(tensors, "now."))
        fill_optimizer(optimiser, tensors)
        rng.bit_generator.state = noted["rng"]

    def probes(
        self, layers: Sequence[int], kinds: Sequence[Kind], options: GateProbeOptions, n_hard: float
    ) -> GateProbes:
        """Return the probes at their best epochs."""
        maps: list[np.ndarray | None] = [None] * len(layers)
        for place, number in enumerate(self.module.projections):
            maps[number] = self.maps[place]
        return GateProbes(
            tuple(layers),
            tuple(kinds),
            self.gates,
            tuple(maps),
            options,
            self.ndcg,
            np.array(self.curve),
            np.array(self.loss).reshape(-1, len(layers)),
            self.best_epoch,
            (-self.module.log_scale.detach()).exp().cpu().numpy(),
            n_hard,
        )


def _key(
    train: RetrievalData, hard: np.ndarray, layers: Sequence[int], kinds: Sequence[Kind], options: GateProbeOptions
) -> str:
    """Return what a state must share to be of this fit; hard negatives tell other final vectors apart."""
    rows = b"".join(np.ascontiguousarray(array, dtype=np.int64).tobytes() for array in (*train.pairs, hard))
    what: Mapping[str, Any] = {
        "probes": [list(layers), list(kinds)],
        "options": asdict(options),
        "queries": list(train.queries.shape),
        "pages": list(train.pages.shape),
        "pairs": sha256_bytes(rows),
    }
    return canonical_json(what)


def _refuse_non_finite(loss: Tensor, module: _Module, epoch: int) -> None:
    finite = loss.detach().isfinite()
    if not finite.all():
        number = int((~finite).nonzero()[0])
        raise ProbeError(
            f"the loss of MINER's {module.kinds[number]} probe of layer {module.layers[number]} is "
            f"{float(loss.detach()[number])} in epoch {epoch}; lower the learning rate, raise the temperature, or "
            "check that the layer's vectors are finite"
        )
