"""Uploads go to the hub that is asked, whole and on request alone; the hub here is one of the test's own."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest

from miner_diag.serving import FusedRetriever, ServingError
from miner_diag.serving.upload import push_folder
from tests.serving.made import QUERIES, fusion, served

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """A hub that takes one repository in one commit, and keeps what it got."""

    daemon_threads = True

    def __init__(self, status=200):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.made, self.files, self.asked = status, [], {}, []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(self.path)
        if self.server.status != 200:
            self._send({"error": "no"}, self.server.status)
        elif self.path == "/api/repos/create":
            self.server.made.append(json.loads(body))
            self._send({"url": f"{self.server.address}/owner/name"})
        elif self.path == "/api/validate-yaml":  # the header of the card
            self._send({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            self._send({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]})
        elif self.path.endswith("/commit/main"):
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            url = f"{self.server.address}/owner/name/commit/{COMMIT}"
            self._send({"commitUrl": url, "commitOid": COMMIT, "success": True, "hookOutput": ""})
        else:
            self._send({"error": f"unexpected {self.path}"}, 404)

    def do_GET(self):
        self.server.asked.append(self.path)
        self._send({"error": "nothing here"}, 404)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass

    def _send(self, content, status=200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch):
    """The hub that huggingface_hub talks to."""
    started = []

    def start(status=200):
        server = Hub(status)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def test_a_pushed_retriever_is_the_one_that_was_pushed(load, hub, tmp_path):
    retriever, server = served(load(), fusion()), hub()
    address = retriever.push_to_hub("owner/name")
    assert address.endswith(COMMIT)
    (made,) = server.made
    assert (made["organization"], made["name"]) == ("owner", "name")
    assert made.get("private") is True or made.get("visibility") == "private"  # by the version of huggingface_hub
    assert {"README.md", "config.json", "model.safetensors", "modules.json"} <= set(server.files)
    for path, content in server.files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    again = FusedRetriever.from_pretrained(tmp_path)
    assert again.fingerprint == retriever.fingerprint
    assert (again.encode_queries(QUERIES) == retriever.encode_queries(QUERIES)).all()


def test_nothing_is_sent_unless_it_is_asked_for(load, hub, tmp_path):
    server = hub()
    retriever = served(load(), fusion())
    retriever.save_pretrained(tmp_path)
    FusedRetriever.from_pretrained(tmp_path).encode_queries(QUERIES)
    assert server.asked == []


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "the hub wants to know who asks"), (403, "does not give it to this")]
)
def test_a_hub_that_does_not_take_it_is_told_why(status, reason, load, hub, tmp_path):
    served(load(), fusion()).save_pretrained(tmp_path)
    hub(status)
    with pytest.raises(ServingError, match=f"owner/name was not uploaded \\(.*{reason}"):
        push_folder(tmp_path, "owner/name")


def test_what_is_no_retriever_or_no_name_is_refused(load, tmp_path):
    with pytest.raises(ServingError, match="holds no config.json"):
        push_folder(tmp_path, "owner/name")
    served(load(), fusion()).save_pretrained(tmp_path)
    with pytest.raises(ServingError, match="repo_id must be owner/name; got 'name'"):
        push_folder(tmp_path, "name")
