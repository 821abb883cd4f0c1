"""Recall policies: the contract, and the policies that keep it. Imports nothing of recgpt or
simulator.
"""

from __future__ import annotations

import os
from collections.abc import Iterator


def kernel_cache(package: str = os.path.dirname(__file__)) -> str | None:
    """Where numba shall keep what it has compiled, if not beside the modules.

    numba keeps kernels in `__pycache__` beside the modules. Where an installation cannot be
    written, it looks for a folder of the user, and without one every command that needs a kernel
    fails. So the folder is chosen here: in the user's cache, else in the folder for temporary
    files. numba executes what it finds there; so a folder that others own or may write into is
    not taken.

    Args:
        package: folder of the installed package.

    Returns:
        The folder, made if it was not there; None where numba's own choice is right.
    """
    beside = os.path.join(package, "__pycache__")
    if all(os.access(place, os.W_OK) for place in (package, beside) if os.path.exists(place)):
        return None
    for place in _caches():
        try:
            os.makedirs(place, mode=0o700, exist_ok=True)
            status = os.stat(place)
        except OSError:
            continue
        if (
            status.st_uid == os.getuid()
            and not status.st_mode & 0o022
            and os.access(place, os.W_OK)
        ):
            return place
    return _for_this_process()


def _caches() -> Iterator[str]:
    """Folders that may keep kernels from one command to the next, best first."""
    import tempfile

    home = os.path.expanduser("~")
    for cache in (os.environ.get("XDG_CACHE_HOME", ""), os.path.join(home, ".cache")):
        if os.path.isabs(cache):
            yield os.path.join(cache, "abtest", "kernels")
    yield os.path.join(tempfile.gettempdir(), f"abtest-kernels-{os.getuid()}")


def _for_this_process() -> str:
    """A folder that goes with this process: kernels are compiled anew by every command."""
    import atexit
    import shutil
    import tempfile

    place = tempfile.mkdtemp(prefix="abtest-kernels-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


def _choose() -> None:
    """Tell numba and every worker process; numba reads it when it is imported."""
    if "NUMBA_CACHE_DIR" not in os.environ:
        place = kernel_cache()
        if place is not None:
            os.environ["NUMBA_CACHE_DIR"] = place


_choose()

# MKL makes torch's products: see `policies.blocks`. It must be told before the first of them.
os.environ.setdefault("MKL_CBWR", "AUTO")
