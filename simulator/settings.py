"""Settings: where results go, what is logged, who may read them. Never what decides a number: that is `RunSpec`.

Every setting is a `VQE_` environment variable, also read from a `.env` file in the working directory.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from simulator.errors import InputError


class Settings(BaseSettings):
    """What a process needs to know beside the specification."""

    model_config = SettingsConfigDict(env_prefix="VQE_", env_file=".env", extra="ignore", frozen=True)

    data_dir: Path = Field(Path("vqe-data"), description="Folder of raw files, tables and reports.")
    sink: Literal["file"] = Field("file", description="Where events go.")
    record_parameters: str = Field("all", description="Which iterations keep their parameters: all, none or every:N.")
    monitor_interval: Annotated[float, Field(gt=0, le=3600)] = Field(
        1.0, description="Seconds between samples of CPU, memory, disk and GPU."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("warning", description="Least severe log line shown.")
    log_format: Literal["auto", "text", "json"] = Field("auto", description="auto: text on a terminal, else JSON.")

    @field_validator("record_parameters")
    @classmethod
    def _known_recording(cls, value: str) -> str:
        parse_recording(value)
        return value

    @property
    def raw_dir(self) -> Path:
        """Folder of raw Avro files."""
        return self.data_dir / "raw"


def load_settings(**given: Any) -> Settings:
    """Settings from the environment, with what was given on the command line (None: not given) before them.

    Raises:
        InputError: a value is not allowed.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise InputError(f"setting {name} (VQE_{name.upper()}) {first.get('input')!r}: {reason}") from None


def parse_recording(text: str) -> int:
    """Every how many iterations parameters are kept: 1 for `all`, 0 for `none`, N for `every:N`.

    Raises:
        ValueError: not of that form.
    """
    if text == "all":
        return 1
    if text == "none":
        return 0
    if (match := re.fullmatch(r"every:([1-9][0-9]{0,8})", text)) is None:
        raise ValueError("must be all, none or every:N")
    return int(match[1])
