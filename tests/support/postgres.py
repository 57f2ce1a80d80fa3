"""A real PostgreSQL for the tests' Prefect server: a cluster in a temporary folder, with a socket file and no port.

The shell that starts PostgreSQL waits for the end of its standard input, which is a pipe from this process. If this
process dies, even by SIGKILL, the shell ends PostgreSQL, too.
"""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.processes import wait_until

if TYPE_CHECKING:
    from typing_extensions import Self

MISSING = "PostgreSQL is not installed (on Debian: apt-get install postgresql)."
# Debian's package makes this user. PostgreSQL refuses to run as root.
_USER = "postgres"
# Nothing needs to survive a crash of the machine. Isolation and locks are those of any PostgreSQL.
_OPTIONS = ["-c", "listen_addresses=", "-c", "fsync=off"]
_UNTIL_STDIN_ENDS = '"$@" & cat; kill -INT $!; wait $!'


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs: that of the path, or Debian's for the newest version; or None."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    folders = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((one.parent for one in folders), key=lambda one: float(one.parent.name), default=None)


class Postgres:
    """A PostgreSQL server with an empty database. Use it as a context manager."""

    def __init__(self) -> None:
        folder = binaries()
        if folder is None:
            raise RuntimeError(MISSING)
        self._binaries = folder
        self._home = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._log_path = self._home / "log"
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam(_USER)
            os.chown(self._home, user.pw_uid, user.pw_gid)
            self._user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._shell: subprocess.Popen[bytes] | None = None

    @property
    def prefect_settings(self) -> dict[str, str]:
        """The settings with which a Prefect server stores its data here."""
        name = _USER if self._user else getpass.getuser()
        url = f"postgresql+asyncpg://{name}@/postgres?host={self._home}"
        return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        data = self._home / "data"
        initdb = [self._binaries / "initdb", "--auth=trust", "--encoding=UTF8", "--no-sync", "-D", data]
        made = subprocess.run(initdb, cwd=self._home, capture_output=True, check=False, **self._user)
        assert made.returncode == 0, made.stderr.decode()
        postgres = [self._binaries / "postgres", "-D", data, "-k", self._home, *_OPTIONS]
        with self._log_path.open("wb") as log:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _UNTIL_STDIN_ENDS, "sh", *postgres],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._home,
                # In a session of its own, PostgreSQL does not receive Ctrl-C from the terminal.
                start_new_session=True,
                **self._user,
            )
        wait_until(self._answers, f"PostgreSQL, which logs to {self._log_path}")

    def _answers(self) -> bool:
        is_ready = [self._binaries / "pg_isready", "-q", "-h", self._home]
        return subprocess.run(is_ready, cwd=self._home, check=False, **self._user).returncode == 0

    def _stop(self) -> None:
        shell, self._shell = self._shell, None
        if shell is not None:
            shell.communicate()
        shutil.rmtree(self._home, ignore_errors=True)
