"""`python -m bench`, and the command `zo-bench`: the same without the working directory in Python's search path.

Imports what is built into Python alone until the search path is right: a file in the working directory may hide anything else.
"""

import os
import sys


def main(left_out: str | None = None) -> int:
    """Run the command line of this process; returns its exit code. left_out: a folder taken off the search path."""
    from bench import shadowing, streams
    from bench.errors import UsageError

    streams.mend()
    try:
        shadowing.refuse_hidden()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if left_out and (files := shadowing.hidden_by(left_out)):
        names = ", ".join(files)
        print(f"note: {names}: hidden from this program, which has modules of the same names", file=sys.stderr)
    from bench.cli import main

    code = main()
    if (reason := streams.lost_output()) is not None:
        print(f"error: standard output: {reason}; the files that were written are whole", file=sys.stderr)
        return code or 1
    return code


def leave_out_working_directory() -> str | None:
    """`python -m` looks into the working directory first; nothing is looked for there unless the suite itself lies in it."""
    suite = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if sys.flags.safe_path or not sys.path or os.path.realpath(sys.path[0]) == os.path.realpath(suite):
        return None
    return sys.path.pop(0)


if __name__ == "__main__":
    sys.exit(main(leave_out_working_directory()))
