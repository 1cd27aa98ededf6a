"""Endpoints: names that answer while what is behind them changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .jobs import ENDED, instant_text


@dataclass(frozen=True)
class Replica:
    """One server of a variant."""

    variant: str
    generation: int
    number: int
    state: str  # waiting, starting, healthy, unhealthy, draining or failed
    reason: str
    node: str
    in_flight: int
    ejected: bool  # a router leaves it out for a while


@dataclass(frozen=True)
class Variant:
    """A variant as one generation of its endpoint has it, with what routers saw of it lately."""

    name: str
    generation: int
    weight: float
    traffic: float  # its share of the endpoint's requests, from 0 to 1
    replicas: int  # wanted
    healthy: int
    requests: float  # a second
    errors: float  # a second
    p50: float  # seconds
    p99: float  # seconds
    in_flight: int
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class Endpoint:
    """An endpoint as it stood when it was read."""

    name: str
    state: str  # of its job: queued, running, cancelled, …
    reason: str
    owner: str
    generation: int
    updating: str  # the phase of an update in progress, or ""
    variants: tuple[Variant, ...]
    replicas: tuple[Replica, ...]
    urls: tuple[str, ...]  # where requests go
    notes: tuple[str, ...]  # what happened and why, the newest last
    spec: Mapping[str, Any]

    @property
    def done(self) -> bool:
        """Whether it will never answer again."""
        return self.state in ENDED

    @property
    def settled(self) -> bool:
        """Whether it runs, no update is in progress, and every replica that is wanted is healthy."""
        return (
            self.state == "running"
            and not self.updating
            and all(v.healthy >= v.replicas for v in self.variants)
        )


def endpoint_of(view: Any) -> Endpoint:
    """The endpoint that a message says."""
    it = view.endpoint
    figures = {(f.variant, f.generation): f for f in view.figures}
    sums: dict[int, float] = {}
    for fleet in it.fleets:
        sums[fleet.generation] = sums.get(fleet.generation, 0.0) + fleet.weight
    replicas = tuple(
        Replica(r.variant, r.generation, r.number, r.state, r.reason, r.node, r.in_flight, r.ejected) for r in view.replicas
    )
    variants = []
    for fleet in it.fleets:
        if fleet.retired:
            continue
        seen = figures.get((fleet.variant, fleet.generation))
        mine = [r for r in replicas if (r.variant, r.generation) == (fleet.variant, fleet.generation)]
        whole = sums[fleet.generation]
        variants.append(
            Variant(
                name=fleet.variant,
                generation=fleet.generation,
                weight=fleet.weight,
                traffic=fleet.weight / whole * fleet.share if whole else 0.0,
                replicas=fleet.replicas,
                healthy=sum(r.state == "healthy" for r in mine),
                requests=seen.requests if seen else 0.0,
                errors=seen.errors if seen else 0.0,
                p50=seen.p50 / 1e9 if seen else 0.0,
                p99=seen.p99 / 1e9 if seen else 0.0,
                in_flight=seen.in_flight if seen else 0,
                spec=_read(fleet.spec),
            )
        )
    return Endpoint(
        name=view.job.name,
        state=view.job.state,
        reason=view.job.reason,
        owner=view.job.owner,
        generation=it.generation,
        updating=it.rollout.phase if it.HasField("rollout") else "",
        variants=tuple(variants),
        replicas=replicas,
        urls=tuple(f"{r.url}/endpoints/{view.job.name}/invocations" for r in view.routers),
        notes=tuple(f"{instant_text(n.at)} {n.what}: {n.text}" for n in it.notes),
        spec=_read(it.spec),
    )


def _read(spec: bytes) -> Mapping[str, Any]:
    try:
        read = json.loads(spec) if spec else {}
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
