"""Every error that a user can meet, by what it means for the exit code."""


class VqeError(Exception):
    """An error whose message is one line for the user: what was given, what is allowed, where."""

    exit_code = 1


class InputError(VqeError):
    """Bad input: the user can mend it. Exit code 2."""

    exit_code = 2


class RunFailed(VqeError):
    """A run failed for a reason that is no input error, e.g. an SCF that does not converge. Exit code 1."""


class StorageError(VqeError):
    """Events or tables could not be written, e.g. a full disk or spool. Exit code 1."""


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop and had nothing more to keep at that moment. Exit code 130."""


def one_line(error: object) -> str:
    """What an error says, in one line; the name of its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
