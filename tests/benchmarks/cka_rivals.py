"""Other people's CKA behind one call: two sides in, one number out."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from miner_diag.cka import StreamingCKA, cka_matrix, linear_cka

Call = Callable[[Any, Any, int], float]
"""Sides `[N, D]`, `[N, D']` and rows per batch to CKA."""


@dataclass(frozen=True)
class Implementation:
    """One way to compute CKA."""

    name: str
    package: str
    """Distribution, as in its registry."""
    module: str
    """What is imported."""
    call: Call
    ours: bool = False

    def version(self) -> tuple[str | None, str]:
        """Installed version and nothing, or None and why it does not import."""
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                importlib.import_module(self.module)
        except ImportError as error:
            return None, str(error)
        try:
            return importlib.metadata.version(self.package), ""
        except importlib.metadata.PackageNotFoundError:
            return "unknown", ""


def _tensor(values: Any) -> torch.Tensor:
    return values if isinstance(values, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(values))


class _TwoLayers(nn.Module):
    """A model that passes stored features through two named layers, so that packages that hook models can see them."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, *, as_tokens: bool = False) -> None:
        super().__init__()
        self.features = (x, y)
        self.as_tokens = as_tokens
        self.a, self.b = nn.Identity(), nn.Identity()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        x, y = (side[items][None] if self.as_tokens else side[items] for side in self.features)
        self.a(x)
        return self.b(y)


def _model(x: Any, y: Any, *, as_tokens: bool = False) -> _TwoLayers:
    x, y = _tensor(x), _tensor(y)
    if len(x) != len(y):
        raise ValueError("a model cannot give rows that do not match")
    return _TwoLayers(x, y, as_tokens=as_tokens)


def _loader(n: int, batch: int, *, labelled: bool) -> torch.utils.data.DataLoader:
    items = torch.arange(n)
    data = torch.utils.data.TensorDataset(items, items) if labelled else items
    return torch.utils.data.DataLoader(data, batch_size=batch)


def _stream(x: Any, y: Any, batch: int) -> float:
    if len(x) != len(y):
        return float(StreamingCKA().update(x, y).compute().values[0, 0])
    stream = StreamingCKA()
    for start in range(0, len(x), batch):
        stream.update(x[start : start + batch], y[start : start + batch])
    return float(stream.compute().values[0, 0])


def _ours(route: str) -> Call:
    def call(x: Any, y: Any, batch: int) -> float:
        return float(cka_matrix([x], [y], route=route, intervals=False, null=False).values[0, 0])

    return call


def _ckatorch(**options: Any) -> Call:
    def call(x: Any, y: Any, batch: int) -> float:
        from ckatorch import cka_base

        return float(cka_base(_tensor(x), _tensor(y), **options))

    return call


def _ckatorch_object(x: Any, y: Any, batch: int) -> float:
    # It compares the tokens of each item; here the rows of a batch are the tokens of one item.
    from ckatorch import CKA

    model = _model(x, y, as_tokens=True)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.arange(len(x))), batch)
    return float(CKA(model, model, layers=["a", "b"], device="cpu")(loader, epochs=1)[0, 1])


def _torch_cka(x: Any, y: Any, batch: int) -> float:
    from torch_cka import CKA

    model = _model(x, y)
    cka = CKA(model, model, model1_name="x", model2_name="y", model1_layers=["a"], model2_layers=["b"])
    loader = _loader(len(x), batch, labelled=True)
    cka.compare(loader, loader)
    return float(cka.export()["CKA"][0, 0])


def _pytorch_cka_features(x: Any, y: Any, batch: int) -> float:
    from cka import cka_from_features

    return float(torch.as_tensor(cka_from_features(_tensor(x), _tensor(y))).squeeze())


def _pytorch_cka(x: Any, y: Any, batch: int) -> float:
    from cka import compute_cka

    model = _model(x, y)
    loader = _loader(len(x), batch, labelled=False)
    result = compute_cka(model, model, [loader], layers=["a"], model2_layers=["b"], device="cpu")
    return float(torch.as_tensor(result[0]).squeeze())


def _cka_pytorch(x: Any, y: Any, batch: int) -> float:
    from cka_pytorch.cka import CKACalculator

    model = _model(x, y)
    calculator = CKACalculator(model, model, ["a"], ["b"], verbose=False)
    matrix = calculator.calculate_cka_matrix(_loader(len(x), batch, labelled=True), num_epochs=1)
    return float(matrix.squeeze())


def _repsim(x: Any, y: Any, batch: int) -> float:
    import repsim

    sides = [_tensor(side).double().numpy() for side in (x, y)]
    return float(repsim.cka(sides, kernel_type="linear", estimator="song")[0, 1])


def _anatome(x: Any, y: Any, batch: int) -> float:
    from anatome.distance import linear_cka_distance

    return 1 - float(linear_cka_distance(_tensor(x), _tensor(y), reduce_bias=True))


IMPLEMENTATIONS: tuple[Implementation, ...] = (
    Implementation("linear_cka", "miner-diag", "miner_diag.cka", lambda x, y, batch: linear_cka(x, y), ours=True),
    Implementation("cka_matrix gram", "miner-diag", "miner_diag.cka", _ours("gram"), ours=True),
    Implementation("cka_matrix features", "miner-diag", "miner_diag.cka", _ours("features"), ours=True),
    Implementation("StreamingCKA", "miner-diag", "miner_diag.cka", _stream, ours=True),
    Implementation("ckatorch cka_base", "ckatorch", "ckatorch", _ckatorch()),
    Implementation("ckatorch cka_base unbiased", "ckatorch", "ckatorch", _ckatorch(unbiased=True)),
    Implementation("ckatorch unbiased hsic", "ckatorch", "ckatorch", _ckatorch(unbiased=True, method="hsic")),
    Implementation("ckatorch CKA", "ckatorch", "ckatorch", _ckatorch_object),
    Implementation("pytorch-cka features", "pytorch-cka", "cka", _pytorch_cka_features),
    Implementation("pytorch-cka batches", "pytorch-cka", "cka", _pytorch_cka),
    Implementation("cka-pytorch", "cka-pytorch", "cka_pytorch", _cka_pytorch),
    Implementation("torch_cka", "torch_cka", "torch_cka", _torch_cka),
    Implementation("repsim song", "repsim", "repsim", _repsim),
    Implementation("anatome debiased", "anatome", "anatome", _anatome),
)
