"""Log lines: readable on a terminal, JSON elsewhere, on stderr, with the run's ids bound."""

import io
import logging
import sys
from typing import Any, TextIO

import structlog

from simulator.credentials import mask
from simulator.errors import SHOW_WHERE


def configure(level: str = "warning", log_format: str = "auto") -> None:
    """Set up structlog for this process.

    Args:
        level: debug, info, warning or error.
        log_format: text, json, or auto: text where stderr is a terminal.
    """
    text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    renderer = _console() if text else structlog.processors.JSONRenderer()
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not text:
        # without the frames' locals: they are large, and may hold what nobody should read
        shown = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        processors.append(structlog.processors.ExceptionRenderer(shown))
    elif level.lower() != "debug":
        processors.append(_without_traceback)
    processors.append(_without_credentials)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # a factory, not one stderr for good: test runners and supervisors replace the stream
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _console() -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_masked_traceback)


def _masked_traceback(stream: TextIO, error: Any) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, error)
    stream.write(mask(text.getvalue()))


def _without_traceback(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """On a terminal an error is one line; the JSON of a service holds its traceback in one line anyway."""
    if event.pop("exc_info", None):
        event["traceback"] = SHOW_WHERE
    return event


def _without_credentials(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {name: _masked(value) for name, value in event.items()}


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {name: _masked(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    return value


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """The process's logger; warnings and worse where nobody has configured it."""
    if not structlog.is_configured():
        configure()
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger
