"""Every engine keeps one promise, whatever stands behind it."""

import errno
import shutil
from collections import namedtuple

import numpy as np
import pytest

from miner_diag.files import PlaceError
from miner_diag.retrieval.maxsim import maxsim_scores
from miner_diag.retrieval.search import top_k
from miner_diag.retrieval.tokens import TokenVectors
from miner_diag.serving.engine import (
    EngineError,
    ServerOptions,
    Space,
    allocated_bytes,
    default_kind,
    open_engine,
    point_id,
    refuse_full_disk,
)
from tests.serving.helpers import ENGINES, ids_of, needs_client, needs_edge, opener, token_vectors, unit

WIDTH = 24

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")
"""The client says so of its imitation of a server, once."""


@pytest.fixture(params=ENGINES)
def opened(request, tmp_path):
    return opener(request.param, tmp_path / "engine", request)


@pytest.fixture
def vectors(rng):
    return unit(rng.normal(size=(200, WIDTH))).astype(np.float32)


def test_exact_search_is_our_own_search(opened, vectors, rng):
    engine = opened(Space(WIDTH))
    engine.upsert(ids_of(200), vectors, [{"page": number} for number in range(200)])
    engine.optimize()
    queries = rng.normal(size=(20, WIDTH)).astype(np.float32)
    expected = top_k(queries, vectors, 10)
    for row, query in enumerate(queries):
        found = engine.search(query, 10, exact=True)
        assert [point.payload["page"] for point in found] == expected.pages[row].tolist()
        assert [point.point_id for point in found] == [ids_of(200)[page] for page in expected.pages[row]]
        assert [point.score for point in found] == pytest.approx(expected.scores[row].tolist(), abs=2e-6)
    engine.close()


def test_search_through_the_graph_finds_nearly_all(opened, vectors):
    """Each point is its own nearest one, which no walk through a sound graph of 200 points misses."""
    engine = opened(Space(WIDTH))
    engine.upsert(ids_of(200), vectors)
    engine.optimize()
    first = [engine.search(vector, 1)[0].point_id for vector in vectors]
    assert np.mean([found == expected for found, expected in zip(first, ids_of(200), strict=True)]) >= 0.99
    engine.close()


def test_a_point_that_is_sent_twice_is_there_once_with_what_came_last(opened, vectors):
    engine = opened(Space(WIDTH))
    engine.upsert(ids_of(200), vectors, [{"page": number} for number in range(200)])
    engine.upsert(ids_of(5), vectors[100:105], [{"page": -1}] * 5)
    engine.optimize()
    assert engine.count() == 200 and engine.ids() == set(ids_of(200))
    pair = {point.point_id for point in engine.search(vectors[100], 2, exact=True)}
    assert pair == {ids_of(200)[0], ids_of(200)[100]}
    assert engine.search(-vectors[0], 200, exact=True)[-1].point_id != ids_of(1)[0], "the old vector is still there"
    engine.close()


def test_deleted_points_are_not_found(opened, vectors):
    engine = opened(Space(WIDTH))
    engine.upsert(ids_of(200), vectors)
    engine.optimize()
    engine.delete([*ids_of(50), ids_of(1, start=9_999)[0]])
    engine.delete([])
    engine.optimize()
    assert engine.count() == 150 and engine.ids() == set(ids_of(150, start=50))
    assert not {found.point_id for found in engine.search(vectors[0], 200)} & set(ids_of(50))
    engine.close()


def test_points_outlive_the_process_that_wrote_them(opened, vectors, request):
    engine = opened(Space(WIDTH))
    engine.upsert(ids_of(200), vectors, [{"document": "ä", "page": number} for number in range(200)])
    engine.optimize()
    if "client-local" not in request.node.name:  # a client that is closed forgets what it imitated
        engine.close()
    again = opened(Space(WIDTH))
    assert again.count() == 200
    found = again.search(vectors[7], 1, exact=True)[0]
    assert found.payload == {"document": "ä", "page": 7} and found.score == pytest.approx(1.0, abs=1e-6)
    again.close()


def test_an_empty_engine_finds_nothing(opened):
    engine = opened(Space(WIDTH))
    engine.optimize()
    assert engine.count() == 0 and engine.ids() == set()
    assert engine.search(np.ones(WIDTH, dtype=np.float32), 3) == []
    engine.close()


@pytest.mark.parametrize("stored_as", ["float32", "float16"])
def test_token_vectors_are_searched_by_maxsim(opened, rng, stored_as):
    pages, query = token_vectors(rng, 30, WIDTH), rng.normal(size=(5, WIDTH)).astype(np.float32)
    engine = opened(Space(WIDTH, stored_as=stored_as, tokens=True))
    engine.upsert(ids_of(30), pages)
    engine.optimize()
    scores = maxsim_scores(TokenVectors.from_items([query]), pages)[0]
    order = np.argsort(-scores, kind="stable")[:5]
    found = engine.search(query, 5, exact=True)
    assert [point.point_id for point in found] == [ids_of(30)[page] for page in order]
    assert [point.score for point in found] == pytest.approx(scores[order].tolist(), abs=2e-3)
    engine.close()


def test_another_width_is_refused_on_the_way_in_and_out(opened, vectors):
    engine = opened(Space(WIDTH))
    with pytest.raises(EngineError, match=r"vectors must have the width 24; got \[200, 12\]"):
        engine.upsert(ids_of(200), vectors[:, :12])
    engine.upsert(ids_of(200), vectors)
    with pytest.raises(EngineError, match=r"query must be \[24\]; got \[12\]. Is it of the same model"):
        engine.search(vectors[0, :12], 1)
    with pytest.raises(EngineError, match="k must be at least 1; got 0"):
        engine.search(vectors[0], 0)
    engine.optimize()
    if getattr(engine, "kind", "") != "qdrant-server":
        engine.close()
    with pytest.raises(EngineError, match="holds points of .*expected Space"):
        opened(Space(WIDTH * 2))


@pytest.mark.parametrize(("value", "why"), [(0.0, "is zero"), (np.nan, "holds NaN"), (np.inf, "holds NaN or an inf")])
def test_vectors_without_a_direction_are_refused(opened, vectors, value, why):
    """Qdrant takes them without a word."""
    engine = opened(Space(WIDTH))
    bad = vectors.copy()
    bad[3] = value
    with pytest.raises(EngineError, match=f"the vector of {ids_of(200)[3]} {why}"):
        engine.upsert(ids_of(200), bad)
    assert engine.count() == 0
    with pytest.raises(EngineError, match="has no cosine"):
        engine.search(bad[3], 1)
    engine.close()


def test_ids_that_cannot_be_are_refused(opened, vectors):
    engine = opened(Space(WIDTH))
    with pytest.raises(EngineError, match="got 2 ids, 3 vectors"):
        engine.upsert(ids_of(2), vectors[:3])
    with pytest.raises(EngineError, match="stands twice"):
        engine.upsert([*ids_of(2), ids_of(1)[0]], vectors[:3])
    with pytest.raises(EngineError, match="must be UUIDs.*got 'page 1'"):
        engine.upsert(["page 1"], vectors[:1])
    with pytest.raises(EngineError, match="vectors must be one vector a point here; got the vectors of all tokens"):
        engine.upsert(ids_of(1), TokenVectors.from_items([vectors[:2]]))
    engine.close()


@pytest.mark.parametrize("quantization", ["int8", "binary"])
@pytest.mark.parametrize("kind", [pytest.param("qdrant-edge", marks=needs_edge)])
def test_compressed_vectors_are_scored_again(kind, quantization, tmp_path, rng):
    """Scores of what is found are those of whole vectors; more bits find more of the true ten."""
    vectors = unit(rng.normal(size=(2_000, 96))).astype(np.float32)
    engine = open_engine(kind, tmp_path, Space(96, quantization))
    engine.upsert(ids_of(2_000), vectors)
    engine.optimize()
    assert engine.indexed_count() == engine.count() == 2_000
    queries = vectors[:40] + 0.05 * rng.normal(size=(40, 96)).astype(np.float32)
    truth, shares = top_k(queries, vectors, 10), []
    for row, query in enumerate(queries):
        found = engine.search(query, 10)
        columns = [int(point.point_id[-12:], 16) for point in found]
        assert [point.score for point in found] == pytest.approx((vectors[columns] @ unit(query)).tolist(), abs=1e-5)
        shares.append(len(set(columns) & set(truth.pages[row].tolist())) / 10)
        exact = engine.search(query, 10, exact=True)
        assert [int(point.point_id[-12:], 16) for point in exact] == truth.pages[row].tolist()
    assert np.mean(shares) > {"int8": 0.95, "binary": 0.3}[quantization]
    engine.close()


@needs_edge
def test_bytes_on_disk_are_blocks_not_lengths(tmp_path, rng):
    engine = open_engine("qdrant-edge", tmp_path, Space(64))
    engine.upsert(ids_of(500), rng.normal(size=(500, 64)).astype(np.float32))
    engine.optimize()
    raw, lengths = 500 * 64 * 4, sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert raw <= engine.bytes_on_disk() < lengths / 4, "files are sparse: their lengths say nothing"
    engine.close()


def test_allocated_bytes_of_a_sparse_file(tmp_path):
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(50_000_000)
    (tmp_path / "full").write_bytes(b"x" * 10_000)
    assert 10_000 <= allocated_bytes(tmp_path) < 100_000


def test_a_full_disk_is_told_before_anything_is_sent(opened, vectors, monkeypatch, request):
    if "client" in request.node.name or "server" in request.node.name:
        pytest.skip("the disk is the server's")
    engine = opened(Space(WIDTH))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "total used free")(10**9, 10**9, 1_000))
    with pytest.raises(PlaceError, match="cannot be written .*No space left.*free space there") as caught:
        engine.upsert(ids_of(200), vectors)
        engine.optimize()
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    engine.upsert(ids_of(200), vectors)
    engine.optimize()
    assert engine.count() == 200
    engine.close()


def test_room_for_what_is_written_is_enough(tmp_path):
    refuse_full_disk(tmp_path / "not" / "there" / "yet", 1_000)
    with pytest.raises(PlaceError):
        refuse_full_disk(tmp_path, 10**18)


@needs_edge
def test_errors_of_the_engine_become_sentences(tmp_path, rng, monkeypatch):
    from miner_diag.serving.qdrant_edge_engine import EdgeEngine

    engine = EdgeEngine(tmp_path, Space(WIDTH))

    class Full:
        def update(self, operation):
            raise Exception("Service internal error: No space left on device (os error 28)")

    shard, engine._shard = engine._shard, Full()
    with pytest.raises(EngineError, match="cannot be written .*No space left on device.*; free space there"):
        engine.upsert(ids_of(1), rng.normal(size=(1, WIDTH)).astype(np.float32))
    shard.close()


@needs_client
def test_a_server_that_does_not_answer_is_a_sentence(tmp_path):
    with pytest.raises(EngineError, match="the Qdrant server does not do what it is asked .*can be reached"):
        open_engine("qdrant-server", tmp_path, Space(WIDTH), server=ServerOptions("http://127.0.0.1:9"), name="fused")


def test_the_engine_that_is_taken(monkeypatch, tmp_path):
    assert default_kind(ServerOptions("http://localhost:6333")) == "qdrant-server"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert default_kind() == "exact"
    with pytest.raises(EngineError, match=r"needs the package qdrant-edge; pip install 'miner-diag\[serving\]'"):
        open_engine("qdrant-edge", tmp_path, Space(WIDTH))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: Space(0), "width must be at least 1; got 0"),
        (lambda: Space(4, "int4"), "quantization must be one of none, int8, binary; got 'int4'"),
        (lambda: Space(4, stored_as="float64"), "stored_as must be one of float32, float16; got 'float64'"),
        (lambda: ServerOptions(shards=2), "have no effect without --qdrant-url"),
        (lambda: ServerOptions("http://x", replicas=0), "must be at least 1; got 1 and 0"),
        (lambda: open_engine("exact", None, Space(4, "int8")), "int8 needs the engine qdrant-edge or qdrant-server"),
    ],
)
def test_what_cannot_be_is_refused(wrong, sentence):
    with pytest.raises(EngineError, match=sentence):
        wrong()


def test_point_ids_are_told_apart():
    ids = {point_id(document, page) for document in ("a", "b", "caf\udce9") for page in range(50)}
    assert len(ids) == 150
