from __future__ import annotations

import contextlib
import io
import json
from types import SimpleNamespace

import pytest

from miner_diag.evaluation.__main__ import main as evaluate
from miner_diag.fusion.__main__ import main as fit
from tests.handbooks import save_retriever, write_handbooks

FIT = (
    "--pooling mean --device cpu --reader text-layer --queries verbatim --folds 1 --systems default no_bias fusion_mrl "
    "--n-seeds 2 --rate-scales 1.0 --training.epochs 2 --training.negatives 30 --probe.epochs 1 --probe.batch-size 16 "
    "--probe.resamples 2 --probe.rule top_k"
).split()
"""A fusion of a small retriever, its heads and two variants, on two splits by document; some seconds."""


@pytest.fixture(scope="session")
def session_cache(cache_of_session):
    """What is read of a PDF in one fixture of the session is there in the others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINER_DIAG_CACHE", str(cache_of_session))
        yield


@pytest.fixture(scope="session")
def fitted(tmp_path_factory, one_thread, session_cache):
    """Twenty handbooks, a small retriever, and a fusion run over them."""
    checkpoint = save_retriever(tmp_path_factory.mktemp("retrievers") / "small-bert")
    documents = write_handbooks(tmp_path_factory.mktemp("documents") / "handbooks")
    folder = tmp_path_factory.mktemp("runs")
    where = ["--model", str(checkpoint), "--data", str(documents)]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        # what costs most of the probe stage, and decides nothing
        patch.setattr("miner_diag.probes.study.correlate", lambda *args, **how: None)
        fit([*where, *FIT, "--store", str(folder / "store"), "--out", str(folder / "fusion")])
    return SimpleNamespace(
        checkpoint=checkpoint, documents=documents, folder=folder, fusion=folder / "fusion", store=folder / "store"
    )


@pytest.fixture(scope="session")
def arguments(fitted):
    """The command line that evaluates the fusion on its own test documents, and more."""

    def make(out, *more, systems=None, data=None):
        listed = [str(fitted.fusion)] if systems is None else [str(system) for system in systems]
        fixed = ["--systems", *listed, "--store", str(fitted.store), "--out", str(out)]
        where = ["--data", str(fitted.documents), "--queries", "verbatim"] if data is None else ["--data", str(data)]
        return [*fixed, *where, *more]

    return make


@pytest.fixture(scope="session")
def evaluated(fitted, arguments):
    """The fusion and late interaction evaluated on the fusion's own test documents."""
    out, printed = fitted.folder / "evaluation", io.StringIO()
    with contextlib.redirect_stdout(printed):
        evaluate(arguments(out, systems=[fitted.fusion, "page-text-late"]))
    return SimpleNamespace(out=out, printed=printed.getvalue(), run=json.loads((out / "run.json").read_text()))
