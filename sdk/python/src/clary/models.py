"""Models: the registry's lines of versions."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .jobs import instant


@dataclass(frozen=True)
class Evaluation:
    """What was found about a version."""

    name: str
    metrics: Mapping[str, float]
    rows: int
    data: str
    against: str  # "name@version" that it was compared with
    report: str  # address of the page


@dataclass(frozen=True)
class ModelVersion:
    """A version of a model as it stood when it was read."""

    model: str
    number: int
    uri: str
    sha256: str
    size: int
    framework: str
    format: str
    owner: str
    created: datetime.datetime | None
    approval: str  # pending, approved or rejected
    why: str  # of the approval
    job: str  # that made it
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    evaluations: tuple[Evaluation, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        """What names it: "name@version"."""
        return f"{self.model}@{self.number}"

    @property
    def address(self) -> str:
        """What names it among a job's inputs: "model://name@version"."""
        return "model://" + self.ref


@dataclass(frozen=True)
class Model:
    """A line of versions."""

    name: str
    owner: str
    versions: int
    aliases: Mapping[str, int] = field(default_factory=dict)


def model_of(model: Any) -> Model:
    """The model that a message says."""
    return Model(name=model.name, owner=model.owner, versions=model.count, aliases=dict(model.aliases))


def version_of(version: Any, aliases: Any = ()) -> ModelVersion:
    """The version that a message says."""
    lineage = version.lineage
    return ModelVersion(
        model=version.model,
        number=version.number,
        uri=version.artifact.uri,
        sha256=version.artifact.sha256,
        size=version.artifact.size,
        framework=version.framework,
        format=version.format,
        owner=version.owner,
        created=instant(version.created),
        approval=version.approval.state,
        why=version.approval.why,
        job=lineage.job,
        parameters=dict(lineage.parameters),
        metrics=dict(lineage.metrics),
        evaluations=tuple(
            Evaluation(e.name, dict(e.metrics), e.rows, e.data, e.against, e.report) for e in version.evaluations
        ),
        aliases=tuple(aliases),
    )
