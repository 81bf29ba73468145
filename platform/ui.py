"""The records in a browser: `python -m platform.ui`. Checks what it can, then becomes MLflow's server.

On this machine it asks for no password, unless MLFLOW_AUTH_ADMIN_PASSWORD is set. Other machines are served only with
MLflow's basic authentication: whoever is not the admin sees what the admin has given, which at first is nothing.
"""

import argparse
import importlib.util
import ipaddress
import os
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from cpn.core.errors import InputError, run_command, to_stderr
from cpn.core.files import write_bytes
from cpn.core.plain_file import is_there
from cpn.core.redact import redact

from .base.tracking_uri import UI_PORT, check_store, sqlite_path, store_uri
from .tracking.in_mlflow.saved_views import VIEW, address_of

EXAMPLE = "python -m platform.ui"
HOST = "127.0.0.1"
"""Nobody but this machine."""
PASSWORD = "MLFLOW_AUTH_ADMIN_PASSWORD"
"""MLflow's own name. It makes the admin at the first start, and is of no more use after that."""
SHORTEST = 12
"""Characters that MLflow asks of a password."""
CHECKOUT = Path(__file__).resolve().parents[1]
"""Where MLflow's server finds `USERS`."""
USERS = "platform.tracking.in_mlflow.ui_users:authenticate"
PLUGIN, APP = CHECKOUT / "platform/tracking/in_mlflow/plugin", "cpn"
"""Where MLflow finds its server with our first page, and under which name."""
AUTH = "mlflow_auth"
"""Folder beside the store, for nobody else to read: who may see what."""


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m platform.ui",
        usage=f"{EXAMPLE} [--port PORT] [--uri URI] [--host ADDRESS]",
        description=f"Show the runs, pictures and models of the sweeps in a browser, on {HOST}.",
        epilog=f"For other machines: {PASSWORD}=... {EXAMPLE} --host ADDRESS serves users with passwords only, who see "
        "nothing until the admin lets them. It is plain HTTP: put TLS before it, or tunnel the port with ssh -L.",
    )
    command.add_argument(
        "--port", type=int, default=UI_PORT, metavar="PORT", help=f"port to listen on (default: {UI_PORT})"
    )
    command.add_argument("--uri", metavar="URI", help="tracking.uri of the sweeps (default: as theirs)")
    command.add_argument("--host", default=HOST, metavar="ADDRESS", help=f"address to listen on (default: {HOST})")
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Comes back only when the UI runs elsewhere; exit code 2 when there is no store, no free port, or
    nothing to keep strangers out.
    """
    options = parser().parse_args(arguments)
    uri = store_uri(options.uri)
    if uri.startswith(("http://", "https://")):
        print(f"the MLflow UI is at {redact(uri)}")
        print_newest(uri, redact(uri).rstrip("/"))
        return 0
    path = sqlite_path(uri)
    if path is not None and not is_there(path, "--uri"):
        raise InputError(f"--uri: {path}: no records here yet; run a sweep first (make sweep), or name its store")
    check_port(options.port, options.host)
    if (away := check_store(uri, "--uri")) is not None:
        to_stderr(f"{away.rpartition('; ')[0]}; MLflow waits for it")
    guarded = check_password(options.host)
    # The environment, not the command line, carries the URI: other users of the machine can list command lines.
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes for scoring language models
        "PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), str(PLUGIN), os.environ.get("PYTHONPATH")])),
        **hosts(options.host, options.port),
    }
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--host",
        options.host,
        "--port",
        str(options.port),
        "--workers",
        "1",
    ]
    if guarded:
        environment |= authentication((path.parent if path else Path.cwd()) / AUTH)
    command += ["--app-name", "basic-auth" if guarded else APP]
    shown = in_address(names_of(options.host)[0])
    who = f", for users with a password ({environment['MLFLOW_AUTH_ADMIN_USERNAME']} is the admin)" if guarded else ""
    print(f"the MLflow UI opens at http://{shown}:{options.port}{who} (Ctrl-C ends it)", flush=True)
    print_newest(uri, f"http://{shown}:{options.port}")
    os.execve(sys.executable, command, environment)


def print_newest(uri: str, ui: str) -> None:
    """Print where the newest sweep's ranked trials stand, behind the address of the UI; of a store that does not answer
    or holds no sweep the page of all experiments.
    """
    from .tracking.read import newest_sweep

    try:
        newest = newest_sweep(uri)
    except Exception as error:  # whatever MLflow, its client and the database raise: the UI opens all the same
        print(f"which sweep is the newest is not known ({redact(' '.join(str(error).split()))[:200]})", flush=True)
        newest = None
    if newest is None:
        print(f"all experiments: {ui}/#/experiments?{VIEW}", flush=True)
    else:
        print(f"the newest sweep, {newest[0]}, its trials ranked: {ui}{address_of(newest[1])}", flush=True)


def names_of(host: str) -> list[str]:
    """Return the names and addresses at which a browser finds a server that listens on `host`, the one to be printed
    first.
    """
    _, (address, *_) = resolved(host, 0)
    if not ipaddress.ip_address(address.partition("%")[0]).is_unspecified:
        return list(dict.fromkeys([host, address]))
    mine = [each.address.partition("%")[0] for addresses in psutil.net_if_addrs().values() for each in addresses
            if each.family in (socket.AF_INET, socket.AF_INET6)]  # fmt: skip
    return list(dict.fromkeys([socket.gethostname(), socket.getfqdn(), "localhost", *mine]))


def hosts(host: str, port: int) -> dict[str, str]:
    """Return the names under which MLflow answers, and from whose pages it takes changes; what the user has set goes
    before.

    Left to itself it answers to this machine's own and to private addresses without a port alone: a page that is
    asked for by the name of its server gets 403. On this machine alone that is right as it is.
    """
    _, (address, *_) = resolved(host, 0)
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        return {}
    names = [in_address(name) for name in [*names_of(host), "localhost", "127.0.0.1", "::1"]]
    at = list(dict.fromkeys(full for name in names for full in (name, f"{name}:{port}")))
    environment = {
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(at),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"{kind}://{name}" for kind in ("http", "https") for name in at),
    }
    return {name: os.environ.get(name, value) for name, value in environment.items()}


def in_address(host: str) -> str:
    """Return a host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def check_port(port: int, host: str = HOST) -> None:
    """Raise InputError unless a server can listen on `port` of `host` here."""
    if not 1 <= port <= 65535:
        raise InputError(f"--port {port}: no such port; give one from 1024 to 65535")
    family, address = resolved(host, port)
    with socket.socket(family) as probe:
        # As servers do: the remains of a server that has just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            cure = port + 1 if 1024 <= port < 65535 else 5000
            raise InputError(
                f"--port {port}: the MLflow UI cannot listen on {host}:{port} ({error.strerror}); "
                f"end what runs there, or --port {cure}"
            ) from None


def check_password(host: str) -> bool:
    """Return whether users have to give a password: always beyond this machine, and here if one is set.

    Raises InputError when there is none, or MLflow would not take it.
    """
    password = os.environ.get(PASSWORD)
    _, address = resolved(host, 0)
    if password is None:
        if ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
            return False
        raise InputError(
            f"--host {host}: other machines could read and change the records; set a password for the admin, "
            f"{PASSWORD}, or leave --host out and tunnel the port: ssh -L"
        )
    if len(password) < SHORTEST:
        raise InputError(f"{PASSWORD}: {len(password)} characters are too few; give at least {SHORTEST}")
    if importlib.util.find_spec("flask_wtf") is None:
        raise InputError("--host: users with passwords need the Python package Flask-WTF; pip install Flask-WTF")
    return True


def resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Family and address to bind to. Raises InputError for a name that this machine does not know."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise InputError(f"--host {host}: no such address; give one of this machine, e.g. {HOST}") from None
    return family, address  # type: ignore[return-value]  # IPv6 addresses have two numbers more


def authentication(folder: Path) -> Mapping[str, str]:
    """Environment of MLflow's basic authentication; its users and what they may see lie in `folder`.

    Nobody may do anything with an experiment or a model unless the admin says so, nor make one (ui_users.py).
    """
    users = str(folder.absolute() / "users.db").replace("%", "%%")  # the file is read with interpolation
    settings = f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{users}\n"
    settings += f"authorization_function = {USERS}\n"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        write_bytes(folder / "basic_auth.ini", settings.encode())
    except OSError as error:
        raise InputError(f"--uri: {folder} cannot be written ({error.strerror}); it keeps the users") from error
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder.absolute() / "basic_auth.ini"),
        "MLFLOW_AUTH_ADMIN_USERNAME": os.environ.get("MLFLOW_AUTH_ADMIN_USERNAME", "admin"),
        # Signs the forms of one start; nobody has to know it, so nobody keeps it.
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(32),
    }


if __name__ == "__main__":
    run_command(main)
