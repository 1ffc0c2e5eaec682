"""Saved systems: every row of the ablation comes back bit for bit, and nothing that was changed is read."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest

from miner_diag.backbones.options import LoadOptions
from miner_diag.corpus.splits import resplit
from miner_diag.files import canonical_json, sha256_bytes
from miner_diag.fusion import (
    ROWS,
    FittedTo,
    Fusion,
    FusionError,
    FusionTrainOptions,
    LeakageError,
    TuningOptions,
    apply,
    best_head,
    chosen_rows,
    encode,
    fold_folders,
    load_systems,
    ndcg_of,
    probes_folder,
    read_fitted_to,
    read_head,
    read_load_options,
    save_systems,
    tune_all,
)
from miner_diag.fusion import merge as merge_fusion
from miner_diag.fusion.rows import FORMS, HEADS
from miner_diag.fusion.saved_systems import KINDS
from miner_diag.runs import RunFolder
from tests.fusion.helpers import KEY, content_of, materials_of, pretend_embedded, small_data

TRAINING = FusionTrainOptions(epochs=1, batch_size=20, negatives=20, learning_rate=3e-3, weight_learning_rate=3e-2)


@pytest.fixture(scope="module", params=[1, 2], ids=["shared maps", "maps for each side"])
def saved(request, one_thread, tmp_path_factory):
    """The whole ablation, trained, and the folder where it was saved."""
    data = small_data(np.random.default_rng(0))
    tuning = TuningOptions(n_seeds=2, rate_scales=(1.0,))
    trained = tune_all(ROWS, materials_of(data, sides=request.param), data, TRAINING, tuning)
    folder = tmp_path_factory.mktemp("saved")
    save_systems(folder, trained, KEY, best_head(trained))
    return data, trained, folder


@pytest.fixture
def copy_of(saved, tmp_path):
    return shutil.copytree(saved[2], tmp_path / "copy")


def test_every_row_comes_back_with_the_same_vectors_bit_for_bit(saved):
    data, trained, folder = saved
    loaded = load_systems(folder, KEY)
    assert [system.name for system in loaded] == [system.name for system in trained] == [row.name for row in ROWS]
    for before, after in zip(trained, loaded, strict=True):
        assert len(before.runs) == len(after.modules) == len(after.seeds), before.name
        for run, module in zip(before.runs, after.modules, strict=True):
            assert type(module) is type(run.system) and module.layers == run.system.layers == after.layers
            for one, other in zip(encode(run.system, data), encode(module, data), strict=True):
                assert one.tobytes() == other.tobytes(), before.name
            np.testing.assert_array_equal(ndcg_of(module, data), run.ndcg)
            assert not any(parameter.requires_grad for parameter in module.parameters())


def test_facts_of_systems_come_back(saved):
    _, trained, folder = saved
    for before, after in zip(trained, load_systems(folder), strict=True):
        names = ("name", "role", "what", "n_parameters", "seconds", "seeds")
        assert [getattr(after, name) for name in names] == [getattr(before, name) for name in names]
        assert after.best_epochs == tuple(run.best_epoch for run in before.runs)
        assert after.validation_ndcg_at_5 == tuple(run.score for run in before.runs)
        rates = (before.training.learning_rate, before.training.weight_learning_rate)
        is_trained = before.n_parameters > 0
        assert (after.learning_rate, after.weight_learning_rate) == (rates if is_trained else (None, None))
        assert after.seeds == ((0, 1) if is_trained else (None,))
    assert read_head(folder) == best_head(trained)


def test_systems_of_some_names_are_read_alone(saved, copy_of):
    for path in (copy_of / "systems").glob("*.safetensors"):
        if not path.stem.startswith(("trained_maps-", "backbone")):
            path.unlink()
    names = [system.name for system in load_systems(copy_of, KEY, names=("trained_maps", "backbone"))]
    assert names == ["backbone", "trained_maps"]
    with pytest.raises(FusionError, match="holds no system magic; it holds backbone, best_single_layer, "):
        load_systems(copy_of, names=("magic",))


def test_a_loaded_fusion_can_be_merged_and_applied(saved):
    data, _, folder = saved
    (system,) = load_systems(folder, names=("trained_maps",))
    for module in system.modules:
        assert isinstance(module, Fusion)
        np.testing.assert_allclose(apply(merge_fusion(module), data.pages), apply(module, data.pages), atol=1e-6)


def test_files_are_one_for_each_system_and_seed_and_no_others(saved, copy_of):
    _, trained, _ = saved
    expected = {
        f"{system.name}{'' if seed is None else f'-{seed}'}.safetensors" for system in trained for seed in system.seeds
    }
    (copy_of / "systems" / "left-over-3.safetensors").write_bytes(b"of an earlier run")
    fewer = [system for system in trained if system.role in ("backbone", "head", "fusion")]
    assert {path.name for path in (copy_of / "systems").iterdir()} > expected
    save_systems(copy_of, fewer, KEY, best_head(fewer))
    assert {path.name for path in (copy_of / "systems").iterdir()} == {
        name for name in expected if name.split("-")[0].removesuffix(".safetensors") in {s.name for s in fewer}
    }
    assert len(load_systems(copy_of)) == 1 + len(HEADS) + len(FORMS) == 7


def test_saving_twice_gives_the_same_bytes(saved, tmp_path):
    _, trained, folder = saved
    save_systems(tmp_path, trained, KEY, best_head(trained))
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert paths == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    for path in paths:
        assert (folder / path).read_bytes() == (tmp_path / path).read_bytes(), path


def test_another_backbone_is_refused_and_the_fields_named(saved):
    other = {"model": "planted", "revision": "2", "pooling": "cls"}
    with pytest.raises(FusionError) as refused:
        load_systems(saved[2], other)
    message = str(refused.value)
    assert "holds systems of another backbone. Fields that differ: pooling: None there, 'cls' asked for; " in message
    assert "revision: '1' there, '2' asked for" in message and "model:" not in message


def test_content_that_was_changed_is_refused(copy_of):
    path = copy_of / "systems" / "trained_maps-1.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        FusionError, match=r"trained_maps-1.safetensors is not the file that systems.json was written with"
    ):
        load_systems(copy_of)
    shutil.copy(copy_of / "systems" / "trained_maps-0.safetensors", path)  # whole, but of another seed
    with pytest.raises(
        FusionError, match=r"trained_maps-1.safetensors is not the file that systems.json was written with"
    ):
        load_systems(copy_of)
    path.unlink()
    with pytest.raises(FusionError, match=r"trained_maps-1.safetensors is not there, though systems.json lists it"):
        load_systems(copy_of)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["systems"][-1]["runs"][0]["facts"].update(layers=[0, 1, 2, 4]),
        lambda content: content["systems"][0].update(role="head"),
        lambda content: content.update(head="backbone"),
        lambda content: content["backbone"].update(revision="2"),
        lambda content: content.pop("facts_sha256"),
    ],
)
def test_facts_that_were_changed_are_refused(copy_of, change):
    content = json.loads((copy_of / "systems.json").read_text())
    change(content)
    (copy_of / "systems.json").write_text(json.dumps(content))
    with pytest.raises(FusionError, match=r"systems.json was changed after it was written; fit again"):
        load_systems(copy_of)


def sealed(content):
    """Give facts the hash that they would have been written with."""
    content = {name: value for name, value in content.items() if name != "facts_sha256"}
    return json.dumps(content | {"facts_sha256": sha256_bytes(canonical_json(content).encode())})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=9), "has format 9, this version reads 1; fit again"),
        (lambda c: c.pop("format"), "is damaged: it states no format; fit again"),
        (lambda c: c.pop("head"), "is damaged: head missing; fit again"),
        (lambda c: c["systems"][0].pop("runs"), "is damaged: 'runs'; fit again"),
        (lambda c: c["systems"][0].update(role="boss"), "gives backbone the unknown role 'boss'"),
        (lambda c: c["systems"][0]["runs"][0].update(kind="later"), "lists the unknown kind 'later'"),
        (lambda c: c["systems"][0]["runs"][0]["facts"].pop("layers"), "is damaged: 'layers'; fit again"),
    ],
)
def test_facts_that_say_too_little_are_named(copy_of, change, message):
    content = json.loads((copy_of / "systems.json").read_text())
    change(content)
    (copy_of / "systems.json").write_text(sealed(content))
    with pytest.raises(FusionError, match=message):
        load_systems(copy_of)


@pytest.mark.parametrize("text", ["{", "[]", '"text"', "{}"])
def test_a_damaged_list_is_refused(copy_of, text):
    (copy_of / "systems.json").write_text(text)
    with pytest.raises(FusionError, match=r"systems.json is damaged.*; fit again"):
        load_systems(copy_of)


def test_a_folder_without_systems_says_what_to_do(tmp_path):
    message = "systems.json is not there; fit and save systems with python -m miner_diag.fusion --out "
    with pytest.raises(FusionError, match=message):
        load_systems(tmp_path)
    with pytest.raises(FusionError, match=message):
        read_head(tmp_path)


def test_what_is_no_system_of_the_ablation_and_no_head_are_refused(saved, tmp_path):
    _, trained, _ = saved
    with pytest.raises(FusionError, match="head must be the name of a head among the systems; got 'miner'"):
        save_systems(tmp_path, trained, KEY, "miner")
    fusion = next(system for system in trained if system.name == "trained_maps")
    merged = replace(fusion, runs=tuple(replace(run, system=merge_fusion(run.system)) for run in fusion.runs))
    with pytest.raises(FusionError, match="a MergedFusion cannot be saved; what can is fusion, final_layer_head, "):
        save_systems(tmp_path, [*trained, merged], KEY, best_head(trained))


def test_every_kind_of_system_is_among_the_rows(saved):
    content = json.loads((saved[2] / "systems.json").read_text())
    kinds = {run["kind"] for system in content["systems"] for run in system["runs"]}
    assert kinds == set(KINDS)


# --- what systems were fitted to


@pytest.fixture
def corpus():
    return pretend_embedded().corpus


def fitted_to_of(corpus):
    return FittedTo.of(corpus.split("train"), corpus.split("validation"))


def test_what_was_fitted_to_comes_back_from_disk(corpus, tmp_path):
    fitted_to = fitted_to_of(corpus)
    fitted_to.write(tmp_path)
    assert read_fitted_to(tmp_path) == fitted_to
    assert (fitted_to.corpus, fitted_to.form, fitted_to.fold) == ("planted", "hidden", 0)
    assert fitted_to.documents["train"] == ("d00", "d03", "d06", "d09")
    assert len(fitted_to.page_hashes["validation"]) == 40


def test_the_test_split_may_be_measured_on_and_no_other(corpus):
    fitted_to = fitted_to_of(corpus)
    fitted_to.check(corpus.split("test"))
    for split in ("train", "validation", "all"):
        with pytest.raises(LeakageError) as refused:
            fitted_to.check(corpus.split(split))
        named = "validation" if split == "validation" else "train"
        assert f"stand in the {named} split that these systems were fitted to (planted, fold 0)" in str(refused.value)
        assert "measure on --split test with --fold 0, or on other data" in str(refused.value)


def test_the_test_split_of_another_fold_may_not(corpus):
    other = resplit(corpus, 1)
    shared = {page.doc_id for page in other.split("test").pages} - {page.doc_id for page in corpus.split("test").pages}
    assert shared  # or there is nothing to refuse
    with pytest.raises(LeakageError, match=r"pages of planted \(test, fold 1\) stand in the "):
        fitted_to_of(corpus).check(other.split("test"))


def test_the_same_pictures_are_known_in_another_data_set(corpus):
    fitted_to, test = fitted_to_of(corpus), corpus.split("test")
    copied = (replace(test.pages[0], page_hash="h0"), *test.pages[1:])  # h0 is a training page
    with pytest.raises(LeakageError, match=r"1 of 40 pages of elsewhere \(test, fold 0\) .* the first is p020"):
        fitted_to.check(replace(test, name="elsewhere", pages=copied))


def test_documents_are_known_by_name_within_their_data_set_only(corpus):
    """In another table "d00" is another document; within one data set its other pages are no new documents."""
    fitted_to = fitted_to_of(corpus)
    train = corpus.split("train")
    fresh = replace(train, pages=tuple(replace(page, page_hash=f"new-{page.page_id}") for page in train.pages))
    with pytest.raises(LeakageError, match="40 of 40 pages of planted"):
        fitted_to.check(fresh)
    fitted_to.check(replace(fresh, name="elsewhere"))


@pytest.mark.parametrize("field", ["corpus", "documents", "page_hashes"])
def test_a_guard_that_was_changed_or_cut_is_refused(corpus, tmp_path, field):
    fitted_to_of(corpus).write(tmp_path)
    path = tmp_path / "fitted_to.json"
    content = json.loads(path.read_text())
    emptied = content | {field: "" if field == "corpus" else {"train": [], "validation": []}}
    path.write_text(json.dumps(emptied))
    with pytest.raises(FusionError, match=r"fitted_to.json was changed after it was written; fit again"):
        read_fitted_to(tmp_path)
    path.write_text(sealed({name: value for name, value in content.items() if name != field}))
    with pytest.raises(FusionError, match=r"fitted_to.json is damaged"):
        read_fitted_to(tmp_path)
    path.unlink()
    with pytest.raises(FusionError, match=r"fitted_to.json is not there; fit and save systems with "):
        read_fitted_to(tmp_path)


# --- what run.json says


def finish(folder, command="miner_diag.fusion", **options):
    run = RunFolder(folder, command, {"load": asdict(LoadOptions(**options))})
    run.finish(facts={"probes": "probes", "folds": {"0": ".", "2": "fold-2"}})


def test_loading_options_come_back(tmp_path, capsys):
    finish(tmp_path, model="some/folder", pooling="cls", max_tokens=99)
    assert read_load_options(tmp_path) == LoadOptions(model="some/folder", pooling="cls", max_tokens=99)


def test_folders_come_back(tmp_path, capsys):
    finish(tmp_path)
    assert fold_folders(tmp_path) == {0: tmp_path, 2: tmp_path / "fold-2"}
    assert probes_folder(tmp_path) == tmp_path / "probes"


def test_a_run_that_is_not_whole_or_not_ours_is_refused(tmp_path, capsys):
    for read in (read_load_options, fold_folders, probes_folder):
        with pytest.raises(
            ValueError, match=r"holds no finished run \(run.json is missing\); run python -m miner_diag"
        ):
            read(tmp_path)
    finish(tmp_path / "other", command="miner_diag.cka")
    with pytest.raises(ValueError, match="is a run of miner_diag.cka; expected one of miner_diag.fusion"):
        read_load_options(tmp_path / "other")
    RunFolder(tmp_path, "miner_diag.fusion", {"load": {"model": "x", "colour": "red"}}).finish(facts={})
    with pytest.raises(FusionError, match="does not say how the backbone was loaded; fit again"):
        read_load_options(tmp_path)


def test_default_systems_hold_backbone_heads_and_fusion(saved):
    loaded = {system.name: system for system in load_systems(saved[2])}
    for row in chosen_rows():
        assert loaded[row.name].role == row.role
    assert content_of(loaded["backbone"].modules[0]) == content_of(Fusion.identity(5, 16))
