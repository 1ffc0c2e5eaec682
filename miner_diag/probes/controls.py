"""Controls: what the stage finds where nothing can be found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from miner_diag.probes.data import Judged
from miner_diag.probes.kinds import KINDS
from miner_diag.probes.select import FusedScores, SelectionRule, select
from miner_diag.probes.train import TrainOptions, fit_probes, judge
from miner_diag.retrieval.ndcg import chance_ndcg
from miner_diag.stats import Interval, bootstrap_means


@dataclass(frozen=True)
class Control:
    """One number that should be near chance, or that sets the others in proportion."""

    name: str
    """Which control."""
    kind: str
    """Kind of the probe."""
    layer: int
    """Which hidden state."""
    ndcg: Interval
    """NDCG@5 over validation queries."""


def shuffled_pairs(
    train: Judged,
    validation: Judged,
    options: TrainOptions,
    rng: np.random.Generator,
    *,
    clusters: tuple[str, ...] | None = None,
    shared_layers: bool = True,
    device: Any = "cpu",
) -> list[Control]:
    """Fit probes to pairs that don't belong together, for all epochs allowed, and judge the last epoch twice.

    ``shuffled_pairs``: on validation pairs that are broken too. Nothing is left to find, so anything above chance would
    be leakage. ``shuffled_training``: on the true validation pairs. Training starts from the backbone's own geometry,
    so this falls to chance only as far as learning nonsense destroys that.
    """
    broken_train, broken_validation = train.shuffled(rng), validation.shuffled(rng)
    endless = replace(options, patience=max(1, options.epochs))
    last = fit_probes(broken_train, broken_validation, endless, shared_layers=shared_layers, device=device).last
    gates, weights = torch.from_numpy(last.gates), torch.from_numpy(last.weights)
    judged = {"shuffled_pairs": broken_validation, "shuffled_training": validation}
    controls = []
    for name, pairs in judged.items():
        values = judge(gates, weights, pairs)
        for number, interval in enumerate(
            bootstrap_means(values.reshape(-1, values.shape[-1]).T, rng, clusters=clusters)
        ):
            kind, layer = divmod(number, train.n_layers)
            controls.append(Control(name, KINDS[kind], layer, interval))
    return controls


@dataclass(frozen=True)
class RandomSelection:
    """What the selection rule makes of labels without meaning."""

    n_draws: int
    """How often labels were dealt out anew."""
    frequency: tuple[float, ...]
    """[L] share of draws that keep the layer."""
    mean_gain: float
    """Mean nDCG@5 that the rule believes to gain over the final layer; all of it is luck."""


def random_label_selection(
    fused: FusedScores, rule: SelectionRule, rng: np.random.Generator, n_draws: int = 20
) -> RandomSelection:
    """Select layers when pages answer random queries."""
    final, counts, gains = fused.n_layers - 1, np.zeros(fused.n_layers), []
    for _ in range(n_draws):
        order = rng.permutation(fused.relevance.n_pages)
        dealt = FusedScores(fused.scores, replace(fused.relevance, page=order[fused.relevance.page]))
        layers = select(dealt, rule)
        counts[layers] += 1
        gains.append(dealt.ndcg(frozenset(layers)).mean() - dealt.ndcg(frozenset([final])).mean())
    return RandomSelection(n_draws, tuple(float(share) for share in counts / n_draws), float(np.mean(gains)))


def chance(judged: Judged) -> float:
    """Return nDCG@5 of a random order."""
    counts = np.bincount(judged.relevance.query[judged.relevance.grade > 0], minlength=judged.relevance.n_queries)
    return float(np.mean([chance_ndcg(judged.relevance.n_pages, int(n), 5) for n in counts]))
