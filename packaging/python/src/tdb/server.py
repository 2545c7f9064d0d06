"""The program that the package carries, as a server for as long as one wants it."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
import urllib.parse
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from .client import Client


def program() -> Path:
    """Where `tdb` is: the one that was installed with this package, else one on the PATH.

    Raises `FileNotFoundError` if there is none.
    """
    name = "tdb.exe" if os.name == "nt" else "tdb"
    for scheme in (None, f"{os.name}_user"):
        folder = sysconfig.get_path("scripts") if scheme is None else sysconfig.get_path("scripts", scheme)
        if (path := Path(folder) / name).is_file():
            return path
    if found := shutil.which(name):
        return Path(found)
    raise FileNotFoundError("the program `tdb` is not there: install this package anew")


class Server(Client):
    """`tdb serve` on a free port of this machine, and a client of it. Ends with the `with` block, or with `close`.

    Arguments are those of the command line: `Server("--model", "gpt2-small")`.
    """

    def __init__(self, *arguments: str) -> None:
        self._log = tempfile.TemporaryFile()
        command = [str(program()), "serve", "--port", "0", *arguments]
        # In a group of its own: what interrupts the program or the notebook does not end the server.
        apart: dict[str, Any] = (
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt" else {"start_new_session": True}
        )
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._log, **apart
        )
        # Also where nobody closes it.
        atexit.register(self._process.terminate)
        # The first line is printed when the server listens; without one, it has ended.
        line = self._output().readline().decode()
        address = re.match(r"(https?://[^/\s]+)", line)
        if address is None:
            self._process.wait()
            self._log.seek(0)
            lines = self._log.read().decode(errors="replace").strip().splitlines()
            self.close()
            # What the program says of its end, without its log.
            reason = "\n".join(line for line in lines if line.startswith("tdb: ")) or "\n".join(lines)
            raise RuntimeError(reason or f"`tdb serve` printed no address but {line!r}")
        # Where others can connect, or where one was chosen, the address holds a token.
        token = re.search(r"[?&]token=([^\s&]+)", line)
        super().__init__(address[1], token=urllib.parse.unquote_plus(token[1]) if token else None)

    def _output(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def close(self) -> None:
        """Ends the server."""
        atexit.unregister(self._process.terminate)
        self._process.terminate()
        self._process.wait()
        self._output().close()
        self._log.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()
