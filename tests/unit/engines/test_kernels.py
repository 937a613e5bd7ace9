"""Kernels that an image ships compiled: copied once to where numba can write, and used."""

import pytest

from simulator.engines import kernels
from simulator.engines.kernels import writable_copy


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


@pytest.fixture
def cache_dir(monkeypatch):
    """Where numba looks once the shipped kernels are asked for with a folder for their copy."""
    import numba

    def found(shipped, caches) -> str:
        monkeypatch.setenv("VQE_KERNELS", str(shipped))
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(caches))
        monkeypatch.setattr(numba.config, "CACHE_DIR", str(caches))
        kernels.use_shipped()
        return numba.config.CACHE_DIR

    return found


def test_numba_looks_where_the_copy_is_and_a_folder_that_cannot_be_made_stops_nothing(shipped, tmp_path, cache_dir):
    assert cache_dir(shipped, tmp_path / "caches") == str(writable_copy(shipped, tmp_path / "caches"))
    (tmp_path / "file").write_text("in the way")
    assert cache_dir(shipped, tmp_path / "file") == str(tmp_path / "file")


def test_shipped_kernels_are_looked_for_before_the_first_is_compiled(monkeypatch):
    order = []
    monkeypatch.setattr(kernels, "use_shipped", lambda: order.append("looked"))
    monkeypatch.setattr("numba.njit", lambda **_: order.append("compiled") or (lambda plain: plain))
    kernels._numba.cache_clear()
    try:
        doubled = kernels.kernel(cache=True)(lambda x: 2 * x)
        assert order == []
        assert (doubled(2), doubled(3), doubled.plain(4)) == (4, 6, 8)
        assert order == ["looked", "compiled"]
    finally:
        kernels._numba.cache_clear()
