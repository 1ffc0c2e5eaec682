"""Loads data sets for a test, in a process whose hub is the test's own: one request and one answer a line."""

import json
import sys
from types import SimpleNamespace

import huggingface_hub.constants
import huggingface_hub.file_download
import huggingface_hub.utils._http

from miner_diag.corpus import load_corpus


def main():
    huggingface_hub.utils._http.time = SimpleNamespace(
        sleep=lambda seconds: None
    )  # asks again at once where it would wait
    huggingface_hub.file_download.time = huggingface_hub.utils._http.time
    huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 500  # what has come when a connection breaks is kept in such chunks

    for line in sys.stdin:
        given = json.loads(line)
        try:
            corpus = load_corpus(**given)
        except (ValueError, OSError) as error:
            answer = {"error": str(error)}
        else:
            answer = {
                "name": corpus.name,
                "revision": corpus.revision,
                "pages": len(corpus.pages),
                "languages": corpus.languages,
                "queries": len(corpus.queries),
                "metric": corpus.benchmark and corpus.benchmark.metric,
                "size": corpus.render(corpus.pages[0].page_id).size,
            }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
