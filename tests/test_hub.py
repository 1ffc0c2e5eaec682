"""Why a hub did not give something, in plain words; the answers of a real server are in corpus/test_hub_files.py."""

import httpx
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from miner_diag.hub import OF_STATUS, why_not_fetched


def answered(kind, status):
    response = httpx.Response(status, request=httpx.Request("GET", "https://example.org/x"))
    return kind("the library's own words", response=response)


def behind(cause):
    """Return what the library raises where the cache cannot help either."""
    error = LocalEntryNotFoundError("we cannot find the files in the cache")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (answered(RepositoryNotFoundError, 401), "the hub wants to know who asks (401)"),
        (answered(HfHubHTTPError, 403), "the hub does not give it to this account (403)"),
        (answered(GatedRepoError, 403), "its owner gives it to those alone who agree to terms"),
        (answered(RepositoryNotFoundError, 404), "the hub has nothing of that name (404)"),
        (answered(RevisionNotFoundError, 404), "the hub has it, but not this commit (404)"),
        (answered(HfHubHTTPError, 429), "the hub was asked too often (429)"),
        (answered(HfHubHTTPError, 502), "the hub itself is in trouble (502)"),
        (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set"),
        (httpx.ConnectTimeout("slow"), f"no hub answers at {constants.ENDPOINT} (ConnectTimeout)"),
    ],
)
def test_each_refusal_has_a_sentence_of_its_own(error, words, wrapped):
    assert why_not_fetched(behind(error) if wrapped else error).startswith(words)


def test_what_is_not_known_is_named_as_it_is_on_one_line():
    assert why_not_fetched(OSError("no\nspace")) == "OSError: no space"
    assert len(why_not_fetched(ValueError("x" * 999))) < 250


def test_sentences_are_no_two_alike():
    assert len(set(OF_STATUS.values())) == len(OF_STATUS)
    assert all(f"({status})" in sentence for status, sentence in OF_STATUS.items())
