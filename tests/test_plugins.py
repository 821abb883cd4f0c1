"""The ways in: files, packages, a remote service, exported models, models of other packages."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.base import Fitting, Histories, Policy, Sequences
from policies.calls import CallError, calling
from policies.check import check_policy
from policies.examples import chain, mixed
from policies.exported import Exported, ExportedError
from policies.implicit import Implicit, ImplicitError
from policies.registry import PolicyError, available, make, resolve
from policies.remote import Remote, RemoteError
from policies.scaffold import write_package
from tests.worlds import broken_promises

# --- names, modules, files
# ------------------------------------------------------------------------------


def test_names_are_listed_without_importing_any_policy() -> None:
    code = (
        "from policies.registry import available; import sys; available(); print([m for m in"
        " sys.modules if m.startswith('policies.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout
    assert set(json.loads(done.stdout.replace("'", '"'))) == {
        f"policies.{name}"
        for name in (
            "base",
            "booleans",
            "calls",
            "clock",
            "context",
            "device",
            "lending",
            "plugins",
            "ranks",
            "registry",
            "rules",
            "similar",
            "staging",
            "stretches",
        )
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("commirec", "no policy 'commirec'; did you mean 'comirec'?"),
        ("policies.popularity:Popularty", "has no class 'Popularty'; did you mean 'Popularity'?"),
        ("no_such_module:X", "importing 'no_such_module' raised ModuleNotFoundError"),
        ("json:JSONDecoder", "must be a subclass of policies.base.Policy"),
        ("missing.py:X", "no plug-in file 'missing.py'; looked at"),
    ],
)
def test_what_is_no_policy_is_named(name: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        resolve(name)
    assert message in str(caught.value)


def test_hyper_parameters_are_checked_with_their_path() -> None:
    with pytest.raises(
        PolicyError,
        match=r"policy 'remote': no hyper-parameter 'time_out'; did you mean 'timeout'\?",
    ):
        make("remote", {"time_out": 3})
    with pytest.raises(
        PolicyError,
        match=r"hyper-parameter 'timeout': must be greater than 0; got -1",
    ):
        make("remote", {"timeout": -1})
    with pytest.raises(
        PolicyError,
        match=r"hyper-parameter 'training\.epochs': must be a number; got true",
    ):
        make("sasrec", {"training": {"epochs": True}})


@pytest.mark.parametrize(
    ("name", "params", "advice"),
    [
        ("sasrec", {"epochs": 3}, "'epochs'; did you mean 'training.epochs'?"),
        ("comirec", {"kind": "bpr"}, "'kind'; did you mean 'search.kind' or 'loss.kind'?"),
        ("sasrec", {"training": {"width": 3}}, "'training.width'; did you mean 'width'?"),
        ("sasrec", {"training": {"epoch": 3}}, "'training.epoch'; did you mean 'training.epochs'?"),
        ("recgpt", {"counts": {"flor": 0.1}}, "'counts.flor'; did you mean 'counts.floor'?"),
        ("popularity", {"xyz": 3}, "'xyz'; it has half_life"),
        ("random", {"xyz": 3}, "'xyz'; it has none"),
        (
            "pretrain",
            {"counts": {"xyz": 3}},
            "'counts.xyz'; 'counts' has neighbours, decay, markov, shrink, floor",
        ),
    ],
)
def test_an_unknown_hyper_parameter_is_answered_by_those_that_exist(
    name: str, params: dict[str, Any], advice: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        make(name, params)
    assert str(caught.value) == f"policy {name!r}: no hyper-parameter {advice}"


def test_a_file_is_a_policy_and_its_failing_import_is_named(tmp_path: Path) -> None:
    write_package("filed_policy", tmp_path)
    (tmp_path / "mine.py").write_text(
        (tmp_path / "filed_policy/filed_policy/policy.py").read_text()
    )
    policy = make("mine.py:FiledPolicy", {"length": 3}, tmp_path)
    assert policy.params() == {"length": 3, "decay": 0.6}
    (tmp_path / "bad.py").write_text("class Bad: ...\nraise OSError('no licence')\n")
    with pytest.raises(
        PolicyError, match=r"importing 'bad\.py' raised OSError: no licence at bad\.py:2"
    ):
        resolve("bad.py:Bad", tmp_path)


# --- a package of one's own
# ------------------------------------------------------------------------------


def test_the_written_policy_keeps_its_promises(tmp_path: Path) -> None:
    write_package("my_idea", tmp_path)
    policy = make("my_idea/my_idea/policy.py:MyIdea", None, tmp_path)
    assert broken_promises(policy) == {}


TAKEN = [
    *(
        ("My-Idea", "must be small letters"),
        ("1st", "must be small letters"),
        ("a" * 61, "60 at most"),
        ("class", "no keyword of Python"),
    ),
    ("comirec", "there is a policy 'comirec' already"),
    ("numpy", "in the way of the installed package numpy"),
    *(
        ("yaml", "in the way of the installed module 'yaml'"),
        ("simulator", "in the way of the installed module 'simulator'"),
    ),
    ("import_linter", "in the way of the installed package import-linter"),
    *(
        ("array", "in the way of Python's own module 'array'"),
        ("random_", None),
        ("tests", "its own tests"),
    ),
    *(
        ("policy", "would be called Policy, as something that it imports"),
        ("self", "would be called Self"),
        ("field", "called Field"),
    ),
]


@pytest.mark.parametrize(("name", "message"), TAKEN)
def test_a_package_needs_a_free_name(name: str, message: str | None, tmp_path: Path) -> None:
    if message is None:
        assert write_package(name, tmp_path) == tmp_path / name
        return
    with pytest.raises(PolicyError, match=message):
        write_package(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "my_idea").mkdir()
    with pytest.raises(PolicyError, match="is there already"):
        write_package("my_idea", tmp_path)


# --- a remote service
# ------------------------------------------------------------------------------


@dataclass
class Service:
    """A local recall service: the unseen items in order of id; can be made to misbehave."""

    failures: int = 0
    status: int = 503
    answer: Any = None
    text: str | None = None
    stall: float = 0.0
    calls: list[int] = field(default_factory=list)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            service.calls.append(len(asked["requests"]))
            if service.stall:
                service.released.wait(service.stall)
            if service.failures:
                service.failures -= 1
                self.reply(service.status, b"busy")
                return
            slates = []
            for request in asked["requests"]:
                items = [item for item in range(1, 51) if item not in request["seen"]][: asked["k"]]
                slates.append({"items": items, "scores": [1.0 / item for item in items]})
            if service.text is not None:
                self.reply(200, service.text.encode())
                return
            self.reply(
                200,
                json.dumps(
                    {"slates": slates} if service.answer is None else service.answer
                ).encode(),
            )

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_address[1]}/recall"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield service
    service.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def asked(n: int) -> Histories:
    return mixed(n_users=n).requests()


def remote(service: Service, **params: Any) -> Policy:
    example = mixed()
    return make("remote", {"url": service.url, "backoff": 0.01, **params}).fit(
        example.sequences, example.catalogue, Fitting()
    )


def test_a_remote_policy_keeps_its_promises(service: Service) -> None:
    promises = ["shapes", "seen_items", "k_too_large", "purity", "batch_invariance", "save_load"]
    results = list(check_policy(Remote(url=service.url), only=promises))
    assert all(r.kept for r in results), results


def test_requests_go_in_batches(service: Service) -> None:
    slates = remote(service, batch=16).recall(asked(40), 10, 0)
    assert service.calls == [16, 16, 8]
    assert slates.items.shape == (40, 10)


def test_a_busy_service_is_asked_again_and_a_dead_one_named(service: Service) -> None:
    service.failures = 2
    assert len(remote(service).recall(asked(4), 5, 0)) == 4
    service.failures = 99
    with pytest.raises(
        RemoteError, match=r"no answer in 2 tries .*answered 503 .*is the service up\?"
    ):
        remote(service, retries=1).recall(asked(4), 5, 0)
    with pytest.raises(RemoteError, match="ConnectionRefusedError"):
        make("remote", {"url": "http://127.0.0.1:9/x", "retries": 0}).recall(asked(4), 5, 0)


def test_a_slow_service_runs_into_the_time_limit(service: Service) -> None:
    service.stall = 5.0
    with pytest.raises(RemoteError, match="TimeoutError"):
        remote(service, timeout=0.1, retries=0).recall(asked(4), 5, 0)


def test_a_refusal_is_final(service: Service) -> None:
    service.failures, service.status = 1, 403
    with pytest.raises(RemoteError, match="expected status 200; got 403"):
        remote(service).recall(asked(4), 5, 0)
    assert len(service.calls) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"items": []}, "must be JSON with the key 'slates'"),
        ({"slates": []}, "expected 2 slates"),
        (
            {"slates": [{"items": [1]}] * 2},
            r"request 0 \(user 0\): a slate must have 'items' and 'scores'",
        ),
        ({"slates": [{"items": [1, 2], "scores": [1.0]}] * 2}, "one score each"),
        ({"slates": [{"items": ["a"], "scores": [1.0]}] * 2}, "items must be whole numbers"),
        ({"slates": [{"items": list(range(9)), "scores": [1.0] * 9}] * 2}, "at most k = 5 items"),
    ],
)
def test_an_answer_against_the_protocol_is_named(
    service: Service, answer: Any, message: str
) -> None:
    service.answer = answer
    with pytest.raises(RemoteError, match=message):
        remote(service).recall(asked(2), 5, 0)


class Raw:
    """A server that answers every connection with the bytes of a generator, one piece at a time, as
    long as somebody listens.
    """

    def __init__(self, pieces: Callable[[], Iterator[bytes]], pause: float = 0.0) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/recall"
        self._pieces, self._pause, self._over = pieces, pause, threading.Event()
        self.sent = 0
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                connection.recv(1 << 16)
                for piece in self._pieces():
                    if self._over.wait(self._pause) or self._over.is_set():
                        return
                    self.sent += connection.send(piece)

    def __enter__(self) -> Raw:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def drip_body() -> Iterator[bytes]:
    yield HEAD + b"Content-Length: 400\r\n\r\n"
    yield from (b" " for _ in range(400))


def drip_head() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX-Slow: "
    yield from (b"x" for _ in range(400))


def drip_chunks() -> Iterator[bytes]:
    yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    yield from (b"1\r\n \r\n" for _ in range(400))


def drip_to_the_end() -> Iterator[bytes]:
    """Its end is the end of the connection, which the time limit makes."""
    yield (
        HEAD
        + b"Connection: close\r\n\r\n"
        + json.dumps({"slates": [{"items": [1], "scores": [1.0]}] * 4}).encode()
    )
    yield from (b" " for _ in range(400))


@pytest.mark.parametrize("pieces", [drip_body, drip_head, drip_chunks, drip_to_the_end])
def test_the_time_limit_is_of_the_whole_try_and_a_dripping_answer_is_cut_off(pieces: Any) -> None:
    with (
        Raw(pieces, pause=0.05) as server,
        pytest.raises(RemoteError, match=r"no answer in 2 tries .*not done within 0\.4 s"),
    ):
        make("remote", {"url": server.url, "timeout": 0.4, "retries": 1, "backoff": 0}).recall(
            asked(4), 5, 0
        )


def test_the_time_limit_holds_while_a_name_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def slow(*_: object, **__: object) -> list[Any]:
        answered.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with pytest.raises(RemoteError, match=r"no answer in 1 tries .*not done within 0\.2 s"):
        make("remote", {"url": "http://slow.example/", "timeout": 0.2, "retries": 0}).recall(
            asked(4), 5, 0
        )
    answered.set()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".example"])
def test_a_name_that_is_not_resolved_is_one_message(host: str) -> None:
    with pytest.raises(RemoteError, match=r"no answer in 1 tries .*is the service up"):
        make("remote", {"url": f"http://{host}/", "retries": 0}).recall(asked(4), 5, 0)


def test_the_wait_between_tries_is_doubled_up_to_a_minute(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("policies.remote.time.sleep", waits.append)
    service.failures = 99
    with pytest.raises(RemoteError, match="no answer in 6 tries"):
        remote(service, retries=5, backoff=8.0).recall(asked(4), 5, 0)
    assert waits == [8.0, 16.0, 32.0, 60.0, 60.0]


def endless() -> Iterator[bytes]:
    yield HEAD + b"\r\n"
    while True:
        yield b" " * (1 << 16)


def declared() -> Iterator[bytes]:
    yield HEAD + b"Content-Length: 99999999999\r\n\r\n"


@pytest.mark.parametrize("pieces", [endless, declared])
def test_an_answer_beyond_the_limit_is_refused_and_not_read(pieces: Any) -> None:
    with Raw(pieces) as server:
        with pytest.raises(RemoteError, match="the answer has more than 1 MiB; raise 'largest'"):
            make("remote", {"url": server.url, "largest": 1}).recall(asked(4), 5, 0)
        assert server.sent < 64 << 20


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            '{"slates": [{"items": [1.0], "scores": [1]}, 2]}',
            "items must be whole numbers; got 1.0 at place 0",
        ),
        (
            '{"slates": [{"items": ["1"], "scores": [1]}, 2]}',
            'items must be whole numbers; got "1" at place 0',
        ),
        (
            '{"slates": [{"items": [2, true], "scores": [1, 1]}, 2]}',
            "items must be whole numbers; got true at place 1",
        ),
        (
            '{"slates": [{"items": [null], "scores": [1]}, 2]}',
            "items must be whole numbers; got null",
        ),
        (
            '{"slates": [{"items": [[1]], "scores": [1]}, 2]}',
            r"items must be whole numbers; got \[1\]",
        ),
        (
            '{"slates": [{"items": [1e3], "scores": [1]}, 2]}',
            "items must be whole numbers; got 1000.0",
        ),
        (
            '{"slates": [{"items": [99999999999999999999], "scores": [1]}, 2]}',
            "items must be whole numbers",
        ),
        ('{"slates": [{"items": 5, "scores": 1}, 2]}', "'items' must be a list; got 5"),
        ('{"slates": [{"items": [1], "scores": ["1"]}, 2]}', 'scores must be numbers; got "1"'),
        ('{"slates": [{"items": [1], "scores": [true]}, 2]}', "scores must be numbers; got true"),
        (
            '{"slates": [{"items": [1], "scores": [1e300]}, 2]}',
            "scores must be numbers; got 1e\\+300",
        ),
        (
            '{"slates": [{"items": [1], "scores": [1], "propensities": ["x"]}, 2]}',
            "propensities must be numbers",
        ),
        ('{"slates": [{"items": [1], "scores": [NaN]}, 2]}', "must be JSON with the key 'slates'"),
        (
            '{"slates": [{"items": [1], "scores": [Infinity]}, 2]}',
            "must be JSON with the key 'slates'",
        ),
        ("[" * 100_000, "must be JSON with the key 'slates'"),
        ('{"slates": [' + "1" * 5000 + "]}", "must be JSON with the key 'slates'"),
        ("", "must be JSON with the key 'slates'"),
    ],
)
def test_what_is_no_whole_number_or_no_number_is_refused(
    service: Service, body: str, message: str
) -> None:
    service.text = body
    with pytest.raises(RemoteError, match=message):
        remote(service).recall(asked(2), 5, 0)


BAD_URLS = [
    "ftp://h/x",
    "http://",
    "http://h:99999/",
    "http://h:0/",
    "http://[::1/",
    "http://a b/",
    "http://u:p@h/",
    "h",
    "http://h/\n",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_that_is_none_is_named(url: str) -> None:
    example = mixed()
    with pytest.raises(RemoteError, match="url must be http://host"):
        Remote(url=url).fit(example.sequences, example.catalogue, Fitting())


# --- exported models
# ------------------------------------------------------------------------------


def last_click_model(n_items: int, seed: int = 3) -> Any:
    """torch: scores of the next item from a fixed table, by the last click."""
    import torch

    class LastClick(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            table = torch.rand(
                n_items + 1, n_items + 1, generator=torch.Generator().manual_seed(seed)
            )
            self.table = torch.nn.Parameter(table)

        def forward(self, items: torch.Tensor) -> torch.Tensor:
            return self.table[items[:, -1]]

    return LastClick().eval()


def save_model(kind: str, file: Path, n_items: int, length: int) -> np.ndarray:
    """The same table as .onnx, .pt or .pt2; returns the table."""
    import torch

    model = last_click_model(n_items)
    example = torch.zeros((64, length), dtype=torch.int64)
    if kind == ".onnx":
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        table = numpy_helper.from_array(model.table.detach().numpy(), "table")
        last = numpy_helper.from_array(np.array(-1, dtype=np.int64), "last")
        click = helper.make_node("Gather", ["items", "last"], ["click"], axis=1)
        nodes = [click, helper.make_node("Gather", ["table", "click"], ["scores"])]
        source = helper.make_tensor_value_info("items", TensorProto.INT64, ["B", length])
        target = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", n_items + 1])
        graph = helper.make_graph(nodes, "last_click", [source], [target], [table, last])
        whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(whole, str(file))
    elif kind == ".pt":
        model.requires_grad_(False)
        torch.jit.trace(model, example).save(str(file))
    else:
        torch.export.save(torch.export.export(model, (example,)), str(file))
    return np.asarray(model.table.detach().numpy())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", [".onnx", ".pt", ".pt2"])
def test_an_exported_model_is_a_policy(kind: str, tmp_path: Path) -> None:
    example = mixed()
    file = tmp_path / f"model{kind}"
    table = save_model(kind, file, example.catalogue.n_items, 20)
    policy = make("exported", {"file": str(file), "length": 20})
    results = list(
        check_policy(
            policy,
            only=[
                "shapes",
                "seen_items",
                "batch_invariance",
                "k_too_large",
                "save_load",
                "cold_users",
            ],
        )
    )
    assert all(r.kept for r in results), results
    fitted = policy.fit(example.sequences, example.catalogue, Fitting())
    requests = example.requests()
    every = np.tile(np.arange(example.catalogue.n_items + 1), (len(requests), 1))
    assert isinstance(fitted, Exported)
    np.testing.assert_array_equal(fitted.score(requests, every), table[requests.clicks(1)[:, 0]])


def test_a_model_file_that_is_none_is_named(tmp_path: Path) -> None:
    example = mixed()
    (tmp_path / "x.onnx").write_bytes(b"no model")
    for file, message in [
        ("x.bin", "file must end in .onnx"),
        (str(tmp_path / "y.onnx"), "no model file"),
        (str(tmp_path / "x.onnx"), "not a readable ONNX model"),
    ]:
        with pytest.raises(ExportedError, match=message):
            Exported(file=file).fit(example.sequences, example.catalogue, Fitting())
    save_model(".onnx", tmp_path / "z.onnx", 7, 50)
    with pytest.raises(ExportedError, match=r"scores must be \(64, 51\)"):
        Exported(file=str(tmp_path / "z.onnx")).fit(example.sequences, example.catalogue, Fitting())
    with pytest.raises(
        ExportedError, match="has no input 'item_ids'; its inputs are \\['items'\\]"
    ):
        Exported(file=str(tmp_path / "z.onnx"), input="item_ids").fit(
            example.sequences, example.catalogue, Fitting()
        )


# --- implicit
# ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("model", ["als", "cosine", "bm25"])
def test_an_implicit_model_is_a_policy(model: str) -> None:
    pytest.importorskip("implicit")
    arguments = {"factors": 16} if model == "als" else {"K": 39}
    assert broken_promises(make("implicit", {"model": model, "arguments": arguments})) == {}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_folding_in_agrees_with_the_package(tmp_path: Path) -> None:
    als = pytest.importorskip("implicit.cpu.als")
    from scipy.sparse import csr_matrix

    example = mixed()
    clicks: Sequences = example.sequences.clicks()
    owner = np.repeat(np.arange(len(clicks)), np.diff(clicks.offsets))
    matrix = csr_matrix(
        (np.ones(len(owner), dtype=np.float32), (owner, clicks.items - 1)), shape=(60, 50)
    )
    model = als.AlternatingLeastSquares(factors=8, random_state=1, num_threads=1, dtype=np.float64)
    model.fit(matrix, show_progress=False)
    model.save(str(tmp_path / "als.npz"))
    policy = Implicit(file=str(tmp_path / "als.npz")).fit(
        example.sequences, example.catalogue, Fitting()
    )
    users = model.recalculate_user(np.arange(60), matrix)
    every = np.tile(np.arange(1, 51), (60, 1))
    np.testing.assert_allclose(
        policy.score(example.requests(60), every),
        users @ model.item_factors.T,
        rtol=2e-4,
        atol=2e-5,
    )
    with pytest.raises(ImplicitError, match="the model has 50 items, the catalogue 40"):
        Implicit(file=str(tmp_path / "als.npz")).fit(
            chain().sequences, chain().catalogue, Fitting()
        )


# --- from an idea to a verdict
# -----------------------------------------------------------------------------------------


def test_a_new_package_installs_passes_its_tests_and_runs(tmp_path: Path) -> None:
    """In a fresh environment that sees abtest's dependencies: pip install -e ., pytest, abtest run
    scenario.yaml.
    """
    package = write_package("afternoon_idea", tmp_path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = tmp_path / "env/bin/python"
    site = Path(np.__file__).parents[1]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = tmp_path / "env/lib" / version / "site-packages"
    (own / "abtest-environment.pth").write_text(f"import site; site.addsitedir({str(site)!r})\n")
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))
    }

    def call(*command: object) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=package,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    call(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "-e",
        ".",
    )
    assert "afternoon_idea.policy" in str(own.glob("*")) or list(own.glob("*afternoon_idea*"))
    call(python, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "afternoon_idea" in call(python, "-m", "simulator", "policies", "list")
    out = call(
        python, "-m", "simulator", "run", "scenario.yaml", "--out", tmp_path / "out", "--quiet"
    )
    assert "report.html" in out
    assert json.loads((tmp_path / "out/report.json").read_text())["lifts"]


def test_every_registered_policy_names_a_class_that_exists() -> None:
    for name in available():
        assert issubclass(resolve(name), Policy)


class WordlessError(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            WordlessError(),
            r"recall raised WordlessError: its text cannot be made: RuntimeError at test_plugins",
        ),
        (
            ValueError("x" * 10**6),
            r"recall raised ValueError: x{2000} \.\.\. \(1,000,000 characters\) at test_plugins",
        ),
        (SystemExit("y" * 10**6), r"SystemExit: y{2000} \.\.\. \(1,000,000 characters\)"),
    ],
)
def test_what_a_plug_in_says_is_shown_as_far_as_it_can_be_read(error, message):
    with pytest.raises(CallError, match=message), calling("mine.py:Mine", "recall"):
        raise error


def test_how_numpy_treats_overflow_is_not_a_plug_ins_business():
    before = np.geterr()
    with calling("mine.py:Mine", "fit"):
        np.seterr(all="raise")
    assert np.geterr() == before
