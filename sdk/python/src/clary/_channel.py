"""Calls to whichever coordinator answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from . import _api, _tls
from ._config import Context
from .errors import ClaryError, Unready, from_rpc

ATTEMPT_TIME = 10.0  # seconds of one coordinator, before the next one is asked
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
MAX_MESSAGE = 64 << 20


class Channel:
    """Connections to the coordinators of one cluster. It may be used from several threads.

    A coordinator can be reached and yet be unable to answer: it has no leader, or is cut off from the others. So the
    next one is asked when one says that it is not ready, and all once more after a pause, until the patience ends.
    Every request may be sent more than once: those that must not be done twice carry an id.
    """

    def __init__(self, context: Context, patience: float) -> None:
        self._context = context
        self._patience = patience
        self._lock = threading.Lock()
        self._connections: dict[str, grpc.Channel] = {}
        self._ca: bytes | None = None
        self._next = 0
        self._closed = False

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            self._closed = True
            for connection in self._connections.values():
                connection.close()
            self._connections.clear()

    @property
    def context(self) -> Context:
        """The cluster, and who asks."""
        return self._context

    def _connect(self, address: str) -> grpc.Channel:
        with self._lock:
            if self._closed:
                raise Unready("the client is closed")
            if connection := self._connections.get(address):
                return connection
        ca = self._ca or _tls.ca_certificate(address, self._context.ca_pin, ATTEMPT_TIME)
        with self._lock:
            self._ca = ca
            if address not in self._connections:
                self._connections[address] = grpc.secure_channel(
                    address,
                    grpc.ssl_channel_credentials(root_certificates=ca),
                    options=[
                        ("grpc.ssl_target_name_override", _tls.COORDINATOR),
                        ("grpc.max_receive_message_length", MAX_MESSAGE),
                        ("grpc.max_send_message_length", MAX_MESSAGE),
                        ("grpc.keepalive_time_ms", 20_000),
                        ("grpc.keepalive_timeout_ms", 5_000),
                        ("grpc.initial_reconnect_backoff_ms", 100),
                        ("grpc.max_reconnect_backoff_ms", 1_000),
                        ("grpc.enable_http_proxy", 0),
                    ],
                )
            return self._connections[address]

    def _metadata(self) -> list[tuple[str, str]]:
        return [("authorization", "Bearer " + self._context.token)] if self._context.token else []

    def call(self, name: str, request: Any) -> Any:
        """Call a method such as "Jobs.Get" and return its answer."""
        path, request_class, answer_class, _ = _api.method(name)

        def ask(connection: grpc.Channel) -> Any:
            stub = connection.unary_unary(path, request_class.SerializeToString, answer_class.FromString)
            return stub(request, timeout=ATTEMPT_TIME, metadata=self._metadata())

        deadline, pause, attempt = time.monotonic() + self._patience, FIRST_PAUSE, 0
        while True:
            attempt += 1
            answer, error = self._one(ask)
            if error is None:
                return answer
            if not isinstance(error, Unready):
                raise error
            if attempt % len(self._context.addresses):
                continue  # the others have not been asked yet
            if time.monotonic() > deadline:
                raise self._gave_up(error)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _one(self, ask: Callable[[grpc.Channel], Any]) -> tuple[Any, ClaryError | None]:
        """Ask the coordinator whose turn it is; the next one's turn comes if it is not ready."""
        turn = self._next
        address = self._context.addresses[turn % len(self._context.addresses)]
        try:
            return ask(self._connect(address)), None
        except grpc.RpcError as failed:
            error = from_rpc(failed, address)
        except Unready as failed:
            error = failed
        if isinstance(error, Unready):
            with self._lock:
                if self._next == turn:
                    self._next += 1
        return None, error

    def _gave_up(self, last: ClaryError) -> ClaryError:
        return Unready(
            f"no coordinator answered for {self._patience:g} s (asked {', '.join(self._context.addresses)}): {last}: "
            "check that they run and that a majority of them can reach each other"
        )

    def stream(self, name: str, request: Callable[[], Any], done: Callable[[Any], bool], ends: bool) -> Iterator[Any]:
        """Call a method that answers more than once.

        It goes on at another coordinator, with a new request, when one goes away, until an answer is the last one. If
        the method ends by itself, that is its end too.
        """
        path, request_class, answer_class, _ = _api.method(name)
        silent_since, failures = time.monotonic(), 0
        while True:
            heard = False
            turn = self._next
            address = self._context.addresses[turn % len(self._context.addresses)]
            error: ClaryError = Unready(f"{address}: the coordinator ended the watch")
            call: Any = None
            try:
                stub = self._connect(address).unary_stream(path, request_class.SerializeToString, answer_class.FromString)
                call = stub(request(), metadata=self._metadata())
                for answer in call:
                    heard = True
                    yield answer
                    if done(answer):
                        return
                if ends:
                    return
            except grpc.RpcError as failed:
                error = from_rpc(failed, address)
            except Unready as failed:
                error = failed
            finally:
                if call is not None:
                    call.cancel()
            if not isinstance(error, Unready):
                raise error
            if heard:
                silent_since, failures = time.monotonic(), 0
            with self._lock:
                if self._next == turn:
                    self._next += 1
            if time.monotonic() - silent_since > self._patience:
                raise self._gave_up(error)
            time.sleep(min(FIRST_PAUSE * 2 ** min(failures, 8), LONGEST_PAUSE))
            failures += 1
