"""Whether the hub can be reached: asked once and quickly, where its own libraries would try again for half a minute."""

from __future__ import annotations

import errno
from functools import cache
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from bench.errors import UsageError

TIMEOUT_S = 5
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.ENOSPC, errno.EDQUOT)


@cache
def in_reach() -> bool:
    """Whether the hub answers this process; never where HF_HUB_OFFLINE is set. UsageError for an address that is none."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    endpoint = check_endpoint()
    try:
        urlopen(Request(endpoint, method="HEAD"), timeout=TIMEOUT_S).close()
    except HTTPError:
        return True  # it answers, if only to refuse
    except OSError:
        return False
    except (ValueError, HTTPException) as error:
        raise UsageError(f"HF_ENDPOINT={endpoint}: no hub can be asked there ({error}); mend or unset it") from None
    return True


def check_endpoint() -> str:
    """The hub's address; UsageError where HF_ENDPOINT is none."""
    from huggingface_hub import constants

    endpoint = constants.ENDPOINT
    try:
        address = urlsplit(endpoint)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("it has to begin with https:// and a host")
    except ValueError as error:
        raise UsageError(f"HF_ENDPOINT={endpoint}: no hub can be asked there ({error}); mend or unset it") from None
    return endpoint


def refuse_unwritable(error: OSError) -> None:
    """UsageError where a download failed because the hub's cache cannot be written; else the hub is out of reach."""
    if error.errno in UNWRITABLE:
        from huggingface_hub import constants

        where = error.filename or constants.HF_HUB_CACHE
        raise UsageError(f"HF_HOME={constants.HF_HOME}: {where}: {error.strerror}; set HF_HOME to a folder that can be written")
