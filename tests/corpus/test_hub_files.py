"""Data sets of a hub over HTTP: the pinned commit, breaks and damage on the way, refusals, and what is read when.

The hub is a server on the loopback address (``HF_ENDPOINT``), asked by a process of its own as a user's would be.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from miner_diag.corpus import load_corpus
from tests.corpus.benchmarks import (
    COMMIT,
    LANGUAGES,
    shared_tables,
    tables_by_language,
    write_benchmark,
    write_manifest,
)
from tests.corpus.hub_server import Hub, Repository
from tests.corpus.parquet_files import png, save, write_card

ROOT = Path(__file__).parents[2]
OTHER = "f" * 40


class Client:
    """A process that loads data sets from a hub, with a cache of its own or one that an earlier process filled."""

    def __init__(self, hub, home, **environment):
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(home / "hf"),
            "MINER_DIAG_CACHE": str(home / "cache"),
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "127.0.0.1",
            **environment,
        }
        self.home = home
        command = [sys.executable, str(ROOT / "tests" / "corpus" / "hub_client.py")]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )

    def load(self, data, **given):
        self.process.stdin.write(json.dumps({"data": str(data), **given}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def client_of(hub, home, **environment):
    client = Client(hub, home, **environment)
    try:
        yield client
    finally:
        client.process.stdin.close()
        client.process.wait()
        client.process.stdout.close()


@pytest.fixture(scope="module")
def hub():
    with Hub({}) as running:
        yield running


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def client(hub, home):
    with client_of(hub, home) as running:
        yield running


@pytest.fixture
def publish(hub, tmp_path, request):
    """Put a data set on the hub under a name of its own; return its repository and its manifest."""

    def put(tables, commit=COMMIT, **changes):
        name = request.node.name.split("[")[0].removeprefix("test_")[:60] + str(len(hub.repositories))
        folder = write_benchmark(tmp_path / name, tables)
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
        hub.repositories[f"owner/{name}"] = Repository(files, commit)
        return hub.repositories[f"owner/{name}"], write_manifest(tmp_path / f"{name}.yaml", tables, **changes)

    return put


CORPUS = "corpus/test-00000-of-00001.parquet"


@pytest.mark.parametrize("tables_of", [shared_tables, tables_by_language])
def test_what_comes_from_a_hub_is_what_lies_in_a_folder(publish, client, tmp_path, tables_of):
    repository, manifest = publish(tables_of())
    found = client.load(manifest)
    local = load_corpus(write_benchmark(tmp_path / "local", tables_of()))
    assert found["revision"] == local.revision
    assert (found["pages"], found["queries"], found["languages"]) == (5, 16, list(LANGUAGES))
    assert found["metric"] == ("ndcg_at_5" if tables_of is shared_tables else "ndcg_at_10")
    assert {asked.revision for asked in repository.asked} == {COMMIT}, "nothing is asked for but the pinned commit"


def test_the_pages_of_all_languages_are_fetched_once_and_ids_alone_are_read_of_the_others(publish, client):
    tables = tables_by_language()
    for number, row in enumerate(tables["french-corpus"]):  # the rows of all languages
        row["image"] = {"bytes": png(min(number, 4), (200, 200)), "path": None}
    repository, manifest = publish(tables)
    assert client.load(manifest)["pages"] == 5
    whole = [asked.path for asked in repository.asked if asked.method == "GET" and asked.path and not asked.range]
    assert whole.count("french-corpus/test-00000-of-00001.parquet") == 1
    for language in LANGUAGES[1:]:
        name = f"{language}-corpus/test-00000-of-00001.parquet"
        parts = [asked.range.removeprefix("bytes=").split("-") for asked in repository.asked if asked.path == name]
        assert name not in whole and parts, "it is asked for in parts"
        read = sum(int(end) - int(start) + 1 for start, end in parts)
        assert read < len(repository.files[name]) / 4
    repository.asked.clear()
    assert client.load(manifest, subset="english")["queries"] == 4
    assert repository.asked == [], "all that is needed is here"


def test_a_later_process_needs_no_hub(publish, client, hub, home):
    repository, manifest = publish(shared_tables())
    first = client.load(manifest)
    repository.asked.clear()
    repository.status = 503
    with client_of(hub, home) as later, client_of(hub, home, HF_HUB_OFFLINE="1") as offline:
        assert later.load(manifest) == first == offline.load(manifest)
        assert "HF_HUB_OFFLINE is set, so no hub is asked" in offline.load(manifest, data_revision=OTHER)["error"]
    assert repository.asked == []


def test_a_download_that_breaks_off_is_taken_up_where_it_broke(publish, client):
    repository, manifest = publish(shared_tables())
    repository.cut[CORPUS] = 1000
    assert client.load(manifest)["pages"] == 5
    parts = [asked.range for asked in repository.asked if (asked.method, asked.path) == ("GET", CORPUS)]
    assert parts == ["", "bytes=1000-"]


def test_a_run_that_stopped_leaves_the_files_it_had(publish, client):
    """The hub fails behind the first table; the next load does not fetch that one again."""
    repository, manifest = publish(shared_tables())
    corpus = repository.files[CORPUS]
    repository.files[CORPUS], repository.altered[CORPUS] = corpus, b"short"
    assert "cannot be fetched: OSError: Consistency check failed" in client.load(manifest)["error"]
    repository.altered.clear()
    repository.asked.clear()
    assert client.load(manifest)["pages"] == 5
    assert {asked.path for asked in repository.asked} == {CORPUS, "qrels/test-00000-of-00001.parquet"}


def test_a_file_with_another_hash_is_refused_and_a_damaged_cache_is_fetched_anew(publish, client, home):
    repository, manifest = publish(shared_tables())
    whole = repository.files[CORPUS]
    repository.altered[CORPUS] = bytes([*whole[:-30], whole[-30] ^ 1, *whole[-29:]])
    told = client.load(manifest)["error"]
    assert f"{CORPUS} has the SHA-256 " in told and f"the hub says {repository.etag(CORPUS)}" in told
    assert "fetched again: something changes files on their way here" in told
    repository.altered.clear()
    assert client.load(manifest)["pages"] == 5, "the bad file in the cache is no obstacle"
    (blob,) = (home / "hf").rglob(f"datasets--owner--{manifest.stem}/blobs/{repository.etag(CORPUS)}")
    blob.write_bytes(b"damaged")
    assert client.load(manifest)["pages"] == 5 and blob.read_bytes() == whole


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "the hub wants to know who asks (401): it is private, or does not exist. If it is yours to read, log in"),
        (403, "the hub does not give it to this account (403)"),
        (404, "the hub has nothing of that name (404): it was renamed, removed, or misspelt"),
        (429, "the hub was asked too often (429): wait some minutes and start again, files that are here stay"),
        (503, "the hub itself is in trouble (503): start again later"),
    ],
)
def test_refusals_are_told_apart_in_plain_words(publish, client, status, sentence):
    repository, manifest = publish(shared_tables())
    repository.status = status
    told = client.load(manifest)["error"]
    assert f"{manifest.stem} (owner/{manifest.stem}, commit {COMMIT[:12]}) cannot be fetched: {sentence}" in told
    assert (
        f"(hf download owner/{manifest.stem} --repo-type dataset --revision {COMMIT} --local-dir {manifest.stem})"
        in told
    )


def test_a_gated_data_set_is_told_apart_from_a_private_one(publish, client):
    repository, manifest = publish(shared_tables())
    repository.status, repository.error = 403, "GatedRepo"
    assert "its owner gives it to those alone who agree to terms: do so on its page" in client.load(manifest)["error"]


def test_another_commit_and_a_hub_that_is_not_there_are_told_apart_too(publish, client, home):
    repository, manifest = publish(shared_tables())
    assert (
        "cannot be fetched: the hub has it, but not this commit (404)"
        in client.load(manifest, data_revision=OTHER)["error"]
    )
    assert {asked.revision for asked in repository.asked} == {OTHER}
    with Hub({}) as gone:
        pass
    with client_of(gone, home) as alone:
        assert f"cannot be fetched: no hub answers at {gone.url} (ConnectError)" in alone.load(manifest)["error"]


# --- counts and the lock


def lock_of(home, manifest, commit=COMMIT):
    return home / "cache" / "locks" / f"{manifest.stem}-{commit[:12]}.json"


def test_other_counts_than_the_manifests_are_an_error_and_at_another_commit_a_warning(publish, client, home):
    wrong = {"pages": 6, "pictures": 4, "queries": 3, "judgements": 5}
    repository, manifest = publish(shared_tables(), counts=wrong)
    told = client.load(manifest)["error"]
    assert (
        "holds 5 pictures instead of 4; 4 queries in french, 4 queries in spanish, 4 queries in english, 4 queries"
        in told
    )
    assert "in german instead of 3, as its manifest states" in told and "judgements" not in told
    assert not lock_of(home, manifest).exists()
    repository.commit = OTHER
    assert client.load(manifest, data_revision=OTHER)["queries"] == 16
    assert lock_of(home, manifest, OTHER).exists()


def test_another_number_of_pictures_alone_is_a_warning(publish, client):
    """mteb tells pictures apart by their pixels, and not by their files."""
    _, manifest = publish(shared_tables(), counts={"pages": 6, "pictures": 4, "queries": 4, "judgements": 5})
    assert client.load(manifest)["queries"] == 16


def test_the_first_load_writes_a_lock_and_a_later_one_is_held_against_it(publish, client, home, hub):
    repository, manifest = publish(shared_tables())
    first = client.load(manifest)
    lock = lock_of(home, manifest)
    noted = json.loads(lock.read_text())
    assert noted["revision"] == COMMIT and noted["hub_id"] == f"owner/{manifest.stem}" and len(noted["sha256"]) == 64
    assert noted["counts"]["queries"] == dict.fromkeys(LANGUAGES, 4)
    assert client.load(manifest) == first and json.loads(lock.read_text()) == noted
    # another machine's cache, and a hub whose commit is no longer what it was: a grade differs
    elsewhere = home / "elsewhere"
    (elsewhere / "cache" / "locks").mkdir(parents=True, exist_ok=True)
    (elsewhere / "cache" / "locks" / lock.name).write_bytes(lock.read_bytes())
    tables = shared_tables()
    tables["qrels"][0]["score"] = 1
    folder = write_benchmark(home / "changed", tables)
    name = "qrels/test-00000-of-00001.parquet"
    repository.files[name] = (folder / name).read_bytes()
    with client_of(hub, elsewhere) as other:
        told = other.load(manifest)["error"]
    assert f"data set {manifest.stem} is not what it was when it was first loaded from the hub: sha256 was" in told
    assert f"or delete {elsewhere / 'cache' / 'locks' / lock.name} if the data set of now is the right one" in told
    assert "counts" not in told


def test_a_lock_that_was_changed_is_refused(publish, client, home):
    _, manifest = publish(shared_tables())
    client.load(manifest)
    lock = lock_of(home, manifest)
    lock.write_text(lock.read_text().replace('"pages": 6', '"pages": 7'))
    assert (
        "is damaged: it was changed after it was written. Delete it if you trust the data"
        in client.load(manifest)["error"]
    )


# --- rows with pictures, as training sets have them


def test_a_training_set_is_fetched_by_the_same_way_and_one_subset_alone(hub, client, tmp_path):
    rows = {"en": [0, 1], "de": [2, 3]}
    folder = tmp_path / "rows"
    for language, numbers in rows.items():
        content = [{"id": str(n), "query": f"q{n}", "image": {"bytes": png(n), "path": None}} for n in numbers]
        save(folder / language, "train", content)
    write_card(folder, {language: f"{language}/train-*" for language in rows})
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    repository = hub.repositories["owner/rows"] = Repository(files, COMMIT)
    manifest = tmp_path / "rows.yaml"
    manifest.write_text(
        f"name: rows\nsource: hub\nhub_id: owner/rows\nrevision: {COMMIT}\ndescription: x\nsplit: train\nlicence: x\n"
        "subsets: [en, de]\ncolumns: [id, query, image]\ncounts: {rows: 4, queries: 4}\nfacts: x\n"
    )
    assert client.load(manifest, subset="de")["queries"] == 2
    assert not any(asked.path.startswith("en/") for asked in repository.asked)
    assert client.load(manifest)["queries"] == 4
