"""numba's compiler for the kernels, and kernels that were compiled before this process: an image ships them.

Compiling the kernels takes seconds, and a container forgets what it compiled. So an image is built with its kernels compiled, in the
folder VQE_KERNELS. numba opens no cache that it cannot write to, so the shipped files are copied into NUMBA_CACHE_DIR, once for each build
of an image. They are native code: numba takes them on a CPU with the features of the one that built them, and else compiles into the
copy.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any


def writable_copy(shipped: Path, caches: Path) -> Path:
    """A folder in `caches` of this build's own with the shipped kernels; made where it is not there yet.

    Raises:
        OSError: it can be neither read nor made.
    """
    files = sorted(path for path in shipped.rglob("*") if path.is_file())
    build = hashlib.sha256()
    for path in files:
        build.update(path.relative_to(shipped).as_posix().encode() + b"\0" + path.read_bytes())
    copy = caches / build.hexdigest()[:16]
    if not copy.is_dir():
        caches.mkdir(parents=True, exist_ok=True)
        # Renamed when it is whole: another process may start at the same time, and one of the two comes first.
        fresh = Path(tempfile.mkdtemp(dir=caches, prefix=".new-"))
        try:
            shutil.copytree(shipped, fresh, dirs_exist_ok=True, copy_function=shutil.copyfile)
            fresh.rename(copy)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            if not copy.is_dir():
                raise
    return copy


def use_shipped() -> None:
    """Have numba look for compiled kernels where VQE_KERNELS names some; where that fails, they are compiled as without it."""
    import numba

    shipped, caches = os.environ.get("VQE_KERNELS"), os.environ.get("NUMBA_CACHE_DIR")
    if shipped and caches and Path(shipped).is_dir():
        with contextlib.suppress(OSError):
            numba.config.CACHE_DIR = str(writable_copy(Path(shipped), Path(caches)))  # type: ignore[attr-defined]


@cache
def _numba() -> Any:
    import numba

    use_shipped()
    return numba


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """numba.njit, after which compiled kernels are looked for where they are shipped."""
    return _numba().njit(**options)


class Kernel:
    """A function that numba compiles when it is first called; `plain` is the function as Python runs it.

    Loading numba takes 0.6 s and loading compiled kernels as long again: a small state is quicker without.
    """

    def __init__(self, plain: Callable[..., Any], **options: Any):
        self.plain, self._options = plain, options

    @cached_property
    def compiled(self) -> Callable[..., Any]:
        return njit(**self._options)(self.plain)

    def __call__(self, *arguments: Any) -> Any:
        return self.compiled(*arguments)


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Kernel]:
    """A decorator that makes a Kernel; options are numba.njit's."""
    return lambda plain: Kernel(plain, **options)
