"""Asking an endpoint for answers, over HTTP at whichever router can be reached."""

from __future__ import annotations

import csv
import http.client
import io
import ipaddress
import json
import select
import ssl
import threading
import types
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import _tls
from .errors import ClaryError, Conflict, Denied, Exhausted, Internal, Invalid, NotFound, Unready

CONNECT_TIME = 3.0  # seconds, of one router, before the next one is asked


@dataclass(frozen=True)
class Router:
    """A place to ask at."""

    url: str
    id: str = ""  # the node that it runs on, and whose certificate it shows
    ingress: bool = False  # on an agent


@dataclass(frozen=True)
class Prediction:
    """What an endpoint answered."""

    value: Any  # JSON as Python has it, CSV as a list of rows of texts, other text as str, else bytes
    body: bytes
    content_type: str
    variant: str  # that answered
    inference_id: str  # by which `Predictor.reward` says how good it was
    request_id: str
    headers: Mapping[str, str]


class Predictor:
    """Asks one endpoint. It may be used from several threads, each has connections of its own.

    A request that no router took is brought to the next one. One that a router may have begun to work on is not sent
    again: only its sender knows whether twice does harm.
    """

    def __init__(self, endpoint: str, routers: Callable[[], Sequence[Router]], ca_pin: str, token: str, timeout: float) -> None:
        """`routers` tells where to ask, and is asked again when none can be reached."""
        self.endpoint = endpoint
        self.timeout = timeout
        self._find, self._ca_pin, self._token = routers, ca_pin, token
        self._routers: list[Router] = []
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    def close(self) -> None:
        """End this thread's connections."""
        for connection in self._connections().values():
            connection.close()
        self._connections().clear()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self.close()

    def predict(
        self,
        data: Any,
        *,
        content_type: str = "",
        accept: str = "",
        variant: str = "",
        model: str = "",
        session: str = "",
        inference_id: str = "",
        attributes: str = "",
        timeout: float | None = None,
    ) -> Prediction:
        """Ask for an answer.

        A list of rows goes as JSON, `{"instances": rows}`, a dictionary as it is; a text is CSV and bytes are what
        content_type says. `variant` asks one of them whatever the weights.
        """
        body, kind = encode(data, content_type)
        headers = _headers(kind, accept, variant, model, session, inference_id, attributes)
        response = self._post("invocations", body, headers, timeout)
        try:
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._cut(error) from None
        kind = response.headers.get("Content-Type", "")
        return Prediction(
            value=decode(answer, kind),
            body=answer,
            content_type=kind,
            variant=response.headers.get("x-Amzn-Invoked-Production-Variant", ""),
            inference_id=response.headers.get("X-Clary-Inference-Id", ""),
            request_id=response.headers.get("X-Request-Id", ""),
            headers=dict(response.headers.items()),
        )

    def stream(
        self,
        data: Any,
        *,
        content_type: str = "",
        accept: str = "",
        variant: str = "",
        model: str = "",
        session: str = "",
        inference_id: str = "",
        attributes: str = "",
        timeout: float | None = None,
    ) -> Iterator[bytes]:
        """Ask for an answer in pieces, each as soon as the model has made it."""
        body, kind = encode(data, content_type)
        headers = _headers(kind, accept, variant, model, session, inference_id, attributes)
        response = self._post("invocations-response-stream", body, headers, timeout)
        try:
            while piece := response.read1(1 << 16):
                yield piece
        except (OSError, http.client.HTTPException) as error:
            raise self._cut(error) from None
        finally:
            if not response.isclosed():
                self.close()  # the rest will not be read

    def reward(self, inference_id: str, reward: float) -> None:
        """Say how good an answer was."""
        body = json.dumps({"inference_id": inference_id, "reward": reward}, allow_nan=False).encode()
        self._post("rewards", body, {"Content-Type": "application/json"}, None).read()

    def _connections(self) -> dict[str, http.client.HTTPConnection]:
        if not hasattr(self._local, "connections"):
            self._local.connections = {}
        held: dict[str, http.client.HTTPConnection] = self._local.connections
        return held

    def _post(self, what: str, body: bytes, headers: dict[str, str], timeout: float | None) -> http.client.HTTPResponse:
        path = f"/endpoints/{urllib.parse.quote(self.endpoint)}/{what}"
        if self._token:
            headers["Authorization"] = "Bearer " + self._token
        wait = self.timeout if timeout is None else timeout
        errors: list[str] = []
        known = list(self._routers)
        for round_ in range(2):
            if round_ == 1 or not known:
                known = self._refresh()
            for router in known:
                try:
                    response = self._send(router, path, body, headers, wait)
                except _Untaken as error:
                    errors.append(f"{router.url}: {error}")
                    continue
                return _judge(response)
            if round_ == 0 and errors:
                continue
        raise Unready(f"no router can be reached: {'; '.join(dict.fromkeys(errors)) or 'none is known'}")

    def _refresh(self) -> list[Router]:
        found = list(self._find())
        with self._lock:
            self._routers = found
        return found

    def _send(
        self, router: Router, path: str, body: bytes, headers: dict[str, str], timeout: float
    ) -> http.client.HTTPResponse:
        held = self._connections()
        connection = held.pop(router.url, None)
        if connection is not None and _ended(connection):
            connection.close()
            connection = None
        if connection is None:
            connection = self._connect(router)
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._cut(error) from None
        held[router.url] = connection
        return response

    def _connect(self, router: Router) -> http.client.HTTPConnection:
        parts = urllib.parse.urlsplit(router.url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        if parts.scheme == "http":
            if host != "localhost" and not (_is_ip(host) and ipaddress.ip_address(host).is_loopback):
                raise Invalid(f"router {router.url} is on another machine and not encrypted: a token would be seen")
            plain = http.client.HTTPConnection(host, port, timeout=CONNECT_TIME)
            return _opened(plain)
        try:
            context = self._context(host, port)
        except (Unready, Denied) as error:
            raise _Untaken(str(error)) from None
        secure = _opened(http.client.HTTPSConnection(host, port, timeout=CONNECT_TIME, context=context))
        names = dict(secure.sock.getpeercert() or {}).get("subjectAltName", ())
        role = "agent" if router.ingress else "coordinator"
        shown = [name for kind, name in names if kind == "URI"]
        if not any(s == f"clary://node/{role}/{router.id}" or not router.id and s.startswith("clary://node/coordinator/") for s in shown):
            secure.close()
            raise _Untaken(f"it shows the certificate of {', '.join(shown) or 'nobody'}; {role} {router.id} is expected")
        return secure

    def _context(self, host: str, port: int) -> ssl.SSLContext:
        with self._lock:
            if found := self._contexts.get("ca"):
                return found
        ca = _tls.ca_certificate(f"{host}:{port}", self._ca_pin, CONNECT_TIME, "http/1.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # who it is stands in the certificate's URI
        context.load_verify_locations(cadata=ca.decode())
        with self._lock:
            return self._contexts.setdefault("ca", context)

    def _cut(self, error: BaseException) -> Unready:
        return Unready(
            f"endpoint {self.endpoint}: the connection ended before an answer: {error or type(error).__name__}: "
            "it may have been worked on; send it again if that does no harm"
        )


class _Untaken(Exception):
    """A request certainly reached nobody."""


def _opened(connection: http.client.HTTPConnection) -> http.client.HTTPConnection:
    try:
        connection.connect()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise _Untaken(str(error)) from None
    return connection


def _ended(connection: http.client.HTTPConnection) -> bool:
    """Whether the router closed a connection while nobody used it: nothing is to come on one that is good."""
    if connection.sock is None:
        return True
    readable, _, _ = select.select([connection.sock], [], [], 0)
    return bool(readable)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _headers(
    content_type: str, accept: str, variant: str, model: str, session: str, inference_id: str, attributes: str
) -> dict[str, str]:
    given = {
        "Content-Type": content_type,
        "Accept": accept,
        "X-Amzn-SageMaker-Target-Variant": variant,
        "X-Amzn-SageMaker-Target-Model": model,
        "X-Amzn-SageMaker-Session-Id": session,
        "X-Amzn-SageMaker-Inference-Id": inference_id,
        "X-Amzn-SageMaker-Custom-Attributes": attributes,
    }
    return {name: value for name, value in given.items() if value}


def encode(data: Any, content_type: str = "") -> tuple[bytes, str]:
    """A request's body, and what it is."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        if not content_type:
            raise Invalid("content_type: is missing: say what the bytes are, e.g. text/csv or application/x-npy")
        return bytes(data), content_type
    if isinstance(data, str):
        return data.encode(), content_type or "text/csv"
    if hasattr(data, "tolist"):  # an array
        data = data.tolist()
    if isinstance(data, Sequence) and content_type.split(";")[0].strip() == "text/csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(row if isinstance(row, (list, tuple)) else [row] for row in data)
        return out.getvalue().encode(), content_type
    if not isinstance(data, Mapping):
        data = {"instances": list(data)}
    try:
        return json.dumps(data, allow_nan=False).encode(), content_type or "application/json"
    except (TypeError, ValueError) as error:
        raise Invalid(f"data: {error}: give rows of finite numbers and texts, or bytes with their content_type") from None


def decode(body: bytes, content_type: str) -> Any:
    """A body as Python has it."""
    kind = content_type.split(";")[0].strip().lower()
    try:
        if kind == "application/json":
            return json.loads(body)
        if kind in ("application/jsonlines", "application/x-jsonlines"):
            return [json.loads(line) for line in body.splitlines() if line.strip()]
        if kind == "text/csv":
            return list(csv.reader(io.StringIO(body.decode())))
        if kind.startswith("text/"):
            return body.decode()
    except ValueError:
        pass  # it is not what it says
    return body


_KINDS: dict[int, type[ClaryError]] = {
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Conflict,
    429: Exhausted,
    502: Unready,
    503: Unready,
    504: Unready,
}


def _judge(response: http.client.HTTPResponse) -> http.client.HTTPResponse:
    if 200 <= response.status < 300:
        return response
    said = response.read(16 << 10)
    response.read()
    text = said.decode(errors="replace").strip()
    try:
        parsed = json.loads(said)
        if isinstance(parsed, dict):
            text = str(parsed.get("error") or parsed.get("message") or text)
    except ValueError:
        pass
    variant = response.headers.get("x-Amzn-Invoked-Production-Variant", "")
    request = response.headers.get("X-Request-Id", "")
    kind = _KINDS.get(response.status, Internal if response.status >= 500 else Invalid)
    raise kind(
        (f"variant {variant}: " if variant else "")
        + f"{response.status} {response.reason}: {text}"
        + (f" (request {request})" if request else "")
    )
