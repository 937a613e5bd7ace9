"""Every error that a user can meet, by what it means for the exit code, and how any error becomes one line."""

from simulator.credentials import mask

SHOW_WHERE = "VQE_LOG_LEVEL=debug shows where"
_LONGEST = 900
"""Characters of a line that a user is told; what was given may be a megabyte."""


class VqeError(Exception):
    """An error whose message is one line for the user: what was given, what is allowed, where. It holds no credential."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(mask(message))


class InputError(VqeError):
    """Bad input: the user can mend it. Exit code 2."""

    exit_code = 2


class DoesNotFit(InputError):
    """More memory is needed than is available now: where others use it too, it may fit later. Exit code 2."""


class NoTables(InputError):
    """There are no tables yet. Exit code 2."""


class RunFailed(VqeError):
    """A run failed for a reason that is no input error, e.g. an SCF that does not converge. Exit code 1."""


class StorageError(VqeError):
    """Events or tables could not be written, e.g. a full disk or spool. Exit code 1."""


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop and had nothing more to keep at that moment. Exit code 130."""


def one_line(error: object) -> str:
    """What an error says, in one line without credentials; the name of its class where it says nothing."""
    text = " ".join(mask(str(error)).split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) or type(error).__name__


def explained(error: BaseException) -> tuple[str, int]:
    """An error as the user is told of it: one line, and the exit code.

    What is no `VqeError` is either the machine's or a defect; the line says which class it was and how to see where.
    """
    if isinstance(error, VqeError):
        line = one_line(error)
        return (line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."), error.exit_code
    if isinstance(error, MemoryError):
        return "the machine ran out of memory", 1
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename!r}: " if error.filename is not None else ""
        return one_line(f"{where}{error.strerror} ({SHOW_WHERE})"), 1
    return one_line(f"unexpected {type(error).__name__}: {one_line(error)[:500]} ({SHOW_WHERE})"), 1
