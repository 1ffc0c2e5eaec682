"""The two sides of a comparison, checked and ready for either route."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from miner_diag.cka.bandwidth import median_distances
from miner_diag.cka.errors import UndefinedCKAError
from miner_diag.cka.hsic import Estimator, Kernel
from miner_diag.cka.layers import Layer, as_layers, split_layers
from miner_diag.cka.sums import PairSums

if TYPE_CHECKING:
    import torch

# Rounding changes a self-HSIC by at most about 2 eps times this quotient, sum_i |x_i|^2 / sqrt(sum_ij A_ij^2). White
# noise in d dimensions has sqrt(d).
_QUOTIENT_FLOAT32 = 1e3
_QUOTIENT_FLOAT64 = 1e9


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
    """Of the products; sums are float64 throughout."""
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

    def float32_would_spoil(self, sums: PairSums) -> bool:
        """Whether some self-HSIC is so small beside its kernel that float32 products are too coarse."""
        return bool((self._quotients(sums) > _QUOTIENT_FLOAT32).any())

    def require_spread(self, sums: PairSums, estimator: Estimator) -> None:
        """Raise if some self-HSIC is zero to within float64 rounding."""
        for side, quotient in zip(self.layers, self._quotients(sums), strict=True):
            if not quotient < _QUOTIENT_FLOAT64:
                raise UndefinedCKAError(zero_hsic(side.name, side.n, side.width, estimator))

    def _quotients(self, sums: PairSums) -> np.ndarray:
        own = sums.self_x if self.y is None else np.concatenate([sums.self_x, sums.self_y])
        return self.traces() / np.sqrt(np.maximum(own, np.finfo(float).tiny))


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
    place = device or layers[0].values.device
    return Sides(tuple(x), None if y is None else tuple(y), kernel, tuple(sigmas), dtype, place)


def needed_pairs(n_x: int, n_y: int) -> list[tuple[int, int]]:
    """Index pairs into x then y whose sums CKA needs: within one side all, between two sides cross and own."""
    if not n_y:
        return [(a, b) for a in range(n_x) for b in range(a, n_x)]
    return [(a, a) for a in range(n_x + n_y)] + [(a, n_x + b) for a in range(n_x) for b in range(n_y)]


def zero_hsic(name: str, n: int, d: int, estimator: Estimator) -> str:
    """Say that a layer's self-HSIC is zero and what that means."""
    return (
        f"{name} (n={n}, d={d}) has a {estimator} self-HSIC of zero to within rounding: all items are equally far from "
        "each other, or one item is so far off that the rest drowns, so CKA is undefined; look at the row lengths, or "
        "use more items"
    )
