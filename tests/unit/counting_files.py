"""A file system that counts what is read of each file."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import fs

from spark_jobs import table_dataset


class CountingFiles(fs.FileSystemHandler):
    """Reads from another file system, and counts bytes by path. Only what a reader of files needs."""

    def __init__(self, base: fs.FileSystem) -> None:
        self.base = base
        self.bytes_read: Counter[str] = Counter()

    @property
    def files(self) -> int:
        return len(self.bytes_read)

    @property
    def total(self) -> int:
        return self.bytes_read.total()

    def open_input_file(self, path: str) -> pa.NativeFile:
        return pa.PythonFile(_CountedFile(self.base.open_input_file(path), path, self.bytes_read), mode="r")

    def get_file_info(self, paths: list[str]) -> Any:
        return self.base.get_file_info(paths)

    def get_type_name(self) -> str:
        return "counting"

    def normalize_path(self, path: str) -> str:
        return path

    def _not_for_readers(self, *arguments: object) -> Any:
        raise NotImplementedError

    open_input_stream = get_file_info_selector = create_dir = delete_dir = delete_dir_contents = _not_for_readers
    delete_root_dir_contents = delete_file = move = copy_file = open_output_stream = _not_for_readers
    open_append_stream = _not_for_readers


def count_reads(monkeypatch: pytest.MonkeyPatch) -> CountingFiles:
    """Counts what queries read of data files, each in the file system where it is."""
    counting = CountingFiles(fs.LocalFileSystem())
    located = table_dataset.file_system_of

    def counted(io: Any, location: str) -> tuple[fs.FileSystem, str]:
        counting.base, path = located(io, location)
        return fs.PyFileSystem(counting), path

    monkeypatch.setattr(table_dataset, "file_system_of", counted)
    return counting


class _CountedFile:
    def __init__(self, file: pa.NativeFile, path: str, bytes_read: Counter[str]) -> None:
        self.file, self.path, self.bytes_read = file, path, bytes_read
        bytes_read[path] += 0  # a file that is opened counts as read

    def read(self, size: int = -1) -> bytes:
        found = self.file.read(None if size < 0 else size)
        self.bytes_read[self.path] += len(found)
        return found

    def read_buffer(self, size: int | None = None) -> pa.Buffer:  # Arrow prefers it to read, where there is one
        found = self.file.read_buffer(size)
        self.bytes_read[self.path] += found.size
        return found

    def __getattr__(self, name: str) -> Any:  # seek, tell, size, close, closed, ...
        return getattr(self.file, name)
