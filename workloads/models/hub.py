"""Whether the hub can be reached: asked once and quickly, where its own libraries would try again for half a minute."""

from __future__ import annotations

from functools import cache
from urllib.error import HTTPError
from urllib.request import Request, urlopen

TIMEOUT_S = 5


@cache
def in_reach() -> bool:
    """Whether the hub answers this process; never where HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=TIMEOUT_S).close()
    except HTTPError:
        return True  # it answers, if only to refuse
    except OSError:
        return False
    return True
