"""The two sides of a comparison, checked and ready for either route."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from miner_diag.arrays import refuse_other_labels
from miner_diag.cka.arrays import split_layers
from miner_diag.cka.bandwidth import median_distances
from miner_diag.cka.errors import UndefinedCKAError
from miner_diag.cka.hsic import Estimator, Kernel
from miner_diag.cka.layers import Layer, as_layers
from miner_diag.cka.sums import PairSums

if TYPE_CHECKING:
    import torch

# How much larger the terms of a self-HSIC are than what is left of them, times eps, bounds the relative error. Entries
# of the Gram route carry sum_i |x_i|^2 / sqrt(sum_ij A_ij^2) (white noise in d dimensions: sqrt(d)), its sums nothing
# more; the debiased sums of the feature route sum_i |x_i|^4 / sum_ij A_ij^2 (white noise: d / n).
_LIMITS = {
    ("gram", "float32"): 3e2,
    ("features", "float32"): 3e1,
    ("gram", "float64"): 2e5,
    ("features", "float64"): 1e6,
}


@dataclass(frozen=True)
class Sides:
    """Layers to compare, and how."""

    x: tuple[Layer, ...]
    y: tuple[Layer, ...] | None
    """None: x with itself."""
    kernel: Kernel
    sigmas: tuple[float, ...]
    """RBF width of each layer of x, then of y, in the units of its scaled rows; 1 for the linear kernel."""
    dtype: torch.dtype
    """Precision of the products; sums are float64 throughout."""
    device: torch.device
    """Where products are computed."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers, x then y."""
        return (*self.x, *(self.y or ()))

    @property
    def second(self) -> tuple[Layer, ...]:
        """The layers that index the columns of the result."""
        return self.x if self.y is None else self.y

    @property
    def n(self) -> int:
        """Number of items."""
        return self.x[0].n

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Index pairs into `layers` whose sums CKA needs."""
        return needed_pairs(len(self.x), 0 if self.y is None else len(self.y))

    def operations(self, *, rows: bool) -> dict[str, float]:
        """Multiply-adds of each route that can do it; `rows`: with per-item row sums."""
        n, widths = self.n, [side.width for side in self.layers]
        half = n * (n + 1) / 2
        counts = {"gram": half * (sum(widths) + len(self.pairs)) * (1 if self.kernel == "linear" else 2)}
        if self.kernel == "linear":
            counts["features"] = float(n * sum(widths[a] * widths[b] for a, b in self.pairs) * (2 if rows else 1))
        return counts

    def traces(self) -> np.ndarray:
        """Traces of the kernel matrices: what rounding is relative to."""
        linear = self.kernel == "linear"
        return np.array([float(side.squared_norms.sum()) if linear else float(side.n) for side in self.layers])

    def too_coarse(self, sums: PairSums, route: str, estimator: Estimator) -> Layer | None:
        """First layer whose self-HSIC rounding may have spoilt on this route, at this precision."""
        own = sums.self_x if self.y is None else np.concatenate([sums.self_x, sums.self_y])
        own = np.maximum(own, 1e-40 * self.traces() ** 2)
        if route == "gram":
            terms = self.traces() / np.sqrt(own)
        elif estimator == "debiased":
            terms = np.array([float(side.squared_norms @ side.squared_norms) for side in self.layers]) / own
        else:
            terms = np.zeros(len(own))
        limit = _LIMITS[route, str(self.dtype).removeprefix("torch.")]
        return next((side for side, size in zip(self.layers, terms, strict=True) if not size < limit), None)


def prepare(
    layer_embeddings: Any,
    other: Any,
    *,
    names: Sequence[str] | None,
    other_names: Sequence[str] | None,
    kernel: Kernel,
    bandwidth: float,
    dtype: torch.dtype | None,
    device: torch.device | None,
) -> Sides:
    """Check both sides of `cka_matrix` and make them layers; `dtype` None takes float64 only for float64 input."""
    import torch

    refuse_other_labels({"layer_embeddings": layer_embeddings, "other": other})
    split_x = split_layers(layer_embeddings, "layer_embeddings")
    split_y = None if other is None else split_layers(other, "other")
    if split_y is None and other_names is not None:
        raise ValueError("other_names needs other: there is no second side to name")
    if dtype is None:
        wide = any(side.dtype == torch.float64 for side in (*split_x, *(split_y or ())))
        dtype = torch.float64 if wide else torch.float32
    x = as_layers(split_x, names, dtype=dtype)
    y = None
    if split_y is not None:
        y = as_layers(
            split_y, other_names or [f"other {i}" for i in range(len(split_y))], dtype=dtype, argument="other"
        )
        if x[0].n != y[0].n:
            raise ValueError(
                f"rows must pair item by item: {x[0].name} has {x[0].n} rows, {y[0].name} has {y[0].n}; "
                "bring both sides to the same items in the same order"
            )
    layers = [*x, *(y or ())]
    sigmas = median_distances(layers, bandwidth) if kernel == "rbf" else [1.0] * len(layers)
    device = device or layers[0].values.device
    return Sides(tuple(x), None if y is None else tuple(y), kernel, tuple(sigmas), dtype, device)


def needed_pairs(n_x: int, n_y: int) -> list[tuple[int, int]]:
    """Index pairs into x then y whose sums CKA needs: within one side all, between two sides cross and own."""
    if not n_y:
        return [(a, b) for a in range(n_x) for b in range(a, n_x)]
    return [(a, a) for a in range(n_x + n_y)] + [(a, n_x + b) for a in range(n_x) for b in range(n_y)]


def zero_hsic(name: str, n: int, d: int, estimator: Estimator, advice: str = "") -> UndefinedCKAError:
    """Say that a layer's self-HSIC is zero and what that means."""
    return UndefinedCKAError(
        f"{name} (n={n}, d={d}) has a {estimator} self-HSIC of zero to within rounding: all items are equally far from "
        "each other, or one item is so far off that the rest drowns, so CKA is undefined; look at the row lengths, or "
        f"use more items{advice}"
    )
