"""Every loading option of every kind of retriever has an effect, or it is refused: there is no third case."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from PIL import Image

from miner_diag.backbones.base import BackboneError
from miner_diag.backbones.options import LoadOptions
from miner_diag.backbones.registry import is_late, load_backbone, load_late_backbone
from tests.backbones.late_checkpoints import CLASSES, save_late
from tests.backbones.tiny import save_adapter, save_dual_encoder, save_modernvbert, save_nemotron, save_qwen

OTHER = {
    "model_family": "clip",
    "revision": "0123456789abcdef0123456789abcdef01234567",
    "base_model": "elsewhere",
    "pooling": "cls",
    "reader": "text-layer",
    "kept_tokens": "all",
    "device": "cuda",
    "dtype": "bfloat16",
    "max_tokens": 20,
    "max_pixels": 40 * 1024,
    "query_prompt": "Find: ",
    "page_prompt": "A page: ",
    "trust_remote_code": True,
}
"""Another value than the default for every field but the model."""

KINDS = (
    "page-text",
    "page-vision",
    "page-text-late",
    "page-vision-late",
    "text encoder",
    "late text encoder",
    "qwen3_vl",
    "gme",
    "dse",
    "biqwen2_5",
    "jina_v4",
    "adapter",
    "nemotron_vl",
    "modernvbert",
    "clip",
    "siglip",
    "siglip2",
    *CLASSES,
)


def white(page_id, longest_side):
    return Image.new("RGB", (longest_side, longest_side), "white")


@pytest.fixture(scope="module")
def options_of(tmp_path_factory, tiny_bert):
    """Return the options that load a kind with nothing overruled; checkpoints are made once."""
    folder, made = tmp_path_factory.mktemp("kinds"), {}

    def path_of(kind):
        if kind in ("qwen3_vl", "biqwen2_5", "jina_v4", "gme", "dse"):
            base = {"qwen3_vl": "qwen3_vl", "gme": "qwen2_vl", "dse": "qwen2_vl"}.get(kind, "qwen2_5_vl")
            return save_qwen(folder / kind, base)
        if kind == "adapter":
            from transformers import AutoModel

            base = save_qwen(folder / "base", "qwen2_5_vl")
            (folder / kind).mkdir()
            save_adapter(folder / kind, AutoModel.from_pretrained(base), base_model_name_or_path=str(base))
            return folder / kind
        if kind in CLASSES:
            return save_late(folder / kind, kind)
        if kind in ("clip", "siglip", "siglip2"):
            return save_dual_encoder(folder / kind, kind)
        return {"nemotron_vl": save_nemotron, "modernvbert": save_modernvbert}[kind](folder / kind)

    def make(kind):
        if kind.startswith("page-"):
            return LoadOptions(kind, device="cpu")
        if kind in ("text encoder", "late text encoder"):
            return LoadOptions(str(tiny_bert), device="cpu", pooling="mean" if kind == "text encoder" else None)
        if kind not in made:
            made[kind] = Path(path_of(kind))
        needed = kind in ("gme", "dse", "biqwen2_5", "jina_v4")
        return LoadOptions(str(made[kind]), device="cpu", model_family=kind if needed else None)

    return make


def load(kind, options):
    late = is_late(options) or kind == "late text encoder"
    return (load_late_backbone if late else load_backbone)(options, render=white, progress=False)


@pytest.mark.parametrize("kind", KINDS)
def test_an_option_changes_the_key_or_is_refused(kind, options_of):
    plain = options_of(kind)
    backbone = load(kind, plain)
    assert backbone.options == plain
    key = backbone.key()
    for field in fields(LoadOptions):
        if field.name == "model":
            continue
        value = OTHER[field.name]
        if field.name == "model_family":  # one that the checkpoint is not
            value = "siglip" if kind == "clip" else "clip"
        other = replace(plain, **{field.name: value})
        assert other != plain
        try:
            changed = load(kind, other).key()
        except BackboneError as error:
            message = str(error)
            flag = "--" + field.name.replace("_", "-")
            assert flag in message or field.name in message, (field.name, message)
            if "has no effect" in message:
                assert message.startswith(flag) and Path(plain.model).name in message
            continue
        assert changed != key, f"{field.name} has no effect on {kind} and is not refused"


def test_the_declared_options_are_fields():
    from miner_diag.backbones.families import COL, FAMILIES, LATE_TEXT, TEXT
    from miner_diag.backbones.registry import EMBEDDED, EMBEDDED_LATE

    names = {field.name for field in fields(LoadOptions)}
    for family in (*FAMILIES, TEXT, LATE_TEXT, COL, *EMBEDDED.values(), *EMBEDDED_LATE.values()):
        assert family.honours <= names
        assert {"model", "device", "dtype"} <= family.honours
    assert set(OTHER) == names - {"model"}


def test_what_a_user_tried(options_of):
    for kind, options, flag in (
        ("page-text-late", {"model_family": "nonsense"}, "--model-family nonsense"),
        ("page-text-late", {"revision": "nosuch"}, "--revision nosuch"),
        ("page-text-late", {"max_pixels": 5}, "--max-pixels 5"),
        ("page-text", {"max_pixels": 5}, "--max-pixels 5"),
    ):
        with pytest.raises(BackboneError, match=f"{flag} has no effect on {kind}; leave it out. It honours --device"):
            load(kind, replace(options_of(kind), **options))
