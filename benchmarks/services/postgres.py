"""PostgreSQL as Debian ships it, with a password, on a free port of 127.0.0.1:

with postgres() as server:
    url = server.database("studies")      # postgresql+psycopg2://cpn:PASSWORD@127.0.0.1:PORT/studies
    server.kill()                         # kill -9; server.start() brings it back on the same port
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.services.processes import Service, free_port, marked

USER = "cpn"


class Postgres(Service):
    """A database server that runs."""

    port: int
    password: str

    def url(self, database: str = "postgres") -> str:
        """The URL of a database in it, with the driver: where none is named, SQLAlchemy 2.1 takes another one."""
        return f"postgresql+psycopg2://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def connect(self):  # type: ignore[no-untyped-def]  # psycopg2 ships no types
        """A connection of psycopg2."""
        import psycopg2

        return psycopg2.connect(
            host="127.0.0.1", port=self.port, user=USER, password=self.password, dbname="postgres", connect_timeout=5
        )

    def database(self, name: str) -> str:
        """Make an empty database; returns its URL."""
        connection = self.connect()
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{name}"')
        connection.close()
        return self.url(name)


def missing() -> str | None:
    """Why no PostgreSQL can be started here; None if one can."""
    if programs() is None:
        return "PostgreSQL is not installed: apt-get install postgresql"
    if os.getuid() == 0 and (account() is None or shutil.which("setpriv") is None):
        return "PostgreSQL refuses to run as root, and there is no user postgres or nobody, or no setpriv, to run it as"
    return None


def programs() -> Path | None:
    """The folder with initdb and postgres: Debian's of the newest version, else that on PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return debian[-1].parent if debian else Path(on_path).parent if on_path else None


def account() -> pwd.struct_passwd | None:
    """Whom root runs the server as."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A fresh server; its files go with it. RuntimeError where `missing` has a reason."""
    reason, binaries = missing(), programs()
    if reason or binaries is None:
        raise RuntimeError(reason)
    with marked("postgres") as mark:
        data, password = mark.folder / "data", secrets.token_hex(16)
        (mark.folder / "password").write_text(password)
        as_user: list[str] = []
        if os.getuid() == 0 and (other := account()) is not None:
            as_user = ["setpriv", f"--reuid={other.pw_uid}", f"--regid={other.pw_gid}", "--clear-groups"]
            for path in (mark.folder, mark.folder / "password"):
                os.chown(path, other.pw_uid, other.pw_gid)
        initdb = [*as_user, str(binaries / "initdb"), "--pgdata", str(data), "--username", USER, "--auth=scram-sha-256"]
        initdb += ["--pwfile", str(mark.folder / "password"), "--encoding=UTF8", "--no-locale", "--no-sync"]
        subprocess.run(initdb, cwd=mark.folder, env=mark.environment, check=True, stdout=subprocess.DEVNULL)
        port = free_port()
        command = [*as_user, str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1"]
        # No socket file; and the system keeps what a killed process has written, only a power cut would not.
        command += ["-c", "unix_socket_directories=", "-c", "fsync=off"]
        server = Postgres(command, mark.folder / "log", mark.environment, lambda: _answers(server))
        server.port, server.password = port, password
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGINT)  # what PostgreSQL calls a fast shutdown


def _answers(server: Postgres) -> bool:
    """Whether the server takes connections: a free port says so at once, a server that recovers only to a client."""
    import psycopg2

    socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
    try:
        server.connect().close()
    except psycopg2.OperationalError:
        return False
    return True
