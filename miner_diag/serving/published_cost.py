"""What MINER's authors report of serving: published, not run here."""

from __future__ import annotations

import pandas as pd
import yaml

from miner_diag.corpus.manifest_file import manifest_folder
from miner_diag.evaluation.published import LABEL
from miner_diag.serving.errors import ServingError

FILE = "costs.yaml"
"""The file in the folder of published numbers, which is part of the package."""


def published_costs() -> pd.DataFrame:
    """Return the published rows, with columns of ``cost.csv``.

    Raises
    ------
    ServingError
        If the file is missing or is not what it was.
    """
    path = manifest_folder() / "published" / FILE
    try:
        stated = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows = pd.DataFrame(stated["rows"])
        rows["bytes_on_disk"] = rows.pop("index_megabytes") * 1e6
        label = f"{LABEL}: {stated['source']}"
        return rows.assign(data=stated["data"], label=label)
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ServingError(f"{path} cannot be read ({error}); install the package again") from None
