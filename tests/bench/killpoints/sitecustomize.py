"""Kills a run at an exact moment of the real code: python imports this by itself where it is first on PYTHONPATH.

ZO_KILL=POINT:N, the N-th time that point is reached. Points: `fold` and `rewrite` (amid the weights), `snapshot` (its file is
written but not yet in place), `saved` (in place, not yet in the journal), `result` (likewise for the result), `journal` (half a
line is written). The session and its parent both get SIGKILL, so neither can tidy up.
"""

import os
import signal
import sys

POINT, _, COUNT = os.environ.get("ZO_KILL", "").partition(":")
SESSION = "bench.harness.session" in sys.orig_argv
left = int(COUNT or 0)


def die() -> None:
    if SESSION:
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def reached() -> bool:
    global left
    left -= 1
    return left == 0


def wrap(owner, name, before=None, after=None):
    original = getattr(owner, name)

    def wrapped(*args, **kwargs):
        if before is not None and before(*args) and reached():
            die()
        found = original(*args, **kwargs)
        if after is not None and after(*args) and reached():
            die()
        return found

    setattr(owner, name, wrapped)


def half_a_line(original):
    def write(descriptor, data):
        if data.startswith(b'{"sum"') and reached():
            original(descriptor, data[: len(data) // 2])
            die()
        return original(descriptor, data)

    return write


class Finder:
    """Wraps a function of a module as soon as that module has been imported by the program itself."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.module:
            return None
        import importlib.util

        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            wrap(module, self.name, before=lambda *args: True)

        spec.loader.exec_module = exec_module
        return spec


match POINT:
    case "fold" if SESSION:
        sys.meta_path.insert(0, Finder("workloads.parameters.accumulated", "add_"))
    case "rewrite" if SESSION:
        sys.meta_path.insert(0, Finder("baselines.official.loop", "_gaussian"))
    case "snapshot" if SESSION:
        wrap(os, "replace", before=lambda source, target: str(source).endswith(".part"))
    case "saved" if SESSION:
        wrap(os, "replace", after=lambda source, target: str(source).endswith(".part"))
    case "result" if not SESSION:
        wrap(os, "replace", before=lambda source, target: str(target).endswith(".json"))
    case "journal" if not SESSION:
        os.write = half_a_line(os.write)
