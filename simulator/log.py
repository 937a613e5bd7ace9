"""Log lines: readable on a terminal, JSON elsewhere, on stderr, with the run's ids bound."""

import logging
import sys

import structlog


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
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # a factory, not one stderr for good: test runners and supervisors replace the stream
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _console() -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """The process's logger; warnings and worse where nobody has configured it."""
    if not structlog.is_configured():
        configure()
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger
