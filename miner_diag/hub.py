"""Ids and commits that a hub can have, and in plain words why it did not give what was asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator

HUB_ID = re.compile(r"(?!.*(?:\.\.|--))[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
"""owner/name, in the letters that a hub has."""

COMMIT = re.compile(r"[0-9a-f]{40}")
"""A full commit hash; also the name of a snapshot's folder in the hub's cache."""

LOG_IN = "log in with hf auth login, or set HF_TOKEN"
OF_STATUS = {
    401: f"the hub wants to know who asks (401): it is private, or does not exist. If it is yours to read, {LOG_IN}",
    403: f"the hub does not give it to this account (403): ask its owner, or {LOG_IN} of another account",
    404: "the hub has nothing of that name (404): it was renamed, removed, or misspelt",
    429: "the hub was asked too often (429): wait some minutes and start again, files that are here stay; or " + LOG_IN,
}
"""What a refusal of the hub means."""


def why_not_fetched(error: BaseException) -> str:
    """Return, in a few words, why huggingface_hub could not fetch something.

    What the hub answered is told apart by its status (401, 403, 404, 429, 5xx), from no answer at all, and from being
    told to ask no hub. Anything else is named as it is.

    Parameters
    ----------
    error : exception
        What the library raised; what it was raised from is looked at too.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RevisionNotFoundError

    links = list(_links(error))
    for kind, reason in (
        (OfflineModeIsEnabled, "HF_HUB_OFFLINE is set, so no hub is asked, and the hub's cache does not hold it"),
        (GatedRepoError, f"its owner gives it to those alone who agree to terms: do so on its page, then {LOG_IN}"),
        (RevisionNotFoundError, "the hub has it, but not this commit (404)"),
    ):
        if any(isinstance(link, kind) for link in links):
            return reason
    responses = [getattr(link, "response", None) for link in links]
    status = next((response.status_code for response in responses if response is not None), 0)
    if status in OF_STATUS:
        return OF_STATUS[status]
    if status >= 500:
        return f"the hub itself is in trouble ({status}): start again later, files that are here stay"
    if network := next((link for link in links if type(link).__module__.startswith("httpx")), None):
        return f"no hub answers at {constants.ENDPOINT} ({type(network).__name__})"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _links(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
