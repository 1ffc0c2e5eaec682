import json
import re

import numpy as np
import pytest

from miner_diag.embeddings import DamagedStoreError, EmbeddedCorpus, NoiseFloor


def take(corpus, backbone, options, part="validation"):
    embedded = EmbeddedCorpus(corpus, backbone, options, progress=False).take(corpus.split(part))
    backbone.batches.clear()
    return embedded


def files(options):
    return sorted(options.store.glob("*/noise/*.json"))


def test_a_backbone_without_noise_has_none(backbone, corpus, options):
    floor = take(corpus, backbone, options).noise
    assert (floor.side, floor.n_items, floor.token_budget) == ("page", 16, 60)
    assert floor.max_relative_difference == floor.mean_relative_difference == (0.0,) * 4
    assert floor.as_dict()["token_budget"] == 60


def test_noise_is_measured_against_the_store_relative_per_layer(backbone, corpus, options):
    plain = backbone.embed

    def noisy(batch):
        layers = plain(batch)
        if len(batch) > 1:
            layers[:, 2] *= 1.25  # exact in binary
        return layers

    backbone.embed = noisy
    floor = take(corpus, backbone, options).noise
    np.testing.assert_allclose(floor.max_relative_difference, [0, 0, 0.25, 0], rtol=1e-6)
    assert 0 < floor.mean_relative_difference[2] <= 0.25 * (1 + 1e-6)


@pytest.mark.parametrize(("noise", "told"), [(6e-3, True), (1e-6, False)])
def test_a_model_that_looks_at_padding_is_named(backbone, corpus, options, noise, told):
    plain = backbone.embed

    def noisy(batch):
        layers = plain(batch)
        if len(batch) > 1:
            layers[:, 2] *= 1 + noise
        return layers

    backbone.embed = noisy
    notes = [note for note in take(corpus, backbone, options).notes() if "padding" in note]
    assert len(notes) == told
    if told:
        assert re.search(r"vectors of pretend depend on the padding .* 6\.0e-03 at layer 2.* than 1e-03", notes[0])


def test_bfloat16_rounds_more():
    floor = NoiseFloor("page", 16, 60, (0.0, 2e-2), (0.0, 1e-2))
    assert floor.caution("one", "bfloat16") is None
    assert "--token-budget 1" in str(floor.caution("one", "float32"))
    assert NoiseFloor("page", 16, 60, (0.2,), (0.1,)).caution("one", "bfloat16") is not None


def test_a_vector_of_zeros_is_no_division(backbone, corpus, options):
    backbone.spoil = lambda item_id, layers: layers * 0
    assert take(corpus, backbone, options).noise.max_relative_difference == (0.0,) * 4


def test_pages_are_spread_evenly_over_the_part_and_embedded_alone(backbone, corpus, options):
    embedded = take(corpus, backbone, options)
    assert backbone.batches == [] and embedded.noise.n_items == 16
    rows = np.linspace(0, len(embedded.corpus.pages) - 1, 16).round().astype(int)
    assert backbone.batches == [[embedded.corpus.pages[row].page_id] for row in rows]
    few = corpus.sample_pages(5)
    assert EmbeddedCorpus(few, backbone, options, progress=False).take(few).noise.n_items == 5


def test_it_is_measured_once_and_kept_with_the_same_bytes_whoever_asks_first(backbone, corpus, options, tmp_path):
    backbone.noise = 1e-6
    first = {part: take(corpus, backbone, options, part).noise for part in ("validation", "all", "test")}
    assert max(first["validation"].max_relative_difference) > 0
    backbone.batches.clear()
    for part, floor in first.items():
        again = take(corpus, backbone, options, part)
        assert again.noise == floor and isinstance(again.noise, NoiseFloor)
        assert backbone.batches == []
    elsewhere = type(options)(tmp_path / "other", options.token_budget)
    for part in ("test", "all", "validation"):
        assert take(corpus, backbone, elsewhere, part).noise == first[part]
    contents = [{path.name: path.read_bytes() for path in files(one)} for one in (options, elsewhere)]
    assert contents[0] == contents[1] and len(contents[0]) == 3


def test_a_damaged_file_is_refused_by_name(backbone, corpus, options):
    take(corpus, backbone, options).noise.as_dict()
    (path,) = files(options)
    content = json.loads(path.read_text())
    del content["floor"]["side"]
    wrong = [json.dumps(content), "{", json.dumps({"rows": "other", "floor": {}}), "{}"]
    for text in wrong:
        path.write_text(text)
        with pytest.raises(DamagedStoreError, match=rf"{path.name} is damaged: .*Delete this file"):
            take(corpus, backbone, options).noise.as_dict()
