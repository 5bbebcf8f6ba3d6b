"""`serve`: vLLM's OpenAI-compatible server with training as its background load."""

from __future__ import annotations

import json
from typing import Any

from bench.serving.server import serve as serve_site
from bench.serving.settings import ServeOptions
from bench.serving.site import site_of


def serve(given: dict[str, Any], options: dict[str, Any]) -> int:
    """Human text to stderr, one JSON object as the last line of stdout. Returns the exit code."""
    site = site_of(given, ServeOptions(**options))
    print(json.dumps(serve_site(site), separators=(",", ":")))
    return 0
