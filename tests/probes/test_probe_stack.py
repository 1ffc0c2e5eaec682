import numpy as np
import pytest

from miner_diag.probes import ProbeError, ProbeStack

KEY = {"backbone": "tiny", "backbone_revision": "sha256:1", "pooling": "mean"}


@pytest.fixture
def stack(rng):
    return ProbeStack(
        rng.normal(size=(3, 2, 4)).astype(np.float32), rng.normal(size=(3, 2, 4, 4)).astype(np.float32), KEY
    )


def test_saved_and_loaded_is_the_same(stack, tmp_path):
    stack.save(tmp_path / "probes.safetensors")
    again = ProbeStack.load(tmp_path / "probes.safetensors", KEY)
    np.testing.assert_array_equal(again.gates, stack.gates)
    np.testing.assert_array_equal(again.weights, stack.weights)
    assert again.backbone == KEY
    assert [path.name for path in tmp_path.iterdir()] == ["probes.safetensors"]


def test_another_backbone_is_refused_and_the_field_named(stack, tmp_path):
    stack.save(tmp_path / "probes.safetensors")
    with pytest.raises(ProbeError, match=r"another backbone.*backbone_revision: 'sha256:1' there, 'sha256:2' asked"):
        ProbeStack.load(tmp_path / "probes.safetensors", KEY | {"backbone_revision": "sha256:2"})


def test_what_is_no_probe_file_is_refused(tmp_path):
    with pytest.raises(ProbeError, match="is not there; fit probes with python -m miner_diag.probes"):
        ProbeStack.load(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ProbeError, match="bad.safetensors is damaged: it holds no tensors .*; fit again"):
        ProbeStack.load(tmp_path / "bad.safetensors")


def test_sides_have_their_own_probe(stack, rng):
    vectors = rng.normal(size=(5, 4))
    for kind in ("base", "normalized_projection"):
        probe = stack.probe(1, kind)
        query, page = probe.apply(vectors, "query"), probe.apply(vectors, "page")
        np.testing.assert_allclose(np.linalg.norm(query, axis=1), 1, atol=1e-6)
        assert np.abs(query - page).max() > 0.01


def test_errors_name_what_was_asked(stack, rng):
    with pytest.raises(ValueError, match="layer must be 0 … 2; got 3"):
        stack.probe(3, "base")
    with pytest.raises(ValueError, match="kind must be one of base, normalized_projection; got 'linear'"):
        stack.probe(0, "linear")
    with pytest.raises(ValueError, match=r"vectors must be \[N, 4\]; got \[2, 5\]"):
        stack.probe(0, "base").apply(np.ones((2, 5)))
    with pytest.raises(ValueError, match="side must be 'query' or 'page'; got 'doc'"):
        stack.probe(0, "base").apply(np.ones((2, 4)), "doc")
