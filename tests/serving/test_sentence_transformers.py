"""sentence-transformers, given our folders, finds our vectors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from miner_diag.backbones import CheckpointError, LoadOptions
from miner_diag.serving import FusedRetriever, ServingError, load_sentence_transformer
from miner_diag.serving.sentence_folder import MODULE_CLASS, plain_steps, write_module_form, write_plain_form
from miner_diag.serving.sentence_module import FusedModule
from tests.backbones.tiny import save_dual_encoder
from tests.serving.made import QUERIES, SYSTEMS, TEXTS, fusion, miner, probe, served

SHORT = [text for text in TEXTS if len(text.split()) < 10]
PLAIN = {
    "the backbone": SYSTEMS["the backbone"],
    "an inner layer": SYSTEMS["an inner layer"],
    "a linear head": lambda: fusion((3,), weights=[0.6]),
    "a linear head with a negative weight": lambda: fusion((3,), weights=[-0.6]),
    "a linear head without bias": lambda: fusion((3,), weights=[-0.6], bias=False),
    "a gate alone": lambda: fusion((3,), kinds=["base"]),
    "a fusion of which one layer weighs": lambda: fusion(weights=[0.7, 0.0]),
    "miner on the final layer": lambda: miner((3,)),
    "a base probe": lambda: probe(2, "base"),
    "a projection probe": lambda: probe(2, "normalized_projection"),
}
BENT = {
    "two layers": fusion,
    "miner": miner,
    "a side each": lambda: fusion((3,), sides=2),
    "pages only": lambda: miner((3,), pages_only=True),
    "a probe for each side": lambda: probe(2, "base", sides=2),
    "a head that bends": SYSTEMS["a head that bends"],
}


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", SYSTEMS)
def test_our_module_gives_our_vectors(name, load, tmp_path):
    retriever = served(load(query_prompt="salt ", page_prompt="reef "), SYSTEMS[name]())
    write_module_form(retriever, tmp_path)
    model = load_sentence_transformer(tmp_path)
    close(model.encode_query(QUERIES), retriever.encode_queries(QUERIES))
    close(model.encode_document(TEXTS), retriever.encode_pages(TEXTS).vectors)
    close(model.encode(QUERIES, prompt_name="query"), retriever.encode_queries(QUERIES))
    assert model.get_embedding_dimension() == retriever.width and model.similarity_fn_name == "cosine"


def test_sentence_transformers_loads_it_by_itself_with_its_flag_and_saves_it_again(load, tmp_path):
    retriever = served(load(query_prompt="salt "), fusion())
    write_module_form(retriever, tmp_path / "one")
    with pytest.raises(ValueError, match="trust_remote_code=True"):  # its own rule, for classes of any other package
        SentenceTransformer(str(tmp_path / "one"), device="cpu")
    model = SentenceTransformer(str(tmp_path / "one"), trust_remote_code=True, device="cpu")
    close(model.encode_query(QUERIES), retriever.encode_queries(QUERIES))
    model.save(str(tmp_path / "two"), create_model_card=False)
    again = SentenceTransformer(str(tmp_path / "two"), trust_remote_code=True, device="cpu")
    close(again.encode_query(QUERIES), retriever.encode_queries(QUERIES))
    assert MODULE_CLASS == f"{FusedModule.__module__}.{FusedModule.__qualname__}"
    assert not list((tmp_path / "one").rglob("*.py"))


def test_long_texts_are_read_in_windows_as_by_us(load):
    retriever = served(load(long_pages="windows", max_tokens=10), fusion())
    model = load_sentence_transformer(retriever)
    close(model.encode(TEXTS), retriever.encode_pages(TEXTS).vectors)
    cut = served(load(max_tokens=10), fusion()).encode_pages(TEXTS).vectors
    assert np.abs(cut - model.encode(TEXTS)).max() > 0.01


def test_a_side_that_nobody_names_is_refused_only_where_it_matters(load):
    with pytest.raises(ServingError, match="use encode_query and encode_document"):
        load_sentence_transformer(served(load(), fusion(sides=2))).encode(QUERIES)
    assert load_sentence_transformer(served(load(), fusion())).encode(QUERIES).shape == (3, 32)


def test_a_prompt_of_the_users_own_is_taken(load):
    retriever = served(load(query_prompt="salt "), fusion())
    model = load_sentence_transformer(retriever)
    expected = served(load(page_prompt="tide "), fusion()).encode_pages(QUERIES).vectors
    close(model.encode(QUERIES, prompt="tide "), expected)


def test_what_is_no_text_is_refused(load):
    with pytest.raises(ServingError, match=r"inputs\[0\] must be a text; got a int"):
        load_sentence_transformer(served(load(), fusion()))[0].preprocess([3])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("name", PLAIN)
def test_plain_modules_give_our_vectors(name, pooling, load, tmp_path):
    retriever = served(load(query_prompt="salt ", pooling=pooling), PLAIN[name]())
    write_plain_form(retriever, tmp_path)
    model = SentenceTransformer(str(tmp_path), device="cpu")
    close(model.encode_query(QUERIES), retriever.encode_queries(QUERIES))
    close(model.encode_document(SHORT), retriever.encode_pages(SHORT).vectors)
    kinds = {entry["type"] for entry in json.loads((tmp_path / "modules.json").read_text())}
    assert kinds <= {
        f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling", "Dense", "Normalize")
    }


def test_of_an_inner_layer_the_blocks_above_are_left_out(load, tmp_path):
    write_plain_form(FusedRetriever.from_model(load(), 1), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["num_hidden_layers"] == 1


@pytest.mark.parametrize("name", BENT)
def test_what_plain_modules_cannot_say_is_refused(name, load, tmp_path):
    assert plain_steps(BENT[name]()) is None
    with pytest.raises(ServingError, match="made has no plain form"):
        write_plain_form(served(load(), BENT[name]()), tmp_path)


def test_a_model_with_a_norm_behind_its_blocks_is_not_cut(tiny_decoder, tmp_path):
    retriever = FusedRetriever.from_model(LoadOptions(str(tiny_decoder), device="cpu", reader="text-layer"), 1)
    with pytest.raises(CheckpointError, match="has a norm or a head behind its last block"):
        write_plain_form(retriever, tmp_path / "plain")
    write_module_form(retriever, tmp_path / "module")
    close(
        load_sentence_transformer(tmp_path / "module").encode_document(["w1 w2"]),
        retriever.encode_pages(["w1 w2"]).vectors,
    )


def test_a_retriever_of_pictures_has_no_such_folder(tmp_path):
    folder = save_dual_encoder(tmp_path / "clip", "clip")
    with pytest.raises(ServingError, match="reads pictures of pages; this export is for backbones that read texts"):
        write_module_form(FusedRetriever.from_model(LoadOptions(str(folder), device="cpu")), tmp_path / "out")
