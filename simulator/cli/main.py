"""The `vqe` command and what every subcommand shares: errors in one line, exit codes."""

import contextlib
import errno
import io
import logging
import os
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from simulator import __version__
from simulator.cli import (
    hamiltonian,
    jobs,
    molecules,
    orbitals,
    report,
    run,
    sql,
    streaming,
    sweep,
    tables,
    watch,
    worker,
)
from simulator.credentials import mask
from simulator.errors import InputError, VqeError, explained, one_line
from simulator.garbage import collect_garbage_seldom
from simulator.signals import on_stop, raise_interrupt

app = typer.Typer(
    name="vqe",
    help="Run VQE on molecules and have every iteration, parameter and energy in tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help takes half the time: 0.11 instead of 0.23 s
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", short_help="Run VQE on molecules.")(run.run)
app.command("sweep", short_help="Run a matrix of molecules, settings and seeds.")(sweep.sweep)
app.command("molecules", short_help="List the bundled molecules.")(molecules.molecules)
app.command("orbitals", short_help="List a molecule's orbitals, to choose active ones.")(orbitals.orbitals)
app.command("hamiltonian", short_help="Tell of a molecule's Hamiltonian, or write it to a file.")(
    hamiltonian.hamiltonian
)
app.add_typer(tables.app, name="tables", help="Build, list, verify and maintain the tables.")
app.command("sql", short_help="Answer a question from the tables.")(sql.sql)
app.command("report", short_help="Write an HTML report of runs.")(report.report)
app.add_typer(streaming.schemas_app, name="schemas", help="Register or check the event schemas.")
app.command("topics", short_help="Create the Kafka topics that are missing.")(streaming.topics)
app.command("replay", short_help="Deliver events that wait in the spool.")(streaming.replay)
app.command("submit", short_help="Put a sweep's runs into the queue.")(sweep.submit)
app.add_typer(jobs.app, name="jobs", help="List, show, cancel and retry jobs of the work queue.")
app.command("worker", short_help="Take jobs from the queue and run them.")(worker.worker)
app.command("exporter", short_help="Serve the platform's metrics for Prometheus.")(streaming.exporter)
app.command("watch", short_help="Show running VQEs live.")(watch.watch)
app.command("doctor", short_help="Check what this machine can run.")(run.doctor)


_UsageProblem: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
"""The base of every usage error: click's, or that of the copy of click that newer typers carry."""


def _version(value: bool) -> None:
    if value:
        typer.echo(f"vqe {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0 done, 1 a run failed, 2 bad input, 130 interrupted."""
    collect_garbage_seldom()
    _quiet_libraries()
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    _printable_streams()
    try:
        _check_text(sys.argv[1:] if arguments is None else arguments)
        if os.path.exists(".env"):  # what reads it takes a third of a second to load
            from simulator.settings import export_dotenv

            export_dotenv()
        with on_stop(raise_interrupt):
            outcome = app(args=arguments, standalone_mode=False)
            sys.stdout.flush()  # here, where an error has a name: the interpreter's own flush comes after everything
        return outcome if isinstance(outcome, int) else 0
    except _UsageProblem as usage:
        if type(usage).__name__ == "NoArgsIsHelpError":  # its message is the help itself
            print(usage.format_message())
        else:
            _complain(one_line(usage.format_message()))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        _complain("interrupted")
        return 130
    except SystemExit as left:  # typer's end of every broken pipe
        if not isinstance(left.__context__, OSError):
            raise
        return _failed(left.__context__)
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    """Tell of an error; returns the exit code."""
    if isinstance(error, OSError) and (problem := _stdout_problem(error)) is not None:
        with contextlib.suppress(OSError):  # what is left in the buffer goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(problem, BrokenPipeError):  # `vqe sql ... | head` has read enough
            return 128 + signal.SIGPIPE
        _complain(f"standard output: {problem.strerror}")
        return 1
    if _debugging() and not isinstance(error, VqeError):
        _print_err(mask("".join(traceback.format_exception(error)).rstrip()))
    line, code = explained(error)
    _complain(line)
    return code


def _check_text(arguments: Sequence[str]) -> None:
    """Raise InputError where an argument or a setting is not UTF-8: it would end up in events, ids and tables."""
    for i, argument in enumerate(arguments, start=1):
        if not _is_text(argument):
            raise InputError(f"argument {i}, {argument!r}, is not UTF-8 text")
    for name, value in os.environ.items():
        if name.startswith("VQE_") and not _is_text(value):
            raise InputError(f"setting {name} is not UTF-8 text")


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _printable_streams() -> None:
    """Let stdout and stderr take every character: one that their encoding lacks is escaped, and a closed one is nowhere."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for the rest of the process)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _quiet_libraries() -> None:
    """What libraries have to say beside their errors, and what is left when the process ends, is shown when debugging."""
    if _debugging():
        return
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())
    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda e: _print_err(
        f"vqe: thread {e.thread and e.thread.name}: {explained(e.exc_value or Exception())[0]}"
    )


def _debugging() -> bool:
    return os.environ.get("VQE_LOG_LEVEL", "").strip().lower() == "debug"


def _stdout_problem(error: OSError) -> OSError | None:
    """What is wrong with stdout, where that is the error: a pipe to somebody else breaks in the same way."""
    if error.filename is not None:
        return None
    if isinstance(error, BrokenPipeError):
        try:
            polled = select.poll()
            polled.register(sys.stdout.fileno(), 0)
            return error if polled.poll(0) else None
        except (OSError, ValueError):
            return None
    return error if error.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG) else None


def _complain(message: str) -> None:
    _print_err(f"vqe: {message}")


def _print_err(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone, and the exit code says it, too
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
