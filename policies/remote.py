"""Remote: a policy that is an HTTP service, asked in batches. The protocol is below; nothing of the
service's model lives here.

Request, `POST url`, JSON: `{"schema": 1, "k": 60, "seed": 7, "requests": [{"user": 3, "step": 0,
"items": [5, 9], "clicked": [true, false], "seen": [5, 9]}, ...]}` with items oldest first and
without padding.
Answer, 200, JSON: `{"slates": [{"items": [4, 8, ...], "scores": [2.5, 1.0, ...]}, ...]}`, one for
each request in the same order, at most k items each, scores non-increasing; `propensities` may
stand beside `scores`. Items are written as whole numbers (1, not 1.0).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from policies.base import (
    PADDING,
    Catalogue,
    Fitting,
    FloatArray,
    Histories,
    Policy,
    Sequences,
    Slates,
)

LONGEST_WAIT = 60.0
"""Seconds between two tries from which on waiting is not doubled any more."""


class RemoteError(ValueError):
    """A remote policy that does not answer, or not as the protocol says; the message names the url,
    the request and what to do.
    """


@dataclass
class Remote(Policy):
    """A policy behind an HTTP endpoint. The service is fitted by its owner; `fit` only notes the
    size of the catalogue.

    Attributes:
        url: of the endpoint, http or https.
        timeout: s that one try may take as a whole: resolving the name, connecting, sending, and
            reading the answer to its end.
        retries: further tries after a connection that fails, a time-out or a 5xx answer; a 4xx
            answer is final.
        backoff: s before the first retry, doubled before each further one, up to a minute.
        batch: requests in one call.
        largest: MiB that an answer may have; a larger one is refused, and not read any further.
    """

    url: str = "http://127.0.0.1:8000/recall"
    timeout: Annotated[float, Field(gt=0, le=threading.TIMEOUT_MAX)] = 10.0
    retries: Annotated[int, Field(ge=0)] = 3
    backoff: Annotated[float, Field(ge=0)] = 0.1
    batch: Annotated[int, Field(ge=1)] = 256
    largest: Annotated[int, Field(ge=1)] = 64

    draws_in_fit: ClassVar[bool] = False
    learns: ClassVar[tuple[str, ...]] = ()

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Note the number of items.

        Raises:
            RemoteError: `url` is no http(s) address.
        """
        self._address()
        self.n_items_ = catalogue.n_items
        return self

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """Ask the service, `batch` requests at a time, over one connection.

        Raises:
            RemoteError: no answer after all retries, or one that breaks the protocol.
        """
        line = _Line(self._address(), self.timeout, self.largest << 20)
        items = np.zeros((len(histories), k), dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        chances: FloatArray | None = None
        try:
            for start in range(0, len(histories), self.batch):
                rows = slice(start, min(start + self.batch, len(histories)))
                answers = self._ask(line, _question(histories.rows(rows), k, seed), rows)
                for row, answer in enumerate(answers, start):
                    whose = (
                        f"remote policy {self.url}, request {row} (user {int(histories.user[row])})"
                    )
                    slate = _slate(answer, k, whose)
                    n = len(slate["items"])
                    items[row, :n], scores[row, :n] = slate["items"], slate["scores"]
                    if "propensities" in slate:
                        if chances is None:
                            chances = np.ones((len(histories), k), dtype=np.float32)
                        chances[row, :n] = slate["propensities"]
        finally:
            line.close()
        return Slates(items, scores, chances)

    def _address(self) -> urllib.parse.SplitResult:
        """The parts of the url.

        Raises:
            RemoteError: it is no http(s) address.
        """
        rule = "url must be http://host[:port]/path, without spaces, names and passwords"
        try:
            parts = urllib.parse.urlsplit(self.url)
            plain = (
                self.url.isascii()
                and self.url.isprintable()
                and " " not in self.url
                and "@" not in parts.netloc
            )
            good = (
                plain and parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
            )
        except ValueError as error:  # a port out of range, a bracket that is not closed
            raise RemoteError(f"remote policy: {rule}; got {self.url!r}: {error}") from error
        if not good:
            raise RemoteError(f"remote policy: {rule}; got {self.url!r}")
        return parts

    def _ask(self, line: _Line, body: bytes, rows: slice) -> list[Any]:
        """One batch with its retries: the `slates` of the answer."""
        whose = f"remote policy {self.url} (requests {rows.start}..{rows.stop - 1} of the batch)"
        problem, wait = "", min(self.backoff, LONGEST_WAIT)
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
            try:
                status, reason, text = line.post(body)
            except _TooLarge as error:
                raise RemoteError(
                    f"{whose}: the answer has more than {self.largest} MiB; raise 'largest' if that"
                    " is right"
                ) from error
            except (OSError, http.client.HTTPException) as error:
                line.close()
                problem = f"{type(error).__name__}: {error}"
                continue
            shown = repr(text[:200].decode(errors="replace"))
            if status >= 500:
                problem = f"answered {status} {reason}: {shown}"
                continue
            if status != 200:
                raise RemoteError(f"{whose}: expected status 200; got {status} {reason}: {shown}")
            try:
                slates = json.loads(text, parse_constant=_no_constant)["slates"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise RemoteError(
                    f"{whose}: the answer must be JSON with the key 'slates'; got {shown}"
                ) from error
            if not isinstance(slates, list) or len(slates) != rows.stop - rows.start:
                got = len(slates) if isinstance(slates, list) else type(slates).__name__
                raise RemoteError(
                    f"{whose}: expected {rows.stop - rows.start} slates, one a request; got {got}"
                )
            return slates
        raise RemoteError(
            f"{whose}: no answer in {self.retries + 1} tries of at most {self.timeout} s:"
            f" {problem}; is the service up?"
        )

    def state(self) -> dict[str, npt.NDArray[Any]]:
        return {"n_items": np.array(self.n_items_)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        self.n_items_ = int(state["n_items"])
        return self


class _TooLarge(Exception):  # noqa: N818 - becomes a RemoteError
    """An answer beyond the limit."""


class _Line:
    """A connection that is kept open between calls, and on which a call ends in time however slowly
    the other side sends.

    The time-outs of sockets are of single operations: a byte a second would never run into one. So
    a timer shuts the connection down when the time of the whole call is over.
    """

    def __init__(self, address: urllib.parse.SplitResult, timeout: float, largest: int) -> None:
        self._secure = address.scheme == "https"
        port = address.port or (443 if self._secure else 80)
        self._connection = http.client.HTTPConnection(address.hostname or "", port)
        self._path = urllib.parse.urlunsplit(("", "", address.path or "/", address.query, ""))
        self._host = address.netloc
        self._timeout, self._largest = timeout, largest
        self._raw: socket.socket | None = None

    def post(self, body: bytes) -> tuple[int, str, bytes]:
        """Status, reason and body of the answer.

        Raises:
            TimeoutError: not within the time limit. OSError, HTTPException: as usual. _TooLarge: a
                body beyond the limit.
        """
        end = time.monotonic() + self._timeout
        late = threading.Event()

        def cut() -> None:
            late.set()
            self._shut()

        timer = threading.Timer(self._timeout, cut)
        timer.daemon = True  # a command that is interrupted does not wait for it
        timer.start()
        try:
            if self._connection.sock is None:
                self.close()
                self._connection.sock = self._connected(end)
            headers = {
                "Content-Type": "application/json",
                "Accept-Encoding": "identity",
                "Host": self._host,
            }
            self._connection.request("POST", self._path, body, headers)
            response = self._connection.getresponse()
            text = self._read(response)
        except _TooLarge:
            self.close()
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            if late.is_set() or isinstance(error, TimeoutError):
                raise TimeoutError(f"not done within {self._timeout} s") from error
            if isinstance(error, ValueError):  # a file that was closed while it was read from
                raise http.client.HTTPException(str(error)) from error
            raise
        finally:
            timer.cancel()
        if late.is_set():  # the end of the body may be the end that the timer made
            self.close()
            raise TimeoutError(f"not done within {self._timeout} s")
        return response.status, response.reason, text

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        parts, size = [], response.length or 0
        if size > self._largest:
            raise _TooLarge
        size = 0
        while part := response.read(1 << 16):
            parts.append(part)
            size += len(part)
            if size > self._largest:
                raise _TooLarge
        return b"".join(parts)

    def _connected(self, end: float) -> socket.socket:
        """A connection opened before `end`; its handle, which the timer shuts, is there before
        anything is read.
        """
        host, port = self._connection.host, self._connection.port
        problem = OSError(f"{host} has no address")
        for family, kind, protocol, _, place in _resolved(host, port, end):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(max(end - time.monotonic(), 1e-3))
                sock.connect(place)
                # Head and body are two writes: without this the second waits for
                # the acknowledgement of the first.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # Of its own, since TLS takes the socket over, and a shutdown must reach below it.
                self._raw = sock.dup()
                if self._secure:
                    return ssl.create_default_context().wrap_socket(sock, server_hostname=host)
                return sock
            except OSError as error:
                sock.close()
                problem = error
        raise problem

    def _shut(self) -> None:
        raw = self._raw
        if raw is not None:
            with contextlib.suppress(OSError):  # it may be closed already
                raw.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        self._connection.close()
        if self._raw is not None:
            self._raw.close()
            self._raw = None


def _resolved(host: str, port: int, end: float) -> list[Any]:
    """The addresses of a host, as `socket.getaddrinfo` gives them, if they are known before `end`.

    The resolver of the system takes no time limit and cannot be interrupted. So a thread asks it,
    which is left to itself when the time is over.
    """
    answers: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as error:  # ValueError: a name that DNS has no form for
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=max(end - time.monotonic(), 0))
    except queue.Empty as error:
        raise TimeoutError(f"{host} was not resolved in time") from error
    if isinstance(answer, Exception):
        raise answer
    return answer


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _slate(answer: Any, k: int, whose: str) -> dict[str, list[Any]]:
    """One slate of an answer, held to the protocol."""
    if not isinstance(answer, dict) or not {"items", "scores"} <= answer.keys():
        raise RemoteError(f"{whose}: a slate must have 'items' and 'scores'; got {_shown(answer)}")
    slate = {name: answer[name] for name in ("items", "scores", "propensities") if name in answer}
    for name, values in slate.items():
        if not isinstance(values, list):
            raise RemoteError(f"{whose}: {name!r} must be a list; got {_shown(values)}")
    lengths = {name: len(values) for name, values in slate.items()}
    if lengths["items"] > k or len(set(lengths.values())) != 1:
        raise RemoteError(
            f"{whose}: at most k = {k} items, and one score each; got lengths {lengths}"
        )
    for name, values in slate.items():
        if name == "items":
            good, rule = (_is_item, "items must be whole numbers")
        else:
            good, rule = (_is_number, f"{name} must be numbers")
        place = next((i for i, value in enumerate(values) if not good(value)), None)
        if place is not None:
            raise RemoteError(f"{whose}: {rule}; got {_shown(values[place])} at place {place}")
    return slate


def _is_item(value: Any) -> bool:
    """Written as a whole number: True is an int in Python, and 1.0 or "1" would become one if they
    were cast.
    """
    return type(value) is int and abs(value) < 1 << 63


def _is_number(value: Any) -> bool:
    """A number that float32 can hold."""
    return type(value) in (int, float) and abs(value) <= np.finfo(np.float32).max.item()


def _shown(value: Any) -> str:
    """A JSON value, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _question(histories: Histories, k: int, seed: int) -> bytes:
    used = histories.items != PADDING
    requests = [
        {
            "user": int(histories.user[row]),
            "step": int(histories.step[row]),
            "items": histories.items[row][used[row]].tolist(),
            "clicked": histories.clicked[row][used[row]].tolist(),
            "seen": sorted(set(histories.seen[row].tolist()) - {PADDING}),
        }
        for row in range(len(histories))
    ]
    return json.dumps({"schema": 1, "k": k, "seed": seed, "requests": requests}).encode()
