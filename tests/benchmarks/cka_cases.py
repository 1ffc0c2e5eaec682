"""Planted cases whose CKA is known by arithmetic, for anybody's implementation.

Columns of a Hadamard matrix (entries +-1, orthogonal, each but the first of mean 0) are the hidden directions. A side
takes some of them with weights, so that ``|X'Y|_F^2 = n^2 sum_shared w^2 v^2`` and every row has the same squared
length ``sum w^2``. Song's debiased sum, divided by n^2, is then

    S(w, v) = sum_shared w^2 v^2 - (sum w^2) (sum v^2) / (n - 1),

and CKA = S(w, v) / sqrt(S(w, w) S(v, v)), without estimation, without rounding. Rotation, translation, isotropic scale
and padding with empty dimensions do not change it; that is what the cases do to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import hadamard
from scipy.stats import ortho_group

ERROR = "error"
"""The right answer where CKA does not exist."""


@dataclass(frozen=True)
class Case:
    """Two sides and what is true of them."""

    name: str
    x: Any
    """`[N, D]`, array or tensor."""
    y: Any
    truth: float | str
    """Debiased CKA, or `ERROR`."""
    tolerance: float = 1e-5
    """How far a right value may be off: 1e-5 where the input is float32 or narrower, or the sampling spread."""
    batch: int = 64
    """Rows per batch, for implementations that take batches."""


def true_cka(weights_x: dict[int, float], weights_y: dict[int, float], n: int) -> float:
    """Debiased CKA of two sides made of weighted Hadamard columns."""

    def pair_sum(w: dict[int, float], v: dict[int, float]) -> float:
        shared = sum(w[c] ** 2 * v[c] ** 2 for c in w.keys() & v.keys())
        return shared - sum(a**2 for a in w.values()) * sum(b**2 for b in v.values()) / (n - 1)

    return pair_sum(weights_x, weights_y) / np.sqrt(pair_sum(weights_x, weights_x) * pair_sum(weights_y, weights_y))


def side(weights: dict[int, float], n: int, order: np.ndarray) -> np.ndarray:
    """Weighted Hadamard columns as rows in a given order `[N, D]`."""
    return (hadamard(n)[:, list(weights)] * np.array(list(weights.values())))[order].astype(np.float64)


def cases() -> Iterator[Case]:
    """All cases, float32 unless the name says otherwise."""
    rng = np.random.default_rng(0)
    n = 512
    order = rng.permutation(n)
    w = {c: 1.0 + 0.1 * c for c in range(1, 25)}
    v = {c: 2.0 - 0.1 * (c - 13) for c in range(13, 29)}
    truth = true_cka(w, v, n)
    x, y = side(w, n, order), side(v, n, order)
    turned = x @ ortho_group.rvs(24, random_state=0)
    single = x.astype(np.float32), y.astype(np.float32)
    yield Case("plain", *single, truth)
    yield Case("float64", x, y, truth, 1e-9)
    yield Case("same up to rotation, scale and shift", single[0], (3 * turned + 1).astype(np.float32), 1.0)
    stretched = {**w, 20: 10 * w[20]}
    yield Case(
        "one dimension stretched", side(stretched, n, order).astype(np.float32), single[1], true_cka(stretched, v, n)
    )
    independent = (rng.normal(size=(64, 512)).astype(np.float32) for _ in range(2))
    yield Case("independent, n = 64, d = 512", *independent, 0.0, 5 * np.sqrt(2 / (64 * 61)), batch=64)
    for offset in (1e3, 1e4):
        moved = x.copy()
        moved[:, 0] += offset
        yield Case(f"one feature with mean {offset:.0f}", moved.astype(np.float32), single[1], truth)
    cone = np.concatenate([x, np.full((n, 1), np.sqrt(99 * sum(a**2 for a in w.values())))], 1)
    cone /= np.linalg.norm(cone, axis=1, keepdims=True)
    other = y / np.linalg.norm(y, axis=1, keepdims=True)
    yield Case("unit rows, mean cosine 0.99", cone.astype(np.float32), other.astype(np.float32), truth)
    yield from _shapes(rng, w, v)
    yield Case("float16", x.astype(np.float16), single[1], _of_rounded(x.astype(np.float16), y), 2e-5)
    half = torch.from_numpy(x).bfloat16()
    yield Case("bfloat16", half, torch.from_numpy(single[1]), _of_rounded(half.double().numpy(), y), 2e-5)
    yield Case("scale 1e30", (x * 1e30).astype(np.float32), single[1], truth)
    yield Case("scale 1e-30", (x * 1e-30).astype(np.float32), single[1], truth)
    twice = np.repeat(single[0], 2, axis=0), np.repeat(single[1], 2, axis=0)
    yield Case("every row twice", *twice, true_cka(w, v, 2 * n))
    yield Case("last batch of one row", *single, truth, batch=73)  # 512 = 7 * 73 + 1
    yield Case("last batch of two rows", *single, truth, batch=85)  # 512 = 6 * 85 + 2
    yield Case("not contiguous", np.asfortranarray(single[0])[::1], single[1].copy()[:, ::-1], truth)
    yield Case("constant side", np.ones((n, 5), np.float32), single[1], ERROR)
    yield Case("constant 0.1, n = 1000", np.full((1000, 3), 0.1, np.float32), twice[1][:1000], ERROR)
    broken = single[0].copy()
    broken[17, 3] = np.nan
    yield Case("one NaN", broken, single[1], ERROR)
    yield Case("n = 3", single[0][:3], single[1][:3], ERROR)
    yield Case("rows do not match", single[0], single[1][:-1], ERROR)


def _shapes(rng: np.random.Generator, w: dict[int, float], v: dict[int, float]) -> Iterator[Case]:
    """Few and many items against dimensions."""
    few = 64
    order = rng.permutation(few)
    wide = side(w, few, order) @ ortho_group.rvs(512, random_state=1)[:24]
    yield Case("n = 64, d = 512", wide.astype(np.float32), side(v, few, order).astype(np.float32), true_cka(w, v, few))
    many = 4096
    order = rng.permutation(many)
    thin_w, thin_v = {1: 1.0, 2: 2.0, 3: 1.5}, {2: 1.0, 5: 2.0}
    thin = side(thin_w, many, order).astype(np.float32), side(thin_v, many, order).astype(np.float32)
    yield Case("n = 4096, d = 3", *thin, true_cka(thin_w, thin_v, many))
    small_w, small_v = {1: 1.0, 2: 2.0}, {1: 1.0, 3: 1.0}
    small = side(small_w, 4, np.arange(4)).astype(np.float32), side(small_v, 4, np.arange(4)).astype(np.float32)
    yield Case("n = 4", *small, true_cka(small_w, small_v, 4), batch=4)


def _of_rounded(x: np.ndarray, y: np.ndarray) -> float:
    """Debiased CKA of rows as they are after rounding to a narrow type, by Song's formula in long double."""
    x, y = (np.asarray(a, np.longdouble) for a in (x, y))
    n = len(x)
    x, y = x - x.mean(0), y - y.mean(0)
    k, l = (x**2).sum(1), (y**2).sum(1)  # noqa: E741

    def pair_sum(a: np.ndarray, b: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.longdouble:
        return ((a.T @ b) ** 2).sum() - n / (n - 2) * (p @ q) + p.sum() * q.sum() / ((n - 1) * (n - 2))

    return float(pair_sum(x, y, k, l) / np.sqrt(pair_sum(x, x, k, k) * pair_sum(y, y, l, l)))
