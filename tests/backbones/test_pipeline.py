import json
import re

import pytest

from miner_diag.backbones import CheckpointError
from miner_diag.backbones.pipeline import POOLING_FLAGS, read_pipeline

MEAN = {"pooling_mode_mean_tokens": True}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_a_plain_checkpoint_states_nothing(folder):
    pipeline = read_pipeline(folder)
    assert (pipeline.transformer, pipeline.pooling, pipeline.max_tokens) == (folder, None, None)
    assert (pipeline.query_prompt, pipeline.page_prompt, pipeline.include_prompt) == ("", "", True)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "lasttoken", "include_prompt": True}, "last"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({"pooling_mode_mean_tokens": False}, None),
        ({}, None),
    ],
)
def test_old_and_new_poolings(folder, pipeline_of, config, pooling):
    assert read_pipeline(pipeline_of(folder, config)).pooling == pooling


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"pooling_mode": "max"}, "states the pooling max;"),
        ({"pooling_mode": ["cls", "mean"]}, r"states the pooling cls \+ mean;"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, r"the pooling cls \+ mean;"),
        ({"pooling_mode_weightedmean_tokens": True}, "the pooling weightedmean;"),
    ],
)
def test_other_poolings_are_refused(folder, pipeline_of, config, named):
    with pytest.raises(CheckpointError, match=named):
        read_pipeline(pipeline_of(folder, config))


def test_the_flags_are_those_of_sentence_transformers():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from sentence_transformers.sentence_transformer.modules import pooling as theirs
    assert POOLING_FLAGS == theirs._LEGACY_POOLING_MODE_KWARGS


def test_prompts_and_limits(folder, pipeline_of):
    pipeline = read_pipeline(
        pipeline_of(
            folder,
            {**MEAN, "include_prompt": False},
            limits={"max_seq_length": 128, "do_lower_case": True},
            prompts={"prompts": {"query": "query: ", "passage": "passage: ", "document": None}},
        )
    )
    assert (pipeline.max_tokens, pipeline.lower_case, pipeline.include_prompt) == (128, True, False)
    assert (pipeline.query_prompt, pipeline.page_prompt) == ("query: ", "passage: ")


def test_a_default_prompt_of_neither_side_is_told(folder, pipeline_of, caplog):
    prompts = {"prompts": {"sts": "same? "}, "default_prompt_name": "sts"}
    assert read_pipeline(pipeline_of(folder, MEAN, prompts=prompts)).query_prompt == ""
    assert "default prompt 'sts' that is neither the query's nor the document's" in caplog.text


@pytest.mark.parametrize("module", ["Dense", "LayerNorm", "WeightedLayerPooling"])
def test_a_module_that_changes_the_vector_is_refused(folder, pipeline_of, module):
    with pytest.raises(CheckpointError, match=f"puts the module 'sentence_transformers.models.{module}' into"):
        read_pipeline(pipeline_of(folder, MEAN, modules=("Transformer", "Pooling", module)))


def test_a_module_of_the_checkpoints_own_code_is_refused(folder):
    (folder / "modules.json").write_text(json.dumps([{"type": "custom_st.Transformer", "path": ""}]))
    with pytest.raises(CheckpointError, match="puts the module 'custom_st.Transformer'"):
        read_pipeline(folder)


def test_modules_out_of_order_are_refused(folder, pipeline_of):
    with pytest.raises(CheckpointError, match="expected Transformer, Pooling, Normalize"):
        read_pipeline(pipeline_of(folder, MEAN, modules=("Pooling", "Transformer")))
    with pytest.raises(CheckpointError, match="names two Pooling modules"):
        read_pipeline(pipeline_of(folder, MEAN, modules=("Transformer", "Pooling", "Pooling")))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("query_expansion", {"length": 32}),
        ("transformer_task", "text-generation"),
        ("modality_config", {"message": {"method": "forward", "method_output_name": "last_hidden_state"}}),
        ("processing_kwargs", {"text": {"max_length": 3}}),
        ("max_seq_length", "long"),
        ("config_args", {"is_causal": False}),
    ],
)
def test_settings_that_change_the_text_are_refused(folder, pipeline_of, key, value):
    with pytest.raises(CheckpointError, match=f"sets {key} to {re.escape(repr(value))}"):
        read_pipeline(pipeline_of(folder, MEAN, limits={key: value}))


def test_bad_folders_are_sentences(tmp_path, folder):
    with pytest.raises(CheckpointError, match="is not a folder; expected a local transformers checkpoint"):
        read_pipeline(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no config.json"):
        read_pipeline(tmp_path / "empty")
    (folder / "modules.json").write_text("[{")
    with pytest.raises(CheckpointError, match=r"modules.json cannot be read as JSON"):
        read_pipeline(folder)
    (folder / "modules.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"modules.json must hold a JSON list; got dict"):
        read_pipeline(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is an adapter"):
        read_pipeline(folder)


WITHOUT = ("Transformer", "Pooling")


@pytest.mark.parametrize(
    ("settings", "modules"),
    [
        ({}, WITHOUT),
        ({"similarity_fn_name": None, "truncate_dim": None}, WITHOUT),
        ({"similarity_fn_name": "cosine", "model_type": "SentenceTransformer"}, WITHOUT),
        ({"similarity_fn_name": "dot"}, (*WITHOUT, "Normalize")),
    ],
)
def test_a_score_that_is_the_cosine_is_followed(folder, pipeline_of, settings, modules):
    assert read_pipeline(pipeline_of(folder, MEAN, modules=modules, prompts=settings)).pooling == "mean"


@pytest.mark.parametrize(
    ("settings", "modules", "named"),
    [
        ({"similarity_fn_name": "dot"}, WITHOUT, "similarity_fn_name to 'dot'"),
        ({"similarity_fn_name": "euclidean"}, (*WITHOUT, "Normalize"), "similarity_fn_name to 'euclidean'"),
        ({"similarity_fn_name": "manhattan"}, WITHOUT, "similarity_fn_name to 'manhattan'"),
        ({"similarity_fn_name": ["dot"]}, WITHOUT, r"similarity_fn_name to \['dot'\]"),
        ({"truncate_dim": 16}, WITHOUT, "truncate_dim to 16"),
        ({"model_type": "SparseEncoder"}, WITHOUT, "model_type to 'SparseEncoder'"),
        ({"prompts": ["query: "]}, WITHOUT, r"prompts to \['query: '\]"),
        ({"prompts": {"query": 7}}, WITHOUT, "prompts to {'query': 7}"),
    ],
)
def test_other_scores_and_settings_are_refused_by_name(folder, pipeline_of, settings, modules, named):
    with pytest.raises(CheckpointError, match=rf"config_sentence_transformers\.json sets {named}"):
        read_pipeline(pipeline_of(folder, MEAN, modules=modules, prompts=settings))
