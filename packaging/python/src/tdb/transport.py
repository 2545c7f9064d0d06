"""How requests get to a server: with Python's own library alone."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any


class Refused(Exception):
    """The server's own sentence about a request that it did not answer.

    `status` is the HTTP status; 422 stands for a request of a wrong form, 429 for a server that has too much to do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Questions and tokens go to the address that was given, and nowhere else."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        raise Refused(code, f"the server sends on to {newurl}, which is not followed: give the address itself")


class Transport:
    """A server's address. `token` is what a server on a network asks for; `timeout` is in seconds.

    Proxies of the environment are not used for servers of this machine.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", *, token: str | None = None, timeout: float = 600) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} is no address of a server, such as http://127.0.0.1:8000")
        self.url = url.rstrip("/")
        self.token = token
        self.timeout = timeout
        direct = [urllib.request.ProxyHandler({})] if _is_here(self.url) else []
        self._opener = urllib.request.build_opener(_NoRedirects, *direct)

    def request(self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None) -> Any:
        """The answer, read.

        Raises `Refused` if the server answers with an error, and `OSError` if it cannot be reached or breaks off.
        """
        with _breaks(), self._open(method, path, body, query) as answer:
            return _read(answer.read())

    def text(self, method: str, path: str) -> str:
        """An answer that is no JSON, as it is."""
        with _breaks(), self._open(method, path, None, None) as answer:
            return answer.read().decode()

    def stream(self, method: str, path: str, body: Any = None) -> Iterator[Any]:
        """The parts of an answer, each as soon as it is there. Whoever stops reading stops the server's work.

        The last part says that the answer is `done`, or which `error` ended it; without it, `ConnectionError` is raised.
        """
        event = None
        with _breaks(), self._open(method, path, body, None) as answer:
            for line in answer:
                if line.strip():
                    part = _read(line)
                    event = part.get("event") if isinstance(part, dict) else None
                    yield part
        if event not in ("done", "error"):
            raise ConnectionError("the server broke off before the end of its answer")

    def _open(self, method: str, path: str, body: Any, query: Mapping[str, Any] | None) -> Any:
        url = self.url + path
        if query:
            url += "?" + urllib.parse.urlencode({key: value for key, value in query.items() if value is not None})
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers=headers, method=method)
        try:
            return self._opener.open(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            raise Refused(error.code, _reason(error)) from None


def _is_here(url: str) -> bool:
    """Whether a server is one of this machine."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def _breaks() -> Iterator[None]:
    """What HTTP calls an incomplete answer is a broken connection."""
    try:
        yield
    except http.client.HTTPException as error:
        raise ConnectionError(f"the server broke off: {error!r}") from None


def _read(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        start = text[:60].decode(errors="replace")
        raise ConnectionError(f"what answers is no server of this kind: {start!r} is no JSON") from None


def _reason(error: urllib.error.HTTPError) -> str:
    """What a refusal says, or what its status means."""
    try:
        said = _sentence(error.read())
    except (OSError, http.client.HTTPException):
        said = ""
    return said or f"{error.reason} (without a reason)"


def _sentence(body: bytes) -> str:
    """What an error's body says, in whichever of the two forms."""
    try:
        answer = json.loads(body)
        if "message" in answer:
            return answer["message"]
        return "; ".join(".".join(map(str, d["loc"])) + ": " + d["msg"] for d in answer["detail"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")
