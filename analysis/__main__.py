"""`python -m analysis`: pages and figures from result files."""

import sys

from bench.program import leave_out_working_directory, whole


def main(left_out: str | None = None) -> int:
    """Run the command line of this process; returns its exit code. left_out: a folder taken off the search path."""

    def called() -> int:
        from analysis.cli import main

        return main()

    return whole(called, left_out)


if __name__ == "__main__":
    sys.exit(main(leave_out_working_directory()))
