"""What every form of the fusion shares: layers with kinds and masks, and its two files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors
from torch import Tensor

from miner_diag.files import sha256_bytes, write_atomic
from miner_diag.fusion.errors import FusionError
from miner_diag.fusion.system import System
from miner_diag.probes.kinds import Kind
from miner_diag.probes.probe_stack import differences
from miner_diag.sealed import SEAL, DamagedError, check_seal, sealed

logger = logging.getLogger(__name__)

FORMAT = 2
"""Raised when the layout of the files changes. Format 1, which is still read, has no hash of its facts."""
TENSORS, FACTS = "fusion.safetensors", "fusion.json"

Form = TypeVar("Form", bound="FusionForm")


class FusionForm(System):
    """A fusion of layers, of either form; :class:`Fusion` is ours, :class:`MinerFusion` the authors'."""

    form: ClassVar[str]
    """What files and tables call the form."""
    kinds: tuple[Kind, ...]
    """[K] the kind of each layer's probe."""
    masks: Tensor
    """[K, D] float, 1 where a neuron is kept."""
    width: int

    def weights(self) -> np.ndarray:
        """Return one number [K] that says how much each layer weighs."""
        raise NotImplementedError

    def save(self, folder: Path | str, backbone: Mapping[str, str], **facts: Any) -> None:
        """Write ``fusion.safetensors`` and ``fusion.json`` (backbone, layers, shares, weights and `facts`)."""
        folder = Path(folder)
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in self.state_dict().items()}
        arrays["masks"] = arrays["masks"].astype(bool)
        content = save_safetensors({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        held = {
            "format": FORMAT,
            "sha256": sha256_bytes(content),
            "backbone": dict(backbone),
            "width": self.width,
            "form": self.form,
            **self.facts(),
            "kept_shares": [float(share) for share in arrays["masks"].mean(axis=1)],
            "layer_weights": [float(weight) for weight in self.weights()],
            **facts,
        }
        described = json.dumps(sealed(held), indent=2) + "\n"
        write_atomic(folder / TENSORS, content)
        write_atomic(folder / FACTS, described)

    @classmethod
    def load(cls: type[Form], folder: Path | str, backbone: Mapping[str, str] | None = None) -> Form:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        folder : path
            The folder of the two files.
        backbone : mapping, optional
            Key of the backbone that the fusion is wanted for, as ``Backbone.key()`` gives it; it is not checked if it
            is not given.

        Raises
        ------
        FusionError
            If a file is missing or damaged, or the fusion is of another backbone; the fields that differ are named.
        """
        folder = Path(folder)
        for name in (FACTS, TENSORS):
            if not (folder / name).exists():
                raise FusionError(f"{folder / name} is not there; fit a fusion with python -m miner_diag.fusion")
        content = (folder / TENSORS).read_bytes()
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            key, digest = facts["backbone"], facts["sha256"]
            facts["layers"], facts["n_layers"], facts["kinds"]
        except (ValueError, KeyError, TypeError) as error:
            raise FusionError(f"{folder / FACTS} is damaged: {error}; fit again") from error
        if facts.get("format") not in (1, FORMAT):
            raise FusionError(
                f"{folder} has fusion format {facts.get('format')}, this version reads 1 and {FORMAT}; fit again"
            )
        if facts["format"] == 1 and SEAL not in facts:
            logger.warning(
                "%s has fusion format 1, without a hash of its facts, so a change in them would not be noticed; "
                "fit again to be sure",
                folder / FACTS,
            )
        else:
            try:
                check_seal(facts)
            except DamagedError:
                raise FusionError(f"{folder / FACTS} was changed after it was written; fit again") from None
        if digest != sha256_bytes(content):
            raise FusionError(f"{folder / TENSORS} is not the file that {FACTS} was written with; fit again")
        refuse_other_backbone(f"{folder} holds a fusion", key, backbone)
        if (form := facts.get("form", "trained_maps")) != cls.form:
            raise FusionError(f"{folder} holds a fusion of the form {form}, not {cls.form}")
        try:
            restored = cls.restore(facts, load_safetensors(content))
            assert isinstance(restored, cls)
            return restored
        except (SafetensorError, KeyError) as error:
            raise FusionError(f"{folder / TENSORS} holds no fusion: {error}") from error


def refuse_other_backbone(subject: str, key: Mapping[str, str], backbone: Mapping[str, str] | None) -> None:
    """Raise FusionError if `key` is not that of the backbone; the fields that differ are named."""
    different = "" if backbone is None else differences(key, backbone)
    if different:
        raise FusionError(f"{subject} of another backbone. Fields that differ: {different}")
