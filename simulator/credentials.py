"""Nothing that is shown holds a credential: passwords and tokens in URLs, and the secrets that this process knows."""

import os
import re
from urllib.parse import unquote

MASK = "***"

_SHORTEST = 6
"""Characters of a secret that is masked wherever it stands; a shorter one could be a part of any word."""

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
_USERINFO = re.compile(rf"(\b{_SCHEME})((?:(?!,{_SCHEME})[^\s'\"<>])*)@")
"""Up to the last @ of a URL: a password may hold / and @ although it should be quoted. URLs may stand in a list."""

_NAMED = r"[\w.-]*(?:password|passwd|pwd|secret|token|credential|signature|api[-_]?key|access[-_]?key)[\w.-]*"
_QUERY = re.compile(rf"([?&;](?:{_NAMED}|key|sig)=)[^&;\s'\"<>]+", re.IGNORECASE)
_PAIR = re.compile(rf"(\b{_NAMED}\s*=\s*)(?!\*)[^\s,;&'\"<>]+", re.IGNORECASE)
_HEADER = re.compile(r"(authorization['\"]?\s*[:=]\s*['\"]?\w+\s+)[^\s'\"]+", re.IGNORECASE)
_SECRET_VARIABLE = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN")

_remembered: set[str] = set()


def remember(secret: str) -> None:
    """Mask a secret, or those of a URL, from now on wherever it stands, e.g. in a message that cites a part of a URL."""
    _remembered.update(_parts(secret))


def mask(text: str) -> str:
    """The text without credentials: `https://user:***@host`, `?token=***`, and *** for each known secret."""
    text = _USERINFO.sub(_masked_userinfo, text)
    for pattern in (_QUERY, _PAIR, _HEADER):
        text = pattern.sub(rf"\1{MASK}", text)
    for secret in sorted(_remembered | _of_environment(), key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, MASK)
    return text


def _masked_userinfo(match: re.Match[str]) -> str:
    user, colon, _ = match[2].partition(":")
    named = f"{user}:" if colon and re.fullmatch(r"[\w.~%+-]*", user) else ""
    return f"{match[1]}{named}{MASK}@"


def _of_environment() -> set[str]:
    found: set[str] = set()
    for name, value in os.environ.items():
        if "://" in value or (_SECRET_VARIABLE.search(name) and not name.endswith(("_FILE", "_PATH"))):
            found |= _parts(value)
    return found


def _parts(value: str) -> set[str]:
    """A secret, or the password of a URL, in every form in which a message may cite it.

    Libraries cut a URL at the first @, / or : of a password that should have been quoted, and name the rest a host or a
    port.
    """
    in_urls = {m[2].partition(":")[2] or m[2] for m in _USERINFO.finditer(value)}
    secrets = in_urls if "://" in value else {value.strip()}
    secrets |= {unquote(s) for s in secrets}
    secrets |= {part for s in secrets for part in re.split(r"[@/:?#]", s)}
    return {s for s in secrets if len(s) >= _SHORTEST}
