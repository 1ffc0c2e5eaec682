"""Files that were changed: by a flipped bit, or on purpose and sealed again."""

import json

import numpy as np

from miner_diag.files import sha256_file
from miner_diag.sealed import sealed


def seal_again(path, content):
    """Write a JSON object as if the package had written it."""
    path.write_text(json.dumps(sealed({name: value for name, value in content.items() if name != "facts_sha256"})))


def seal_records(folder):
    """Note the records of a run as if the run had written them."""
    run = json.loads((folder / "run.json").read_text())
    seal_again(folder / "run.json", run | {"records_sha256": sha256_file(folder / "records.jsonl")})


def one_bit_flipped(content, n_places=25, seed=0):
    """Yield the bytes with one bit flipped, at places spread over the file and drawn within it."""
    rng = np.random.default_rng(seed)
    places = [*np.linspace(0, len(content) - 1, n_places // 2).astype(int), *rng.integers(len(content), size=n_places)]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        yield bytes(changed)
