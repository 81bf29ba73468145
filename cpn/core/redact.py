"""Keeps secrets out of whatever is printed or written down: `redact` puts *** in their place.

It knows them by where they stand (URLs, headers, password=...) and, where they come from the environment, by
themselves: an error may quote one anywhere, decoded or not.

Text passes here where it leaves the program: in the messages and lines of cpn/core/errors.py and in `Terminal.say`;
records, JSON and files through `redacted`. What raises or says a message need not think of it.
"""

import os
import re
from typing import Any
from urllib.parse import unquote

_NAMED = (
    r"(?:passw(?:or)?d|passphrase|pwd|token|secret|credential|api_?key|access_?key|account_?key|private_?key|signature)"
)
_URL = re.compile(r"""([a-z][\w+.-]+:/{1,2})((?:[^\s"']|["'](?![\s,:;)\]}>]|$))+)@""", re.IGNORECASE)
"""Scheme, and all up to the last @ before a blank: passwords that were not encoded hold @, / and quotes. A URL that was
taken for a path has one slash left.
"""
_HEADER = re.compile(
    r"""(\b(?:authorization|(?:\w+-)+(?:token|secret|key))["']?\s*:\s*["']?(?:(?:basic|bearer|digest|token)\s+)?)[^\s"',}]+""",
    re.IGNORECASE,
)
_BEARER = re.compile(r"""(\bbearer\s+)[^\s"']+""", re.IGNORECASE)
_QUERY = re.compile(r"""([?&](?:sig|key|auth)=)[^&\s"']+""", re.IGNORECASE)
_SETTING = re.compile(rf"""(?<!\w)(\w*{_NAMED}\w*=)(?:"[^"]*"|'[^']*'|[^&\s"';,]+)""", re.IGNORECASE)
"""A name is tried from its first letter alone: from each of them, a word of 5,000 letters takes a second."""
_ITEM = re.compile(rf"""((["'])\w*{_NAMED}\w*\2\s*:\s*(["'])).*?\3""", re.IGNORECASE)

IN_ENVIRONMENT = (
    "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_AUTH_ADMIN_PASSWORD", "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN", "PGPASSWORD", "RAY_AUTH_TOKEN",
)  # fmt: skip
"""Variables that hold nothing but a secret."""
URLS_IN_ENVIRONMENT = ("CPN_STUDY_URL", "MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI", "DATABASE_URL")
"""Variables that hold a URL, perhaps with a password."""
SHORTEST = 8
"""Shorter secrets of the environment are not looked for by themselves: they would be found in ordinary words."""


def redact(text: str) -> str:
    """`text` with *** for passwords in URLs, what headers of authorization carry, the values of password=, token= and
    the like, and the secrets that the environment holds.
    """
    for secret in known_secrets():
        text = text.replace(secret, "***")
    text = _URL.sub(_without_password, text)
    text = _BEARER.sub(r"\1***", _HEADER.sub(r"\1***", text))
    text = _ITEM.sub(r"\1***\3", _SETTING.sub(r"\1***", text))
    return _QUERY.sub(r"\1***", text)


def redacted(value: Any) -> Any:
    """`value` with `redact` applied to every string in it, dictionary keys aside."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redacted(item) for key, item in value.items()}
    return [redacted(item) for item in value] if isinstance(value, list | tuple) else value


def known_secrets() -> list[str]:
    """Return the secrets in the environment as they stand and decoded, longest first."""
    secrets = [os.environ.get(name, "") for name in IN_ENVIRONMENT]
    for name in URLS_IN_ENVIRONMENT:
        credentials = _URL.match(os.environ.get(name, ""))
        if credentials:
            secrets.append(credentials[2].partition(":")[2])
    both = {text for secret in secrets for text in (secret, unquote(secret)) if len(text) >= SHORTEST}
    return sorted(both, key=len, reverse=True)


def _without_password(url: re.Match[str]) -> str:
    """Return a URL up to its @, redacted; a path with an @ in it, and a user alone, stay. On http a user alone is a
    token.
    """
    scheme, credentials = url[1], url[2]
    user, colon, password = credentials.partition(":")
    if "/" in user or (not colon and "http" not in scheme.lower()):
        return url[0]
    return f"{scheme}{user}:***@" if password else f"{scheme}***@"
