"""Points, and every engine that this machine has."""

from __future__ import annotations

import importlib.util
import os
import uuid

import numpy as np
import pytest

from miner_diag.retrieval.tokens import TokenVectors
from miner_diag.serving.engine import ServerOptions, open_engine

URL_VARIABLE = "MINER_DIAG_QDRANT_URL"
"""The address of a server that tests may fill; without it they are skipped."""

needs_edge = pytest.mark.skipif(importlib.util.find_spec("qdrant_edge") is None, reason='needs the extra "serving"')
needs_client = pytest.mark.skipif(importlib.util.find_spec("qdrant_client") is None, reason='needs the extra "serving"')
needs_server = pytest.mark.skipif(URL_VARIABLE not in os.environ, reason=f"needs a Qdrant server at ${URL_VARIABLE}")

ENGINES = [
    "exact",
    pytest.param("qdrant-edge", marks=needs_edge),
    pytest.param("client-local", marks=needs_client),
    pytest.param("qdrant-server", marks=[needs_client, needs_server]),
]
"""`client-local` runs our calls of the client against the client's own imitation of a server."""


def ids_of(n, start=0):
    return [str(uuid.UUID(int=number)) for number in range(start, start + n)]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def token_vectors(rng, n, width):
    return TokenVectors.from_items(
        [rng.normal(size=(int(rng.integers(2, 9)), width)).astype(np.float32) for _ in range(n)]
    )


def opener(kind, folder, request=None):
    """Return what opens an engine again and again in one place, as one process after the other would."""
    if kind == "client-local":
        from qdrant_client import QdrantClient

        from miner_diag.serving.qdrant_server_engine import ServerEngine

        client = QdrantClient(":memory:")
        return lambda space: ServerEngine(client, "test", space, ServerOptions("http://nowhere"))
    if kind == "qdrant-server":
        from miner_diag.serving.qdrant_server_engine import connect

        server, name = ServerOptions(os.environ[URL_VARIABLE], f"miner-diag-test-{uuid.uuid4()}"), "page"
        request.addfinalizer(lambda: connect(server.qdrant_url).delete_collection(f"{server.collection}-{name}"))
        return lambda space: open_engine(kind, folder, space, server=server, name=name)
    return lambda space: open_engine(kind, folder, space)
