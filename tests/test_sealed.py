"""What carries its own hash comes back as it was written, or not at all."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner_diag.sealed import DamagedError, UnsealedError, check_seal, read_sealed, read_tensors, sealed, write_tensors
from tests.damage import one_bit_flipped

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('aä\n\\"é☃\udc80'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc", max_size=4), values, max_size=4))
def test_sealed_facts_come_back_through_json(facts):
    content = json.loads(json.dumps(sealed(facts), indent=2))
    assert check_seal(content) == {**facts, "facts_sha256": content["facts_sha256"]}


@given(st.dictionaries(st.text("abc", max_size=4), values, min_size=1, max_size=4), st.data())
def test_another_value_or_name_is_noticed(facts, data):
    content = sealed(facts)
    name = data.draw(st.sampled_from(sorted(facts)))
    for changed in ({**content, name: [facts[name]]}, {**content, "more": 1}, {**content, "facts_sha256": "0" * 64}):
        with pytest.raises(DamagedError, match="it was changed after it was written"):
            check_seal(changed)


def test_what_has_no_hash_is_told_from_what_is_damaged(tmp_path):
    with pytest.raises(UnsealedError, match="it has no hash of its content, as an earlier version wrote it"):
        check_seal({"a": 1})
    path = tmp_path / "facts.json"
    for text in (b"{", b"\xff", b"[" * 100_000, b"[]", b'{"a": NaN, "facts_sha256": "0"}'):
        path.write_bytes(text)
        with pytest.raises(DamagedError):
            read_sealed(path)


def test_numbers_that_json_does_not_have_are_not_sealed():
    with pytest.raises(ValueError, match="JSON"):
        sealed({"a": float("nan")})


def test_tensors_come_back_and_a_flipped_bit_is_noticed(tmp_path, rng):
    path = tmp_path / "a.safetensors"
    arrays = {
        "x": rng.normal(size=(3, 4)),
        "mask": np.array([True, False]),
        "step": np.array(3),
        "none": np.zeros((0, 2)),
    }
    write_tensors(path, arrays, {"key": "k", "list": [1, 2]})
    facts, found = read_tensors(path)
    assert facts == {"key": "k", "list": [1, 2]} and set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    n_noticed = 0
    for changed in one_bit_flipped(path.read_bytes(), 300):
        path.write_bytes(changed)
        try:
            again = read_tensors(path)
        except DamagedError:
            n_noticed += 1
            continue
        assert again[0] == facts and all(np.array_equal(again[1][name], array) for name, array in arrays.items())
    assert n_noticed > 400


def test_another_library_wrote_these_tensors(tmp_path):
    from safetensors.numpy import save_file

    save_file({"x": np.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(UnsealedError):
        read_tensors(tmp_path / "a.safetensors")
