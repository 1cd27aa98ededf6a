"""Finding the certificate of a cluster's CA by its pin."""

from __future__ import annotations

import hashlib
import socket
import ssl
from typing import Any

from .errors import Denied, Unready

# A name that every coordinator's certificate has, and no agent's or task's: to gRPC a server
# is known by CA and name.
COORDINATOR = "localhost"


def ca_certificate(address: str, pin: str, timeout: float, protocol: str = "h2") -> bytes:
    """The CA certificate that a server shows, as PEM, if it has the pin.

    What else the server says in this connection is not believed, and nothing is told to it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    host, _, port = address.rpartition(":")
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout) as connection,
            context.wrap_socket(connection) as secure,
        ):
            chain = _chain(secure)
    except OSError as error:
        raise Unready(f"{address}: {error}") from None
    for certificate in chain[1:]:
        if pin_of(certificate) == pin:
            return ssl.DER_cert_to_PEM_cert(certificate).encode()
    theirs = pin_of(chain[-1]) if len(chain) > 1 else "unknown: it does not show it"
    raise Denied(
        f"{address}: the server's certificate comes from another CA (pin {theirs}, this context expects {pin}): "
        "if the cluster was made anew, run clary login again; if not, something stands between"
    )


def _chain(secure: ssl.SSLSocket) -> list[bytes]:
    """The certificates that a server shows, as DER."""
    if hasattr(secure, "get_unverified_chain"):  # from Python 3.13
        return list(secure.get_unverified_chain())
    inner: Any = getattr(secure, "_sslobj", None)
    return [ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in inner.get_unverified_chain()]


def pin_of(certificate: bytes) -> str:
    """The pin of a certificate in DER: the SHA-256 of its public key's SubjectPublicKeyInfo."""
    tbs = _inside(_inside(certificate))
    if tbs[:1] == b"\xa0":  # the version, which may be left out
        tbs = tbs[_size(tbs) :]
    for _ in ("serial number", "signature", "issuer", "validity", "subject"):
        tbs = tbs[_size(tbs) :]
    return "sha256:" + hashlib.sha256(tbs[: _size(tbs)]).hexdigest()


def _header(der: bytes) -> tuple[int, int]:
    """Of a DER element: how many bytes stand before its content, and how many are its content."""
    if len(der) < 2:
        raise Denied("the server's certificate cannot be read")
    if der[1] < 0x80:
        return 2, der[1]
    count = der[1] & 0x7F
    return 2 + count, int.from_bytes(der[2 : 2 + count], "big")


def _inside(der: bytes) -> bytes:
    before, content = _header(der)
    return der[before : before + content]


def _size(der: bytes) -> int:
    return sum(_header(der))
