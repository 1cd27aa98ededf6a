"""What can go wrong, by what to do about it."""

from __future__ import annotations

import grpc


class ClaryError(Exception):
    """Any error of a cluster; its text says what is wrong and what to do."""


class Internal(ClaryError):
    """A defect or a broken machine: report it."""


class Invalid(ClaryError, ValueError):
    """The request itself is wrong: correct it."""


class NotFound(ClaryError, LookupError):
    """The named thing does not exist: look up its name."""


class Conflict(ClaryError):
    """The thing has changed or exists already: read it again, then decide."""


class Denied(ClaryError, PermissionError):
    """The caller may not do this: get another token or role."""


class Unready(ClaryError):
    """Not now: the same request may succeed later."""


class Exhausted(ClaryError):
    """A limit was reached: ask for less, or free something first."""


class TimedOut(ClaryError, TimeoutError):
    """What was waited for has not happened in time."""


class JobFailed(ClaryError):
    """A job that was waited for has not succeeded; `job` is how it ended."""

    def __init__(self, message: str, job: object) -> None:
        super().__init__(message)
        self.job = job


_KINDS: dict[grpc.StatusCode, type[ClaryError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: Invalid,
    grpc.StatusCode.OUT_OF_RANGE: Invalid,
    grpc.StatusCode.UNIMPLEMENTED: Invalid,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.PERMISSION_DENIED: Denied,
    grpc.StatusCode.UNAUTHENTICATED: Denied,
    grpc.StatusCode.UNAVAILABLE: Unready,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unready,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exhausted,
}


def from_rpc(error: grpc.RpcError, address: str) -> ClaryError:
    """The error that an RPC ended with, in this module's kinds."""
    details = error.details() or str(error)
    if (
        "CERTIFICATE_VERIFY_FAILED" in details
        or "is not in peer certificate" in details
        or "Hostname Verification Check failed" in details
    ):
        return Denied(f"{address}: the server's certificate is not one of a coordinator of this cluster: {details}")
    kind = _KINDS.get(error.code(), Internal)
    return kind(f"{address}: {details}" if kind is Unready else details)
