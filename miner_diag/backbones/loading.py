"""Loading weights and tokenizers from a local folder: never from a hub, never half."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from miner_diag.backbones.errors import BackboneError, CheckpointError
from miner_diag.backbones.weight_files import PROCESSOR_FILES, TOKENIZER_FILES, check_files, check_weight_files

HARMLESS_MISSING = re.compile(r"(^|\.)(pooler\.|position_ids$|inv_freq$)")
"""Weights a text embedding does not pass: an unused pooler, buffers that are computed."""

HARMLESS_UNEXPECTED = re.compile(
    r"(^|\.)(pooler\.|position_ids$|inv_freq$|masked_bias$|lm_head\.|cls\.(predictions|seq_relationship)\."
    r"|vocab_(transform|layer_norm|projector)\.|classifier\.|score\.)"
    r"|^(head|decoder|generator_predictions|discriminator_predictions)\."
)
"""Weights of heads that stand behind the encoder: language modelling, classification, an unused pooler."""


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    trust_remote_code: bool = False,
    config: Any = None,
    model_class: Any = AutoModel,
    harmless_unexpected: re.Pattern[str] | None = None,
    harmless_missing: re.Pattern[str] | None = None,
    key_mapping: dict[str, str] | None = None,
) -> Any:
    """Load a model without its heads for inference, refusing a checkpoint that does not fill it.

    Parameters
    ----------
    folder : path
        The checkpoint.
    dtype : torch.dtype
        The precision of its weights and of the forward.
    device : torch.device
        The device that it is moved to.
    trust_remote_code : bool
        Run Python code that the checkpoint brings along.
    config : PreTrainedConfig, optional
        The configuration that is used instead of the one in the folder.
    model_class : class with ``from_pretrained``
        The class that is filled; ``AutoModel`` unless a family needs another.
    harmless_unexpected : pattern, optional
        Further names of weights in the file that a family does not need.
    harmless_missing : pattern, optional
        Further names of weights that a family does not pass.
    key_mapping : dict, optional
        Patterns of weights' names in the file -> their names in the model.

    Raises
    ------
    CheckpointError
        If weights are missing or left over outside the known harmless ones (all are listed), shapes differ, the
        architecture is unknown or has a decoder beside its encoder, or remote code would be needed.
    """
    check_weight_files(Path(folder))
    with quiet_transformers():
        try:
            if config is None:
                config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
            if getattr(config, "is_encoder_decoder", False):
                raise CheckpointError(
                    f"{folder} is an encoder-decoder ({config.model_type}); expected an encoder or a decoder alone"
                )
            model, info = model_class.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **({} if key_mapping is None else {"key_mapping": key_mapping}),
            )
        except CheckpointError:
            raise
        except Exception as error:  # libraries raise what they like over damaged files, a bare Exception included
            raise CheckpointError(f"{folder} cannot be loaded: {_sentence(error)}{_hint(error)}") from error
    missing = _beyond(info["missing_keys"], HARMLESS_MISSING, harmless_missing)
    unexpected = _beyond(info["unexpected_keys"], HARMLESS_UNEXPECTED, harmless_unexpected)
    mismatched = sorted(str(entry[0] if isinstance(entry, tuple) else entry) for entry in info["mismatched_keys"])
    problems = [
        f"{len(names)} {what}: {', '.join(names)}"
        for what, names in (
            ("missing from the file (they would be random)", missing),
            ("in the file without a place in the model", unexpected),
            ("of another shape than the model's", mismatched),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"the weights in {folder} do not fill {type(model).__name__}; " + "; ".join(problems) + ". "
            "The file was saved from another class or by another version of transformers; save it again with that "
            "version, or pass the right folder"
        )
    model.config.use_cache = False
    return model.eval().to(device).requires_grad_(False)


def load_image_processor(class_name: str, folder: Path) -> Any:
    """Load the settings of an image processor into the class that is pinned for the family.

    The PIL classes are taken whatever else is installed: the ones on torchvision give other pixels.

    Raises
    ------
    CheckpointError
        If the folder holds no such settings.
    """
    check_files(folder / name for name in PROCESSOR_FILES)
    if not any((folder / name).exists() for name in PROCESSOR_FILES):
        raise CheckpointError(
            f"{folder} holds no preprocessor_config.json, so it is not known how pictures enter the model; take the "
            "file from the model's repository"
        )
    with quiet_transformers():
        try:
            return getattr(transformers, class_name).from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{class_name} cannot be loaded from {folder}: {_sentence(error)}") from error


def load_tokenizer(folder: Path, *, lower_case: bool = False, trust_remote_code: bool = False) -> Any:
    """Load a tokenizer; with `lower_case`, text is lowercased before anything else is done to it.

    Raises
    ------
    CheckpointError
        If the folder holds no tokenizer that can be loaded.
    """
    check_files(folder / name for name in TOKENIZER_FILES)
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            )
        except Exception as error:  # a damaged tokenizer.json raises a bare Exception
            raise CheckpointError(f"no tokenizer can be loaded from {folder}: {_sentence(error)}") from error
    files = sorted(set(tokenizer.vocab_files_names.values()))
    if not any((folder / name).exists() for name in files):  # transformers would go on with an empty vocabulary
        raise CheckpointError(f"no tokenizer can be loaded from {folder}: none of {', '.join(files)} is there")
    if not tokenizer.is_fast:
        raise CheckpointError(f"the tokenizer in {folder} has no tokenizer.json; save it again with transformers 5")
    if lower_case:
        from tokenizers import normalizers

        backend = tokenizer.backend_tokenizer
        rest = [backend.normalizer] if backend.normalizer is not None else []
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])
    return tokenizer


def load_processor(folder: Path, processor_class: Any) -> Any:
    """Load a processor of pictures and text, its image processor with the backend that every machine has.

    Pictures are resized by Pillow, also where torchvision is installed, whose pixels differ.

    Raises
    ------
    CheckpointError
        If the folder holds none that can be loaded.
    """
    check_files(folder / name for name in (*TOKENIZER_FILES, *PROCESSOR_FILES))
    with quiet_transformers():
        try:
            return processor_class.from_pretrained(folder, local_files_only=True, backend="pil")
        except (OSError, ValueError, TypeError, RuntimeError, KeyError, ImportError) as error:
            raise CheckpointError(
                f"no {processor_class.__name__} can be loaded from {folder}: {_sentence(error)}"
            ) from error


def choose_device(device: str, name: str) -> torch.device:
    """Return the device that a retriever runs on: "auto" is a GPU where there is one, else the CPU.

    Under a launcher of several processes, "auto" is the GPU of this process (``LOCAL_RANK``).

    Raises
    ------
    BackboneError
        If this machine lacks the device; the retriever's `name` is named.
    """
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        local = os.environ.get("LOCAL_RANK")
        if n_gpus == 0:
            return torch.device("cpu")
        return torch.device("cuda" if local is None else f"cuda:{int(local) % n_gpus}")
    chosen = torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= n_gpus:
        sees = "no GPU" if n_gpus == 0 else f"{n_gpus} GPUs, counted from 0,"
        raise BackboneError(f"{name} cannot run with --device {device}: torch sees {sees} here; use --device cpu")
    return chosen


def _beyond(names: Iterable[str], *harmless: re.Pattern[str] | None) -> list[str]:
    """Return the names that none of the patterns allows."""
    allowed = [pattern for pattern in harmless if pattern is not None]
    return sorted(name for name in names if not any(pattern.search(name) for pattern in allowed))


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' loading bar and report off the terminal: what matters of them is raised as an error."""
    level, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: " + " ".join(str(error).split())[:600]


def _hint(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return (
            ". It brings its own Python code; --trust-remote-code runs that code with your rights, so read the .py "
            "files in the folder first"
        )
    return ""
