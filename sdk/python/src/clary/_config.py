"""Where a cluster is and who asks: the file that `clary login` writes, or the environment."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import Denied, Invalid, NotFound

DEFAULT_PORT = "7420"


@dataclass(frozen=True)
class Context:
    """One cluster as one user sees it."""

    addresses: tuple[str, ...]
    ca_pin: str
    token: str


def config_path(environ: Mapping[str, str]) -> Path | None:
    """Where the contexts are: $CLARY_CONFIG, else clary/config.json below the user's configuration folder."""
    if path := environ.get("CLARY_CONFIG"):
        return Path(path)
    if folder := environ.get("XDG_CONFIG_HOME"):
        return Path(folder) / "clary" / "config.json"
    if home := environ.get("HOME"):
        return Path(home) / ".config" / "clary" / "config.json"
    return None


def _load(path: Path | None) -> dict[str, object]:
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise Denied(f"{path} holds tokens and others may read it (mode {mode:04o}): run chmod 600 {path}")
            loaded = json.load(file)
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        raise Invalid(f"{path}: {error}: correct it, or remove it and run clary login") from None
    if not isinstance(loaded, dict):
        raise Invalid(f"{path} is no configuration: remove it and run clary login")
    return loaded


def resolve(
    name: str | None = None,
    *,
    addresses: str | list[str] | None = None,
    ca_pin: str | None = None,
    token: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Context:
    """The context to use: arguments before the environment, the environment before the file."""
    file = _load(config_path(environ))
    contexts = file.get("contexts")
    known: dict[str, dict[str, object]] = contexts if isinstance(contexts, dict) else {}
    wanted = name or environ.get("CLARY_CONTEXT") or ""
    if wanted and wanted not in known:
        there = f"there are {', '.join(sorted(known))}" if known else "nor any other: run clary login"
        raise NotFound(f"there is no context {wanted!r}: {there}")
    current = known.get(wanted or str(file.get("current", "")), {})

    found = addresses or environ.get("CLARY_ADDRESS") or current.get("addresses")
    if isinstance(found, str):
        found = found.split(",")
    listed = tuple(_with_port(str(a).strip()) for a in found if str(a).strip()) if isinstance(found, (list, tuple)) else ()
    if not listed:
        raise Invalid("no cluster is known: run clary login ADDRESS, or set CLARY_ADDRESS, CLARY_CA_PIN and CLARY_TOKEN")
    pin = ca_pin or environ.get("CLARY_CA_PIN") or str(current.get("ca_pin", ""))
    if not pin.startswith("sha256:") or len(pin) != 71:
        raise Invalid(f"ca_pin: {pin!r} is not sha256: and 64 hexadecimal digits: clary token create prints the pin")
    return Context(listed, pin, token or environ.get("CLARY_TOKEN") or str(current.get("token", "")))


def _with_port(address: str) -> str:
    if address.endswith("]"):
        return f"{address}:{DEFAULT_PORT}"
    if address.count(":") > 1 and not address.startswith("["):
        return f"[{address}]:{DEFAULT_PORT}"
    return address if ":" in address else f"{address}:{DEFAULT_PORT}"
