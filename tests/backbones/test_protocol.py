"""What the public leaderboard does otherwise: every manifest says it, the option does exactly that, or is refused."""

import re

import pytest
from transformers import AutoModel

from miner_diag.backbones import BackboneError, load_backbone, load_late_backbone
from miner_diag.backbones.known import PROTOCOLS, known_model, known_models, read_known
from miner_diag.backbones.options import LoadOptions
from tests.backbones.late_checkpoints import save_late
from tests.backbones.test_known import class_of, written_manifest
from tests.backbones.tiny import PAGES, QUERIES, Drawn, save_adapter, save_modernvbert, save_nemotron, save_qwen


def save_nomic(folder):
    base = save_qwen(folder.parent / "base", "qwen2_5_vl")
    save_adapter(folder, AutoModel.from_pretrained(base), base_model_name_or_path=str(base))
    return folder


SAVERS = {
    "qwen3_vl": lambda folder: save_qwen(folder, "qwen3_vl"),
    "eager": lambda folder: save_qwen(folder, "qwen3_vl"),
    "gme": lambda folder: save_qwen(folder, "qwen2_vl"),
    "biqwen2_5": save_nomic,
    "jina_v4": lambda folder: save_qwen(folder, "qwen2_5_vl"),
    "modernvbert": save_modernvbert,
    "nemotron_vl": save_nemotron,
}
CHANGED = [model for model in known_models() if model.protocol["mteb"] and model.protocol["mteb"].changes]


@pytest.mark.parametrize("model", known_models(), ids=lambda model: model.hub_id)
def test_a_manifest_says_every_protocol_and_names_real_differences_only(model):
    assert set(model.protocol) == set(PROTOCOLS)
    for run in model.protocol.values():
        if run is None:
            continue
        assert run.notes
        defaults = model if model.late else class_of(model).defaults if run.changes else None
        for name, value in run.changes.items():
            authors = getattr(defaults, name)
            assert authors is not None and value != authors, f"{name} is fixed or the same"


@pytest.mark.parametrize("model", [model for model in CHANGED if not model.late], ids=lambda model: model.hub_id)
def test_the_option_changes_what_the_manifest_says_and_nothing_else(model, tmp_path):
    folder = SAVERS[model.family](tmp_path / model.hub_id.split("/")[1])
    changes = model.protocol["mteb"].changes
    authors, default, mteb = (
        load_backbone(LoadOptions(str(folder), device="cpu", **given), render=Drawn())
        for given in ({"protocol": "authors"}, {}, {"protocol": "mteb"})
    )
    assert authors.key() == default.key(), "keys of stores that are there stay as they are"
    for side in ("query", "page"):
        prompt, closing = (changes.get(f"{side}_{what}") for what in ("prompt", "closing"))
        theirs = authors.key(side)
        differs = {name for name, value in mteb.key(side).items() if value != theirs[name]}
        expected = {f"{side}_prompt"} if prompt is not None else set()
        expected |= {f"{side}_template"} if prompt is not None or closing is not None else set()
        expected |= {"page_pixels"} if side == "page" and "max_pixels" in changes else set()
        assert differs == expected
        template = mteb.key(side)[f"{side}_template"]
        assert prompt is None or prompt in template
        assert closing is None or template.endswith(f"{{}}{closing}")
    assert mteb.max_pixels == changes.get("max_pixels", authors.max_pixels)


def test_prompts_and_pixels_of_the_user_overrule_both_protocols(tmp_path):
    folder = save_qwen(tmp_path / "Qwen3-VL-Embedding-2B", "qwen3_vl")
    given = LoadOptions(str(folder), device="cpu", protocol="mteb", query_prompt="Find it", max_pixels=64 * 1024)
    backbone = load_backbone(given, render=Drawn())
    assert backbone.query_prompt == "Find it" and backbone.max_pixels == 64 * 1024


def test_both_official_templates_of_eager(tmp_path):
    """Token for token: MTEB's has no generation prompt; its empty text before the picture adds nothing."""
    folder = save_qwen(tmp_path / "eager-embed-v1", "qwen3_vl")
    authors, mteb = (
        load_backbone(LoadOptions(str(folder), device="cpu", protocol=name), render=Drawn())
        for name in ("authors", "mteb")
    )
    (one,), (other,) = (each.prepare(PAGES[:1], "page") for each in (authors, mteb))
    chat = mteb.tokenizer
    for closes, backbone in ((True, authors), (False, mteb)):
        for side, part in (("query", {"type": "text", "text": "Query: page"}), ("page", {"type": "image"})):
            content = [part] if closes or side == "query" else [{"type": "text", "text": ""}, part]
            message = chat.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=closes
            )
            (item,) = backbone.prepare(QUERIES[-1:] if side == "query" else PAGES[:1], side)
            told = re.sub(r"(<\|image_pad\|>)+", "<|image_pad|>", chat.decode(item.inputs["input_ids"]))
            assert told == message + "<|endoftext|>"
    assert one.n_tokens - other.n_tokens == len(chat("<|im_start|>assistant\n")["input_ids"])


def test_a_page_of_eager_is_a_square_whatever_its_proportions(tmp_path):
    backbone = load_backbone(LoadOptions(str(save_qwen(tmp_path / "eager-embed-v1", "qwen3_vl"))), render=Drawn())
    wide = backbone.prepare(PAGES[:2], "page")
    assert backbone.plan(0.3).size == backbone.plan(2.0).size == (784, 784)
    for item in wide:
        assert item.pixels()["image_grid_thw"].tolist() == [[1, 48, 48]], "768 pixels: whole tokens of 32"
        assert int((item.inputs["input_ids"] == backbone._placeholder_id).sum()) == 24 * 24


def test_a_late_model_takes_the_leaderboards_prompt(tmp_path):
    folder = save_late(tmp_path / "colpali-v1.3-hf", "ColPaliForRetrieval")
    authors, mteb = (
        load_late_backbone(LoadOptions(str(folder), device="cpu", protocol=name), render=Drawn())
        for name in ("authors", "mteb")
    )
    differs = {name for name, value in authors.key().items() if mteb.key()[name] != value}
    assert differs == {"query_prompt"} and mteb.key()["query_prompt"] == "Query: "


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("tiny-gme", "qwen2_vl", "it has no manifest that says what the public leaderboard does otherwise"),
        ("dse-qwen2-2b-mrl-v1", "qwen2_vl", "its manifest says that mteb does not run it"),
        ("MoCa-Qwen25VL-3B", "qwen2_5_vl", "its manifest names no setting that mteb changes"),
    ],
)
def test_a_protocol_without_effect_is_refused(tmp_path, name, kind, reason):
    folder = save_qwen(tmp_path / name, kind)
    with pytest.raises(BackboneError, match=f"--protocol mteb has no effect on {name}: {reason}. Leave it out"):
        load_backbone(LoadOptions(str(folder), protocol="mteb"))


def test_the_manifest_of_another_family_says_nothing(tmp_path):
    folder = save_qwen(tmp_path / "gme-Qwen2-VL-2B-Instruct", "qwen2_vl")
    with pytest.raises(BackboneError, match="--protocol mteb has no effect on gme-Qwen2-VL-2B-Instruct"):
        load_backbone(LoadOptions(str(folder), model_family="dse", protocol="mteb"))
    with pytest.raises(BackboneError, match="--protocol mteb has no effect on page-text"):
        load_backbone(LoadOptions(protocol="mteb"))


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("null", "protocol must hold mteb and nothing else; got None"),
        ("{}", "protocol must hold mteb and nothing else; got {}"),
        ("{mteb: null, ours: null}", "protocol must hold mteb and nothing else"),
        ("{mteb: {}}", "mteb: ProtocolChanges lacks the fields notes"),
        ("{mteb: {notes: x, tiles: 4}}", "has unknown fields ['tiles']"),
        ("{mteb: {notes: x, max_pixels: many}}", "mteb: max_pixels must be a whole number"),
        ("{mteb: {notes: x, query_prompt: 3}}", "mteb: query_prompt must be a text; got 3"),
    ],
)
def test_a_protocol_that_is_wrong_is_named(tmp_path, protocol, message):
    with pytest.raises(BackboneError, match=re.escape(message)):
        read_known(written_manifest(tmp_path, protocol=protocol))


def test_a_manifest_cannot_change_what_a_family_fixes(tmp_path, monkeypatch):
    manifest = written_manifest(tmp_path, family="gme", protocol="{mteb: {notes: x, query_closing: y}}")
    monkeypatch.setattr("miner_diag.backbones.registry.known_model", lambda name: read_known(manifest))
    with pytest.raises(BackboneError, match="the manifest of tiny-gme changes query_closing under --protocol mteb, wh"):
        load_backbone(LoadOptions(str(save_qwen(tmp_path / "tiny-gme", "qwen2_vl")), protocol="mteb"))
    assert known_model("tiny-gme") is None
