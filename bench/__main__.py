"""`python -m bench`, and the command `zo-bench`: the same without the working directory in Python's search path."""

import sys

from bench.program import leave_out_working_directory, whole


def main(left_out: str | None = None) -> int:
    """Run the command line of this process; returns its exit code. left_out: a folder taken off the search path."""

    def called() -> int:
        from bench.cli import main

        return main()

    return whole(called, left_out)


if __name__ == "__main__":
    sys.exit(main(leave_out_working_directory()))
