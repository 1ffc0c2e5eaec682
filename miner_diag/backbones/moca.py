"""MoCa-Qwen25VL (3B): Qwen2.5-VL that looks both ways, mean over all tokens.

After MTEB's ``moca_models.py``, which was checked against the model card, and the authors'
``moca_qwen25_retriever.py`` (github.com/haon-chen/MoCa, arXiv 2506.23115). The authors' script has the line break
between picture and words and pools the last token by default; the words, the line break behind them and the mean are
the card's and MTEB's. What stands for an empty query is said by neither; one space is our choice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

from miner_diag.backbones.base import CheckpointError, Side
from miner_diag.backbones.families import FamilyDefaults
from miner_diag.backbones.qwen_vl import PICTURE, QwenVLRetriever
from miner_diag.backbones.templates import Template
from miner_diag.backbones.weight_files import PROCESSOR_FILES

PROCESSOR_OF = "Qwen/Qwen2.5-VL-3B-Instruct"
"""The hub id whose tokenizer and image processor the authors use."""


class MoCa(QwenVLRetriever):
    """MoCa on Qwen2.5-VL. A query is its bare text; a page's words stand behind its picture and end in a line break."""

    family: ClassVar[str] = "moca"
    defaults: ClassVar[FamilyDefaults] = FamilyDefaults(
        pooling="mean",
        query_prompt="",
        page_prompt="Represent the given document image.",
        max_tokens=2048,
        min_pixels=256 * 28 * 28,
        max_pixels=1024 * 28 * 28,
    )

    def template(self, side: Side) -> Template:
        """Return the words around a text or a picture."""
        return Template(self.query_prompt) if side == "query" else Template(f"{PICTURE}{self.page_prompt}\n")

    def query_text(self, text: str) -> str:
        """Return the text; a space for an empty one, which would have no token."""
        return text or " "

    def files(self) -> Path:
        """Return the checkpoint's folder if tokenizer and image processor are in it.

        Raises
        ------
        CheckpointError
            If they are not; says where the authors take them from.
        """
        folder = self.checkpoint.folder
        if not (folder / "tokenizer.json").exists() or not any((folder / name).exists() for name in PROCESSOR_FILES):
            raise CheckpointError(
                f"{folder} must hold tokenizer.json and one of {', '.join(PROCESSOR_FILES)}; one of them is not there. "
                f"MoCa's authors take them from {PROCESSOR_OF}: copy its tokenizer and preprocessor files beside the "
                "weights, into a folder of your own, and pass that with --model"
            )
        return folder

    def load_weights(self) -> Any:
        """Return the model, every token of which sees every other one."""
        model = super().load_weights()
        look_both_ways(model.language_model)
        return model

    def extra_key(self) -> dict[str, str]:
        """Return that attention is not causal."""
        return {"attention_mask": "bidirectional"}


def look_both_ways(decoder: Any) -> None:
    """Let every token of a decoder see every other one that is no padding, and check that it does.

    Where the configuration's ``is_causal`` is False, the library makes a mask that hides padding alone, and hands the
    value on to the attention function, which goes by it where no token is padding and so no mask is made
    (transformers 5.23: ``create_causal_mask`` in ``masking_utils.py``, ``merge_with_config_defaults`` in
    ``utils/generic.py``). As that is the library's inside and can change, three tokens are then passed: the first must
    notice a change of a later token, with and without padding, and no token may notice a change of a padding token.

    Parameters
    ----------
    decoder : PreTrainedModel
        The language model, changed in place.

    Raises
    ------
    CheckpointError
        If it stays causal or sees padding.
    """
    decoder.config.is_causal = False
    whole, padded = [1, 1, 1], [1, 1, 0]
    sees_later = all(_change(decoder, mask, of=1)[0] > 0 for mask in (whole, padded))
    sees_padding = _change(decoder, padded, of=2)[:2].max() > 0
    if not sees_later or sees_padding:
        wrong = "a token sees padding" if sees_later else "the first token does not see a later one"
        raise CheckpointError(
            f"{type(decoder).__name__} must look both ways and past padding for MoCa, and does not: {wrong}. This "
            "version of transformers builds its attention masks otherwise: install the one in constraints.txt"
        )


def _change(decoder: Any, mask: list[int], *, of: int) -> torch.Tensor:
    """Return how far each of three tokens' last states moves when the token `of` is another one, [3]."""
    weight = next(decoder.parameters())
    width = decoder.config.hidden_size
    drawn = torch.randn(4, width, generator=torch.Generator().manual_seed(0))
    drawn = drawn.to(weight.device, weight.dtype)
    states = []
    for rows in ([0, 1, 2], [3 if row == of else row for row in range(3)]):
        with torch.inference_mode():
            out = decoder(
                inputs_embeds=drawn[rows][None],
                attention_mask=torch.tensor([mask], device=weight.device),
                use_cache=False,
            )
        states.append(out.last_hidden_state[0].float())
    return (states[0] - states[1]).abs().amax(dim=1)
