"""Controls: what the stage finds where nothing can be found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from miner_diag.probes.kinds import KINDS, Kind
from miner_diag.probes.probe_stack import ProbeStack
from miner_diag.probes.retrieval_data import RetrievalData
from miner_diag.probes.select import FusedScores, SelectionRule, select
from miner_diag.probes.train import ProbeTrainOptions, evaluate_probes, fit_probes
from miner_diag.retrieval.ndcg import chance_ndcg
from miner_diag.stats import Interval, bootstrap_means

UNALIGNED_EPOCHS, UNALIGNED_RATE = 5, 10.0
"""Passes, at most, of the fits from an unaligned start, and how many times faster they go: they have far to go."""


@dataclass(frozen=True)
class Control:
    """One number that should be near chance, or that sets the others in proportion."""

    name: str
    """The name of the control."""
    kind: Kind
    """The kind of probe."""
    layer: int
    """The hidden state that the probe reads."""
    ndcg: Interval
    """nDCG@5 over validation queries."""
    over_start: Interval | None = None
    """What training added to the same probe before training; None where that is not compared."""


def shuffled_pairs(
    train: RetrievalData,
    validation: RetrievalData,
    options: ProbeTrainOptions,
    rng: np.random.Generator,
    *,
    seed: int = 0,
    clusters: tuple[str, ...] | None = None,
    confidence: float = 0.95,
    shared_layers: bool = True,
    device: Any = "cpu",
) -> list[Control]:
    """Fit probes to pairs that don't belong together, for all epochs allowed, and evaluate the last epoch.

    ``shuffled_pairs``: evaluated on validation pairs that are broken too. Nothing is left to find, so anything above
    chance would be leakage.

    ``start`` and ``shuffled_training``: evaluated on the true validation pairs, before and after training. Training
    starts from what the backbone knows (a gate of 1 is the raw layer, least squares leads to the final layer), so it
    need not end at chance. What it adds to its start it owes to no pair: spreading items out and the pull to the final
    layer.

    ``unaligned_true`` and ``unaligned_shuffled``: projections from a start that knows nothing, a random rotation of its
    own for each side and no pull to the final layer, fitted to true and to broken pairs and evaluated on true ones.
    Broken pairs must leave them at chance; what true pairs make of them shows that they could have left it. A base
    probe has no such start.

    Parameters
    ----------
    train, validation : RetrievalData
        The two splits.
    options : ProbeTrainOptions
        How probes are fitted.
    rng : Generator
        Generator for breaking pairs and for bootstrap.
    seed : int
        Seed of the trainings.
    clusters : tuple [Q] of str, optional
        Documents of the validation queries; if given, intervals are over documents.
    confidence : float
        Nominal coverage of the intervals.
    shared_layers, device
        As in `fit_probes`.
    """
    broken_train, broken_validation = train.shuffled(rng), validation.shuffled(rng)
    endless = replace(options, patience=max(1, options.epochs))
    few = min(UNALIGNED_EPOCHS, options.epochs)
    ignorant = replace(
        endless.with_start("orthogonal"),
        sides="per-side" if train.fixed is None else "shared",
        to_final=0.0,
        epochs=few,
        learning_rate=UNALIGNED_RATE * options.learning_rate,
    )
    settings: dict[str, Any] = {"seed": seed, "shared_layers": shared_layers, "device": device}
    over: dict[str, Any] = {"clusters": clusters, "confidence": confidence}
    before = fit_probes(train, validation, replace(options, epochs=0), **settings).ndcg
    broken = fit_probes(broken_train, broken_validation, endless, **settings).last
    controls = _controls("shuffled_pairs", _evaluate(broken, broken_validation), rng, **over)
    controls += _controls("start", before, rng, **over)
    controls += _controls("shuffled_training", _evaluate(broken, validation), rng, before, **over)
    for name, pairs in {"unaligned_true": train, "unaligned_shuffled": broken_train}.items():
        last = fit_probes(pairs, validation, ignorant, **settings).last
        controls += _controls(name, _evaluate(last, validation), rng, **over)[validation.n_layers :]
    return controls


def _evaluate(stack: ProbeStack, data: RetrievalData) -> np.ndarray:
    return evaluate_probes(torch.from_numpy(stack.gates), torch.from_numpy(stack.weights), data)


def _controls(
    name: str, ndcg: np.ndarray, rng: np.random.Generator, start: np.ndarray | None = None, **over: Any
) -> list[Control]:
    """Return base probes of all layers, then projections, of nDCG@5 [2, L, Q] and of what it is above `start`."""
    n_kinds, n_layers, n_queries = ndcg.shape
    means = bootstrap_means(ndcg.reshape(-1, n_queries).T, rng, **over)
    added: list[Interval | None] = [None] * len(means)
    if start is not None:
        added[:] = bootstrap_means((ndcg - start).reshape(-1, n_queries).T, rng, **over)
    probes = [(kind, layer) for kind in KINDS[:n_kinds] for layer in range(n_layers)]
    return [
        Control(name, kind, layer, mean, gain) for (kind, layer), mean, gain in zip(probes, means, added, strict=True)
    ]


@dataclass(frozen=True)
class RandomSelection:
    """What the selection rule makes of labels without meaning."""

    n_draws: int
    """The number of times that labels were dealt out anew."""
    frequency: tuple[float, ...]
    """[L] the share of draws that keep the layer."""
    mean_gain: float
    """The mean nDCG@5 that the rule believes to gain over the final layer; all of it is luck."""


def random_label_selection(
    fused: FusedScores, rule: SelectionRule, rng: np.random.Generator, n_draws: int = 20
) -> RandomSelection:
    """Select layers when pages answer random queries."""
    final, counts, gains = fused.n_layers - 1, np.zeros(fused.n_layers), []
    for _ in range(n_draws):
        order = rng.permutation(fused.relevance.n_pages)
        dealt = FusedScores(
            fused.scores, replace(fused.relevance, page=order[fused.relevance.page]), [str(n) for n in fused.labels]
        )
        layers = select(dealt, rule)
        counts[layers] += 1
        gains.append(dealt.ndcg(frozenset(layers)).mean() - dealt.ndcg(frozenset([final])).mean())
    return RandomSelection(n_draws, tuple(float(share) for share in counts / n_draws), float(np.mean(gains)))


def chance(data: RetrievalData) -> float:
    """Return nDCG@5 of a random order."""
    relevance = data.relevance
    counts = np.bincount(relevance.query[relevance.grade > 0], minlength=relevance.n_queries)
    ranked = relevance.n_ranked.tolist()
    return float(np.mean([chance_ndcg(n, relevant, 5) for n, relevant in zip(ranked, counts.tolist(), strict=True)]))
