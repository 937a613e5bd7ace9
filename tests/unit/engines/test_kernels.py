"""Kernels that an image ships compiled: copied once to where numba can write, and used."""

import os
import subprocess
import sys

import pytest

from simulator.engines.kernels import writable_copy

CODE = """
import numba
from simulator.engines import kernels
print(numba.config.CACHE_DIR)
"""


@pytest.fixture
def shipped(tmp_path):
    folder = tmp_path / "shipped"
    (folder / "simulator_1").mkdir(parents=True)
    (folder / "simulator_1" / "kernel.nbi").write_bytes(b"compiled")
    return folder


def test_shipped_kernels_are_copied_once_and_each_build_has_its_own_copy(shipped, tmp_path):
    first = writable_copy(shipped, tmp_path / "caches")
    assert (first / "simulator_1" / "kernel.nbi").read_bytes() == b"compiled"
    (first / "simulator_1" / "kernel.nbi").write_bytes(b"and what this host's CPU needed")
    assert writable_copy(shipped, tmp_path / "caches") == first
    assert (first / "simulator_1" / "kernel.nbi").read_bytes() == b"and what this host's CPU needed"
    (shipped / "simulator_1" / "kernel.nbi").write_bytes(b"of the next version")
    second = writable_copy(shipped, tmp_path / "caches")
    assert second != first
    assert {p.name for p in (tmp_path / "caches").iterdir()} == {first.name, second.name}


def test_who_comes_second_takes_the_firsts_copy(shipped, tmp_path, monkeypatch):
    """Two processes of a new container start together."""
    import pathlib

    wanted = writable_copy(shipped, tmp_path / "elsewhere").name
    rename = pathlib.Path.rename

    def beaten(self, target):
        (target / "simulator_1").mkdir(parents=True)
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", beaten)
    caches = tmp_path / "caches"
    assert writable_copy(shipped, caches) == caches / wanted
    assert [p.name for p in caches.iterdir()] == [wanted]


def test_numba_looks_where_the_copy_is_and_a_folder_that_cannot_be_made_stops_nothing(shipped, tmp_path):
    def cache_dir(caches) -> str:
        environment = {**os.environ, "VQE_KERNELS": str(shipped), "NUMBA_CACHE_DIR": str(caches)}
        done = subprocess.run(
            [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert cache_dir(tmp_path / "caches") == str(writable_copy(shipped, tmp_path / "caches"))
    (tmp_path / "file").write_text("in the way")
    assert cache_dir(tmp_path / "file") == str(tmp_path / "file")
