"""A program of the suite, whatever it was started with: streams that last, its own modules, one line and an exit code for errors.

Imports what is built into Python alone: a file in the working directory may hide anything else until the search path is right.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from bench import shadowing, streams
from bench.errors import UsageError


def leave_out_working_directory() -> str | None:
    """`python -m` looks into the working directory first; nothing is looked for there unless the suite itself lies in it.

    Returns the folder that was taken off the search path.
    """
    if sys.flags.safe_path or not sys.path or os.path.realpath(sys.path[0]) == os.path.realpath(shadowing.ROOT):
        return None
    return sys.path.pop(0)


def whole(main: Callable[[], int], left_out: str | None = None) -> int:
    """Call a command line and return its exit code; what it prints survives readers that go away.

    main: imports the rest itself, and is called when that is safe. left_out: a folder taken off the search path.
    """
    streams.mend()
    try:
        shadowing.refuse_hidden()
    except UsageError as error:
        return complain(str(error), 2)
    if left_out and (files := shadowing.hidden_by(left_out)):
        names = ", ".join(files)
        print(f"note: {names}: hidden from this program, which has modules of the same names", file=sys.stderr)
    code = main()
    if (reason := streams.lost_output()) is not None:
        return complain(f"standard output: {reason}; the files that were written are whole", code or 1)
    return code


def call(app: Any, arguments: Sequence[str], name: str) -> int:
    """Run a typer app. Exit codes: 0 done, 1 failed or regression, 2 usage; one line on stderr for 1 and 2.

    name: how the program is started. Its commands find the arguments in `context.obj`. A first argument --debug is the app's own,
    and prints where an error came from.
    """
    import typer

    debug = "--debug" in arguments[:1]
    parse_error = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")  # not exported by name
    try:
        return int(app(list(arguments), prog_name=name, standalone_mode=False, obj=list(arguments)) or 0)
    except UsageError as error:
        return complain(str(error), 2, debug)
    except parse_error as error:  # type: ignore[misc]
        message = _parse_message(error, arguments)
        return complain(f"{message}; see --help", 2, debug) if message else 2  # no command was given, and the help is printed
    except (typer.Abort, KeyboardInterrupt):
        return complain("interrupted", 1, debug)
    except OSError as error:
        return complain(str(error), 1, debug)
    except Exception as error:  # the last resort: a clear line instead of a traceback
        return complain(f"unexpected {type(error).__name__}: {error} ({name} --debug ... shows where)", 1, debug)


def complain(text: str, code: int, debug: bool = False) -> int:
    """One line on stderr; returns the exit code."""
    if debug:
        traceback.print_exc()
    print("error: " + " ".join(text.splitlines()), file=sys.stderr)
    return code


def _parse_message(error: Any, arguments: Sequence[str]) -> str:
    """The parser's message, with the value that was typed where it leaves it out."""
    message = str(error.format_message()).rstrip(".")
    options = getattr(getattr(error, "param", None), "opts", [])
    values = [value for name, value in pairwise(arguments) if name in options]
    return message if not values or values[-1] in message else f"{values[-1]}: {message}"
