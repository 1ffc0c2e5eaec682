"""Fitted probes of all layers and both kinds: frozen, applied, saved, and refused for another backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from miner_diag.arrays import real_array
from miner_diag.probes.kinds import KINDS, Kind, base_probe, projection_probe
from miner_diag.probes.retrieval_data import Side
from miner_diag.sealed import DamagedError, UnsealedError, read_tensors, write_tensors

FORMAT = 2
"""Raised when the layout of the file changes. Format 1 had no hash."""


class ProbeError(ValueError):
    """Probes that cannot be fitted, read or used as asked."""


@dataclass(frozen=True, eq=False)
class Probe:
    """One fitted probe: of one layer, one kind."""

    layer: int
    """The hidden state that the probe reads; 0 is the embedding output."""
    kind: Kind
    """"base" or "normalized_projection"."""
    weight: np.ndarray
    """[S, D] gates or [S, D, D] projections, float32; S is 1 if queries and pages share it, else query then page."""

    def apply(self, vectors: np.ndarray, side: Side = "page") -> np.ndarray:
        """Return z [N, D] float32, of length one, for pooled states `vectors` [N, D] of this layer.

        Raises
        ------
        ValueError
            If the width is another, the side is unknown, or a state holds NaN or Inf.
        """
        vectors = real_array(vectors, "vectors")
        if vectors.ndim != 2 or vectors.shape[1] != self.weight.shape[-1]:
            raise ValueError(f"vectors must be [N, {self.weight.shape[-1]}]; got {list(vectors.shape)}")
        weight = torch.from_numpy(self.weight[_side(side, len(self.weight))])
        rows = torch.from_numpy(np.array(vectors, dtype=np.float32))
        if not (usable := rows.isfinite().all(1)).all():
            raise ValueError(f"vectors must be finite in float32; row {int(usable.int().argmin())} holds NaN or Inf")
        return (base_probe if self.kind == "base" else projection_probe)(weight, rows).numpy()


@dataclass(frozen=True, eq=False)
class ProbeStack:
    """Both kinds of probe for every layer of one backbone."""

    gates: np.ndarray
    """[L, S, D] float32 gates of the base probes."""
    weights: np.ndarray
    """[L, S, D, D] float32 matrices of the normalized projections; of low rank if they were fitted so."""
    backbone: Mapping[str, str]
    """The key of the backbone whose layers the probes read."""

    def probe(self, layer: int, kind: Kind) -> Probe:
        """Return one probe.

        Raises
        ------
        ValueError
            If there is no such layer or kind.
        """
        if not 0 <= layer < len(self.gates):
            raise ValueError(f"layer must be 0 … {len(self.gates) - 1}; got {layer}")
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
        return Probe(layer, kind, (self.gates if kind == "base" else self.weights)[layer])

    def save(self, path: Path | str) -> None:
        """Write the probes as safetensors, with the backbone's key and a hash over all in the header."""
        tensors = {name: getattr(self, name) for name in ("gates", "weights")}
        write_tensors(path, tensors, {"format": FORMAT, "backbone": dict(self.backbone)})

    @classmethod
    def load(cls, path: Path | str, backbone: Mapping[str, str] | None = None) -> ProbeStack:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path
            The file.
        backbone : mapping, optional
            Key of the backbone they are wanted for, as ``Backbone.key()`` gives it; not checked if not given.

        Raises
        ------
        ProbeError
            If the file holds no probes, is damaged or of another format, or holds probes of another backbone; the
            fields that differ are named.
        """
        path = Path(path)
        if not path.exists():
            raise ProbeError(f"{path} is not there; fit probes with python -m miner_diag.probes")
        try:
            noted, tensors = read_tensors(path)
            gates, weights, key = tensors["gates"], tensors["weights"], noted["backbone"]
        except UnsealedError as error:
            raise ProbeError(f"{path} holds no probes that this version reads: {error}; fit again") from error
        except DamagedError as error:
            raise ProbeError(f"{path} is damaged: {error}; fit again") from error
        except KeyError as error:
            raise ProbeError(f"{path} holds no probes of this package: {error} is missing; fit again") from error
        if noted.get("format") != FORMAT:
            raise ProbeError(f"{path} has probe format {noted.get('format')}, this version reads {FORMAT}; fit again")
        if backbone is not None:
            different = differences(key, backbone)
            if different:
                raise ProbeError(
                    f"{path} holds probes of another backbone. Fields that differ: {different}. Fit them again"
                )
        return cls(gates, weights, key)


def differences(key: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """Return the fields in which two backbones' keys differ, with both values; "" where they agree."""
    names = sorted(set(key) | set(wanted))
    different = [name for name in names if key.get(name) != wanted.get(name)]
    return "; ".join(f"{name}: {key.get(name)!r} there, {wanted.get(name)!r} asked for" for name in different)


def _side(side: Side, n_sides: int) -> int:
    if side not in ("query", "page"):
        raise ValueError(f"side must be 'query' or 'page'; got {side!r}")
    return 0 if n_sides == 1 or side == "query" else 1
