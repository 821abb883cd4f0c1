"""Remote: a policy that is an HTTP service, asked in batches. The protocol is below; nothing of the service's model lives here.

Request, `POST url`, JSON: `{"schema": 1, "k": 60, "seed": 7, "requests": [{"user": 3, "step": 0, "items": [5, 9],
"clicked": [true, false], "seen": [5, 9]}, ...]}` with items oldest first and without padding.
Answer, 200, JSON: `{"slates": [{"items": [4, 8, ...], "scores": [2.5, 1.0, ...]}, ...]}`, one for each request in the same order, at
most k items each, scores non-increasing; `propensities` may stand beside `scores`.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from policies.base import PADDING, Catalogue, Fitting, Histories, Policy, Sequences, Slates


class RemoteError(ValueError):
    """A remote policy that does not answer, or not as the protocol says; the message names the url, the request and what to do."""


@dataclass
class Remote(Policy):
    """A policy behind an HTTP endpoint. The service is fitted by its owner; `fit` only notes the size of the catalogue.

    Attributes:
        url: of the endpoint, http or https.
        timeout: s that one try may take.
        retries: further tries after a connection that fails, a time-out or a 5xx answer; a 4xx answer is final.
        backoff: s before the first retry, doubled before each further one.
        batch: requests in one call.
    """

    url: str = "http://127.0.0.1:8000/recall"
    timeout: Annotated[float, Field(gt=0)] = 10.0
    retries: Annotated[int, Field(ge=0)] = 3
    backoff: Annotated[float, Field(ge=0)] = 0.1
    batch: Annotated[int, Field(ge=1)] = 256

    learns: ClassVar[tuple[str, ...]] = ()

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Note the number of items.

        Raises:
            RemoteError: `url` is no http(s) address.
        """
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RemoteError(f"remote policy: url must be http://host[:port]/path; got {self.url!r}")
        self.n_items_ = catalogue.n_items
        return self

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """Ask the service, `batch` requests at a time, over one connection.

        Raises:
            RemoteError: no answer after all retries, or one that breaks the protocol.
        """
        parts = urllib.parse.urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=self.timeout)
        items = np.zeros((len(histories), k), dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        chances: npt.NDArray[np.float32] | None = None
        try:
            for start in range(0, len(histories), self.batch):
                rows = slice(start, min(start + self.batch, len(histories)))
                answers = self._ask(connection, parts, _question(histories.rows(rows), k, seed), rows)
                for row, answer in enumerate(answers, start):
                    n = self._place(answer, k, items[row], scores[row], row, int(histories.user[row]))
                    if "propensities" in answer:
                        chances = np.ones((len(histories), k), dtype=np.float32) if chances is None else chances
                        chances[row, :n] = answer["propensities"]
        finally:
            connection.close()
        return Slates(items, scores, chances)

    def _ask(
        self, connection: http.client.HTTPConnection, parts: urllib.parse.SplitResult, body: bytes, rows: slice
    ) -> list[dict[str, Any]]:
        """One batch with its retries: the `slates` of the answer."""
        path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        whose = f"remote policy {self.url} (requests {rows.start}..{rows.stop - 1} of the batch)"
        problem = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.backoff * 2 ** (attempt - 1))
            try:
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                problem = f"{type(error).__name__}: {error}"
                continue
            if response.status >= 500:
                problem = f"answered {response.status} {response.reason}: {text[:200].decode(errors='replace')!r}"
                continue
            if response.status != 200:
                shown = text[:200].decode(errors="replace")
                raise RemoteError(f"{whose}: expected status 200; got {response.status} {response.reason}: {shown!r}")
            try:
                slates = json.loads(text)["slates"]
            except (ValueError, KeyError, TypeError) as error:
                shown = text[:200].decode(errors="replace")
                raise RemoteError(f"{whose}: the answer must be JSON with the key 'slates'; got {shown!r}") from error
            if not isinstance(slates, list) or len(slates) != rows.stop - rows.start:
                found = len(slates) if isinstance(slates, list) else type(slates).__name__
                raise RemoteError(f"{whose}: expected {rows.stop - rows.start} slates, one a request; got {found}")
            return slates
        raise RemoteError(f"{whose}: no answer in {self.retries + 1} tries of at most {self.timeout} s: {problem}; is the service up?")

    def _place(self, answer: Any, k: int, items: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], row: int, user: int) -> int:
        """Write one slate into its row; returns its length."""
        whose = f"remote policy {self.url}, request {row} (user {user})"
        if not isinstance(answer, dict) or not {"items", "scores"} <= answer.keys():
            raise RemoteError(f"{whose}: a slate must have 'items' and 'scores'; got {answer!r}")
        n = len(answer["items"])
        lengths = {key: len(value) for key, value in answer.items() if isinstance(value, list)}
        if n > k or set(lengths.values()) != {n}:
            raise RemoteError(f"{whose}: at most k = {k} items, and one score each; got lengths {lengths}")
        try:
            items[:n], scores[:n] = answer["items"], answer["scores"]
        except (TypeError, ValueError) as error:
            raise RemoteError(f"{whose}: items must be whole numbers and scores numbers: {error}") from error
        return n

    def state(self) -> dict[str, npt.NDArray[Any]]:
        return {"n_items": np.array(self.n_items_)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        self.n_items_ = int(state["n_items"])
        return self


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
