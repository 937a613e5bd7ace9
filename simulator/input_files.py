"""Reading what a user names: bounded, and every way in which a file can be wrong is one line."""

import os
from pathlib import Path

from simulator.errors import InputError

MAX_BYTES = 16 << 20
"""A file for people: an experiment of 100,000 seeds has 1 MB, a molecule of 1,000 atoms 60 kB."""


def read_text(path: Path, what: str, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Args:
        path: a file, or a pipe; `~` is home.
        what: how errors name it, e.g. `sweep lih.yaml`.
        max_bytes: the largest file that is taken.

    Raises:
        InputError: it is not there, cannot be read, is too large, or is no text.
    """
    try:
        with open(os.path.expanduser(path), "rb") as file:
            content = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise InputError(f"{what}: {error.strerror}") from None
    except OSError as error:
        raise InputError(f"{what}: cannot be read ({error.strerror})") from None
    if len(content) > max_bytes:
        raise InputError(f"{what}: larger than {max_bytes >> 20} MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what}: not UTF-8 text (byte {error.start})") from None
    if "\0" in text:
        raise InputError(f"{what}: not text (it holds NUL bytes)")
    return text


def shown(value: object) -> str:
    """A value as messages cite it: its beginning, where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_whole(what: str, value: object, low: int, high: int) -> None:
    """Refuse what is not a whole number from `low` to `high`; `what` is how errors name it.

    Raises:
        InputError: something else was given.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{what} must be a whole number from {low} to {high}, not {shown(value)}")
