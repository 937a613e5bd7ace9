"""The one place that makes Rich's consoles: what is printed is what was given, and never read as markup."""

import sys
from typing import IO

from rich.console import Console


class PlainConsole(Console):
    """A console on which texts mean themselves: a molecule may be called `[/b]` or `:smile:`. Styles come with `Text`.

    Args:
        file: where it prints; by default stdout.
        width: characters a line; by default the terminal's.
    """

    def __init__(self, file: IO[str] | None = None, width: int | None = None) -> None:
        super().__init__(file=file or sys.stdout, width=width, markup=False, emoji=False, highlight=False)

    def on_broken_pipe(self) -> None:
        """A reader such as `head` has enough: the command line says how to end then."""
        raise BrokenPipeError


def stdout_console() -> PlainConsole:
    """Standard output; what is no terminal has no width, and nothing is cut there."""
    return PlainConsole(width=None if sys.stdout.isatty() else 160)
