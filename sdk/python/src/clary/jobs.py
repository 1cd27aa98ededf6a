"""Jobs: what was submitted, and how it stands."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ENDED = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True)
class Output:
    """What a job has made and published."""

    name: str
    uri: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Task:
    """One process or container of a job."""

    id: str
    role: str
    index: int
    attempt: int
    state: str
    reason: str
    node: str
    exit_code: int
    epoch: int
    step: int
    total: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A job as it stood when it was read."""

    name: str
    kind: str
    state: str
    reason: str
    owner: str
    queue: str
    priority: int
    labels: Mapping[str, str]
    attempt: int
    submitted: datetime.datetime | None
    started: datetime.datetime | None
    ended: datetime.datetime | None
    spec: Mapping[str, Any]
    tasks: tuple[Task, ...] = ()
    outputs: tuple[Output, ...] = ()
    preempted: int = 0  # how often it was stopped to make room for others

    @property
    def done(self) -> bool:
        """Whether it will never change again."""
        return self.state in ENDED

    @property
    def metrics(self) -> Mapping[str, float]:
        """What the task that stands for the job has said last: the first worker of the newest attempt, or whoever spoke."""
        best: Task | None = None
        rank = (False, False, False)
        for task in self.tasks:
            if task.attempt == self.attempt:
                its = (bool(task.metrics), task.role == "worker", task.index == 0)
                if best is None or its > rank:
                    best, rank = task, its
        return best.metrics if best else {}


@dataclass(frozen=True)
class LogChunk:
    """A piece of one task's output, or a note about why there is none."""

    task: str
    stream: str  # stdout or stderr
    data: bytes
    note: str

    @property
    def text(self) -> str:
        """The piece as text; bytes that are none are replaced."""
        return self.data.decode(errors="replace")


def instant(nanoseconds: int) -> datetime.datetime | None:
    """An instant of the API, None for never."""
    if not nanoseconds:
        return None
    return datetime.datetime.fromtimestamp(nanoseconds / 1e9, datetime.timezone.utc)


def instant_text(nanoseconds: int) -> str:
    """An instant of the API in RFC 3339, to the second."""
    found = instant(nanoseconds)
    return found.strftime("%Y-%m-%dT%H:%M:%SZ") if found else ""


def job_of(job: Any, view: Any = None) -> Job:
    """The job that a message says, with what its view adds."""
    try:
        spec = json.loads(job.spec) if job.spec else {}
    except ValueError:
        spec = {}
    tasks = tuple(_task_of(t) for t in view.tasks) if view is not None else ()
    outputs = tuple(Output(o.name, o.uri, o.size, o.sha256) for o in view.publication.outputs) if view is not None else ()
    return Job(
        name=job.name,
        kind=job.kind,
        state=job.state,
        reason=job.reason,
        owner=job.owner,
        queue=job.queue,
        priority=job.priority,
        labels=dict(job.labels),
        attempt=job.attempt,
        submitted=instant(job.submitted),
        started=instant(job.started),
        ended=instant(job.ended),
        spec=spec,
        tasks=tasks,
        outputs=outputs,
        preempted=job.preempted,
    )


def _task_of(task: Any) -> Task:
    status = task.status
    return Task(
        id=task.id,
        role=task.role,
        index=task.index,
        attempt=task.attempt,
        state=status.state,
        reason=status.reason,
        node=task.allocation.node,
        exit_code=status.exit_code,
        epoch=status.progress.epoch,
        step=status.progress.step,
        total=status.progress.total,
        metrics=dict(status.progress.metrics),
    )
