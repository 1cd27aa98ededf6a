"""The client: jobs, models, endpoints and studies of one cluster."""

from __future__ import annotations

import json
import math
import secrets
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import _api
from ._channel import Channel
from ._config import resolve
from .endpoints import Endpoint, endpoint_of
from .errors import Conflict, Invalid, JobFailed, TimedOut
from .jobs import Job, LogChunk, job_of
from .models import Model, ModelVersion, model_of, version_of
from .predictor import Predictor, Router
from .space import Parameter, limit_specs, objective_spec, space_spec
from .study import Study


class Client:
    """A client of one cluster. Its methods may be called from several threads.

    Without arguments it speaks to the cluster that `clary login` chose last, or to the one that CLARY_ADDRESS,
    CLARY_CA_PIN and CLARY_TOKEN name. The connection is encrypted, and the server is known by the pin of its CA.
    """

    def __init__(
        self,
        context: str | None = None,
        *,
        addresses: str | list[str] | None = None,
        ca_pin: str | None = None,
        token: str | None = None,
        patience: float = 15.0,
    ) -> None:
        """`patience` is how many seconds a request goes on trying while no coordinator can answer."""
        self._channel = Channel(resolve(context, addresses=addresses, ca_pin=ca_pin, token=token), patience)

    def close(self) -> None:
        """End all connections."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self.close()

    def _call(self, method: str, message: str, /, **fields: Any) -> Any:
        return self._channel.call(method, _api.message(message)(**fields))

    # Jobs.

    def submit(
        self,
        spec: Mapping[str, Any],
        *,
        kind: str = "training",
        name: str = "",
        queue: str = "",
        priority: int = 0,
        labels: Mapping[str, str] | None = None,
        max_runtime: float = 0.0,
        retries: int = 0,
        held: bool = False,
        register: str = "",
    ) -> Job:
        """Submit a job; `spec` is what stands under spec: in a job file (see `clary schema`).

        When this returns, the cluster will not forget the job. `max_runtime` is in seconds. `register` is the
        model in the registry that what it publishes becomes a version of.
        """
        job = _api.message("Job")(
            name=name,
            kind=kind,
            queue=queue,
            priority=priority,
            labels=dict(labels or {}),
            spec=_json(spec),
            request_id=secrets.token_hex(16),
            max_runtime=int(max_runtime * 1e9),
            held=held,
            register=register,
        )
        if retries:
            job.retry.limit = retries
        return job_of(self._call("Jobs.Submit", "SubmitRequest", job=job).job)

    def job(self, name: str) -> Job:
        """A job as it stands."""
        view = self._call("Jobs.Get", "GetJobRequest", name=name)
        return job_of(view.job, view)

    def jobs(
        self,
        *,
        states: Sequence[str] = (),
        owner: str = "",
        queue: str = "",
        kind: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> Iterator[Job]:
        """All jobs that match, by name."""
        after = ""
        while True:
            answer = self._call(
                "Jobs.List",
                "ListJobsRequest",
                states=list(states),
                owner=owner,
                queue=queue,
                kind=kind,
                labels=dict(labels or {}),
                after=after,
            )
            yield from (job_of(j) for j in answer.jobs)
            if not (after := answer.next):
                return

    def watch(self, name: str) -> Iterator[Job]:
        """A job as it stands, and again after every change, until it has ended."""
        for view in self._channel.stream(
            "Jobs.Watch", lambda: _api.message("WatchJobRequest")(name=name), lambda v: job_of(v.job).done, ends=False
        ):
            yield job_of(view.job, view)

    def wait(self, name: str, timeout: float | None = None, *, check: bool = True) -> Job:
        """Wait until a job has ended. JobFailed is raised if it did not succeed, unless check is False."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.1
        while deadline is not None:  # a stream that is silent could not be left in time
            job = self.job(name)
            if job.done:
                return self._checked(job, check)
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(f"job {name} has not ended after {timeout:g} s: it is {job.state}")
            time.sleep(min(pause, left))
            pause = min(1.5 * pause, 2.0)
        for job in self.watch(name):
            if job.done:
                return self._checked(job, check)
        raise AssertionError("a watch ends with the job")

    def _checked(self, job: Job, check: bool) -> Job:
        if check and job.state != "succeeded":
            raise JobFailed(f"job {job.name} {job.state}: {job.reason}", job)
        return job

    def cancel(self, name: str, reason: str = "") -> Job:
        """End a job: its tasks get SIGTERM, and SIGKILL after their grace."""
        return job_of(self._call("Jobs.Cancel", "CancelJobRequest", name=name, reason=reason))

    def release(self, name: str) -> Job:
        """Let a held job go."""
        return job_of(self._call("Jobs.Release", "ReleaseJobRequest", name=name))

    def delete(self, name: str) -> None:
        """Forget a job that has ended."""
        self._call("Jobs.Delete", "DeleteJobRequest", name=name)

    def logs(self, name: str, task: str = "", *, follow: bool = False, tail: int = 0, attempt: int = 0) -> Iterator[LogChunk]:
        """What a job's tasks wrote; task is "worker-1", a role, or a task's whole ID.

        Following goes on until the job has ended, also when the coordinator that shows them goes away.
        """
        after: dict[str, int] = {}  # by task, the time of its last entry: where a second stream begins
        noted: set[str] = set()

        def request() -> Any:
            return _api.message("LogsRequest")(job=name, task=task, follow=follow, tail=tail, attempt=attempt, after=after)

        for response in self._channel.stream("Jobs.Logs", request, lambda _: False, ends=True):
            for chunk in response.chunks:
                for entry in chunk.entries:
                    after[chunk.task] = entry.time
                    yield LogChunk(chunk.task, entry.stream, entry.text + (b"" if entry.partial else b"\n"), "")
                if chunk.note and chunk.note not in noted:
                    noted.add(chunk.note)
                    yield LogChunk(chunk.task, "", b"", chunk.note)

    # Models.

    def models(self) -> Iterator[Model]:
        """All models of the registry, by name."""
        after = ""
        while True:
            answer = self._call("Models.List", "ListModelsRequest", after=after)
            yield from (model_of(m) for m in answer.models)
            if not (after := answer.next):
                return

    def model_versions(self, model: str) -> Iterator[ModelVersion]:
        """A model's versions, the newest first."""
        before = 0
        while True:
            answer = self._call("Models.Versions", "ListModelVersionsRequest", model=model, before=before)
            yield from (version_of(v) for v in answer.versions)
            if not (before := answer.next):
                return

    def model_version(self, ref: str) -> ModelVersion:
        """The version that "name@version" or "name:alias" means now."""
        view = self._call("Models.Version", "GetModelVersionRequest", ref=ref)
        return version_of(view.version, view.aliases)

    def register_model(
        self,
        model: str,
        *,
        job: str = "",
        uri: str = "",
        text: str = "",
        sha256: str = "",
        framework: str = "",
        format: str = "",
        parent: str = "",
        parameters: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> ModelVersion:
        """Make a version of what a job has published, or of an object.

        The same output of the same job twice is one version. `sha256` is what an object must have.
        """
        request = _api.message("RegisterModelRequest")(
            model=model,
            job=job,
            uri=uri,
            text=text,
            sha256=sha256,
            framework=framework,
            format=format,
            parent=parent,
            parameters={name: str(value) for name, value in (parameters or {}).items()},
            metrics=dict(metrics or {}),
            request_id=secrets.token_hex(16),
        )
        last: Any = None
        for answer in self._channel.stream("Models.Register", lambda: request, lambda a: a.HasField("version"), ends=False):
            last = answer
        return version_of(last.version)

    def approve_model(self, ref: str, why: str = "") -> ModelVersion:
        """Write down that a version is approved, and why."""
        return version_of(self._call("Models.Approve", "ApproveModelRequest", ref=ref, state="approved", why=why))

    def reject_model(self, ref: str, why: str = "") -> ModelVersion:
        """Write down that a version is rejected, and why. One that has an alias cannot be."""
        return version_of(self._call("Models.Approve", "ApproveModelRequest", ref=ref, state="rejected", why=why))

    def alias_model(self, model: str, alias: str, number: int) -> Model:
        """Have a name mean a version of a model; with 0 it means none any more."""
        return model_of(self._call("Models.Alias", "AliasModelRequest", model=model, alias=alias, number=number))

    def evaluate_model(
        self, ref: str, name: str, metrics: Mapping[str, float], *, rows: int = 0, data: str = "", against: str = ""
    ) -> ModelVersion:
        """Keep figures beside a version, in place of those of that name."""
        evaluation = _api.message("Evaluation")(name=name, metrics=dict(metrics), rows=rows, data=data, against=against)
        return version_of(self._call("Models.Evaluate", "EvaluateModelRequest", ref=ref, evaluation=evaluation))

    def delete_model(self, ref: str) -> None:
        """Delete a version that nothing uses, or by its name alone a model without versions."""
        self._call("Models.Delete", "DeleteModelRequest", ref=ref)

    # Endpoints.

    def deploy(
        self,
        name: str,
        model: str = "",
        *,
        variants: Sequence[Mapping[str, Any]] = (),
        replicas: int = 1,
        queue: str = "",
        labels: Mapping[str, str] | None = None,
        timeout: float | None = 600.0,
        exists_ok: bool = False,
        more: Mapping[str, Any] | None = None,
    ) -> Predictor:
        """Make an endpoint, wait until all of its replicas answer, and return what asks it.

        `model` is model://NAME@VERSION or the s3:// address of one. `variants`, in its place, are as in a file for
        `clary deploy -f` (see `clary schema endpoint`), `more` its other fields. With a timeout of None nobody waits.
        """
        spec: dict[str, Any] = {
            "variants": [dict(v) for v in variants] or [{"name": "main", "model": model, "replicas": replicas}],
            **(more or {}),
        }
        try:
            self.submit(spec, kind="endpoint", name=name, queue=queue, labels=labels)
        except Conflict:
            if not exists_ok:
                raise
        if timeout is not None:
            self.wait_endpoint(name, timeout)
        return self.predictor(name)

    def endpoint(self, name: str) -> Endpoint:
        """An endpoint as it stands."""
        return endpoint_of(self._call("Endpoints.Get", "GetEndpointRequest", name=name))

    def endpoints(self, *, owner: str = "") -> Iterator[Endpoint]:
        """All endpoints that have not ended, by name; without their specs."""
        after = ""
        while True:
            answer = self._call("Endpoints.List", "ListEndpointsRequest", after=after, owner=owner)
            yield from (endpoint_of(view) for view in answer.endpoints)
            if not (after := answer.next):
                return

    def wait_endpoint(self, name: str, timeout: float = 600.0, *, generation: int = 0) -> Endpoint:
        """Wait until an endpoint runs with all its replicas healthy and no update in progress.

        With a generation, that of an update, another one at the end raises Conflict: the update was rolled back.
        """
        deadline, pause = time.monotonic() + timeout, 0.1
        while True:
            endpoint = self.endpoint(name)
            if endpoint.settled:
                if generation and endpoint.generation != generation:
                    why = endpoint.notes[-1] if endpoint.notes else ""
                    raise Conflict(f"endpoint {name} is at generation {endpoint.generation}, not {generation}: {why}")
                return endpoint
            if endpoint.done:
                raise Conflict(f"endpoint {name} has {endpoint.state}: {endpoint.reason}")
            left = deadline - time.monotonic()
            if left <= 0:
                reasons = [f"{r.variant} {r.number} is {r.state}: {r.reason}" for r in endpoint.replicas if r.reason]
                raise TimedOut(f"endpoint {name} is not ready after {timeout:g} s: {'; '.join(reasons) or endpoint.state}")
            time.sleep(min(pause, left))
            pause = min(1.5 * pause, 1.0)

    def update_endpoint(self, name: str, spec: Mapping[str, Any], *, expect: int = 0) -> Endpoint:
        """Begin to replace what runs by what another spec says, as its `update` says.

        `expect` is the newest generation that the caller has seen: whoever was faster is not overwritten.
        """
        return endpoint_of(self._call("Endpoints.Update", "UpdateEndpointRequest", name=name, spec=_json(spec), expect=expect))

    def set_weights(self, name: str, weights: Mapping[str, float]) -> Endpoint:
        """Set how variants share the requests; those that are not named keep theirs."""
        return endpoint_of(self._call("Endpoints.Weights", "SetWeightsRequest", name=name, weights=dict(weights)))

    def scale_endpoint(self, name: str, replicas: int | Mapping[str, int]) -> Endpoint:
        """Set how many replicas each variant has, or those that are named."""
        wanted = {"": replicas} if isinstance(replicas, int) else replicas
        scale = _api.message("VariantScale")
        variants = [scale(variant=variant, replicas=count) for variant, count in wanted.items()]
        return endpoint_of(self._call("Endpoints.Scale", "ScaleEndpointRequest", name=name, variants=variants))

    def rollback_endpoint(self, name: str, reason: str = "") -> Endpoint:
        """End an update in progress by going back, or go back to the spec before."""
        view = self._call("Endpoints.Get", "GetEndpointRequest", name=name)
        updating = view.endpoint.HasField("rollout")
        return endpoint_of(
            self._call(
                "Endpoints.Rollback",
                "RollbackEndpointRequest",
                name=name,
                expect=view.endpoint.last,
                updating=updating,
                reason=reason,
            )
        )

    def predictor(self, name: str, *, timeout: float = 60.0) -> Predictor:
        """What asks an endpoint for answers; `timeout` is how many seconds one may take."""

        def routers() -> list[Router]:
            answer = self._call("Endpoints.Routers", "ListRoutersRequest")
            return [Router(r.url, r.id, r.ingress) for r in answer.routers]

        context = self._channel.context
        return Predictor(name, routers, context.ca_pin, context.token, timeout)

    # Studies.

    def study(self, name: str, *, worker: str = "", lease: float = 600.0) -> Study:
        """A study that exists. `worker` is a name of one's own, made up if it is left out.

        `lease` is how many seconds without a word may pass before a trial is given to another worker.
        """
        study = Study(self._channel, name, lease=lease)
        if worker:
            study.worker = worker
        return study

    def create_study(
        self,
        name: str,
        space: Mapping[str, Parameter],
        objective: str | Sequence[str] = "min:loss",
        *,
        constraints: Sequence[str] = (),
        limits: Sequence[str] = (),
        sampler: str = "",
        stopper: str | Mapping[str, Any] | None = None,
        max_step: float = 0.0,
        trials: int = 0,
        seconds: float = 0.0,
        parallel: int = 0,
        seed: int = 0,
        initial: Sequence[Mapping[str, Any]] = (),
        warm_start: Sequence[str] = (),
        queue: str = "",
        labels: Mapping[str, str] | None = None,
        exists_ok: bool = False,
        lease: float = 600.0,
        more: Mapping[str, Any] | None = None,
    ) -> Study:
        """Make a study, whose trials its askers run.

        An objective is "min:METRIC" or "max:METRIC"; of several none is more important. `limits` are what a good trial
        keeps to, as "METRIC<=NUMBER" or "METRIC>=NUMBER". `max_step` is where a
        trial's reports end (its epochs): a stopper needs it. `more` are other fields of a tuning job's spec
        (see `clary schema tuning`). With exists_ok an existing study of that name is opened as it is.
        """
        objectives = [objective] if isinstance(objective, str) else list(objective)
        spec: dict[str, Any] = {
            "space": space_spec(space, constraints),
            "objectives": [objective_spec(o) for o in objectives],
            **_given(
                sampler=sampler, seed=seed, parallel=parallel, initial=[dict(i) for i in initial], warm_start=list(warm_start)
            ),
            **(more or {}),
        }
        if limits:
            spec["limits"] = limit_specs(limits)
        budget = _given(trials=trials, time=f"{seconds:g}s" if seconds else "")
        if budget:
            spec["budget"] = budget
        if stopper:
            spec["stopper"] = {"name": stopper} if isinstance(stopper, str) else dict(stopper)
        if max_step:
            spec["fidelity"] = {"max": max_step}
        try:
            self.submit(spec, kind="tuning", name=name, queue=queue, labels=labels)
        except Conflict:
            if not exists_ok:
                raise
        return self.study(name, lease=lease)


def _json(spec: Mapping[str, Any]) -> bytes:
    """A spec as JSON, which has no word for numbers that are not finite."""
    try:
        return json.dumps(spec, allow_nan=False).encode()
    except ValueError:
        raise Invalid("; ".join(_strange(spec, "spec"))) from None
    except TypeError as error:
        raise Invalid(f"spec: {error}: give numbers, texts, truths, lists and dictionaries") from None


def _strange(value: object, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _strange(part, f"{path}.{name}")
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from _strange(part, f"{path}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{path}: {value}: give a finite number"


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}
