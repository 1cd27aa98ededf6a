"""Studies: searches that the cluster holds, and whose trials anybody may run."""

from __future__ import annotations

import datetime
import json
import math
import os
import secrets
import socket
import threading
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import _api
from ._channel import Channel
from .errors import ClaryError, TimedOut
from .jobs import instant
from .space import Value

_LIVE = frozenset({"waiting", "running", "paused"})
_LEASE = 600.0  # seconds
_PATIENT = 30.0  # seconds, at most, between two questions whether there is a trial now


@dataclass(frozen=True)
class Verdict:
    """The answer to a report. It is true if the trial is worth going on with."""

    go_on: bool
    reason: str  # why not
    paused: bool  # it may be given out again later: keep a checkpoint
    lease: datetime.datetime | None  # until when the worker has the trial

    def __bool__(self) -> bool:
        return self.go_on


@dataclass(frozen=True)
class Told:
    """The answer to how a trial ended."""

    best: bool  # it is the best so far
    done: bool  # the study will give no more trials


@dataclass(frozen=True)
class Point:
    """A value of the first objective on the way."""

    step: float
    value: float


@dataclass(frozen=True)
class TrialView:
    """A trial as it stood when it was read."""

    number: int
    parameters: Mapping[str, Value]
    state: str
    reason: str
    values: tuple[float, ...]  # of the objectives; of complete trials, and what a live one last said
    limits: tuple[float, ...]
    curve: tuple[Point, ...]
    started: datetime.datetime | None
    ended: datetime.datetime | None
    cost: float
    job: str
    worker: str
    model: str
    by: str  # who added it by hand

    @property
    def done(self) -> bool:
        """Whether it will never change again."""
        return self.state not in _LIVE


@dataclass(frozen=True)
class SweepView:
    """A sweep as it stood when it was read."""

    name: str
    state: str
    reason: str
    paused: bool
    closed: str  # why there will be no new trial
    parallel: int
    counts: Mapping[str, int]  # trials by state
    budget_trials: int  # 0 is no bound
    best: tuple[TrialView, ...]  # the best trial; with several objectives of the Pareto front
    live: tuple[TrialView, ...]
    changed: tuple[TrialView, ...]  # while watching: those that have ended since the last view
    time_left: float | None  # seconds, an estimate
    sampler: str
    stopper: str

    @property
    def done(self) -> bool:
        """Whether it will never change again."""
        return self.state in ("succeeded", "failed", "cancelled")


class Trial:
    """A trial that this worker runs.

    In a `with` block its lease is renewed, however long it takes, and an exception tells that it has failed.
    """

    def __init__(self, study: Study, view: TrialView, lease: float) -> None:
        self._study = study
        self._lease = lease
        self._ended = False
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None
        self.view = view
        """The trial as it was given out."""

    @property
    def number(self) -> int:
        """Its number, from 0."""
        return self.view.number

    @property
    def parameters(self) -> Mapping[str, Value]:
        """The parameters to try: those that are active. Whole numbers are ints."""
        return self.view.parameters

    def __getitem__(self, name: str) -> Value:
        return self.view.parameters[name]

    def __repr__(self) -> str:
        return f"Trial({self.number}, {dict(self.parameters)!r})"

    def report(self, step: float, value: float) -> Verdict:
        """Tell a value of the first objective after a step (an epoch, mostly), and hear whether to go on.

        When the verdict is no, leave the trial: it has been ended, or is given out again later if it pauses.
        """
        verdict = self._study.report(self.number, step, value)
        self._ended = self._ended or not verdict.go_on
        return verdict

    def keep(self) -> Verdict:
        """Renew the lease without a value."""
        return self._study._report(_message("ReportRequest", trial=self.number))

    def tell(
        self,
        value: float | Mapping[str, float] | None = None,
        *,
        state: str = "complete",
        reason: str = "",
        cost: float = 0.0,
        model: str = "",
    ) -> Told:
        """End the trial: with the value of the only objective, or all objectives and limits by name.

        One that has no value is "failed", "infeasible" if its parameters cannot be run, or "cancelled". A value that is
        not finite is a failure.
        """
        told = self._study.tell(self.number, value, state=state, reason=reason, cost=cost, model=model)
        self._ended = True
        return told

    def __enter__(self) -> Trial:
        self._stop.clear()
        self._keeper = threading.Thread(target=self._keep, name=f"clary-trial-{self.number}", daemon=True)
        self._keeper.start()
        return self

    def _keep(self) -> None:
        while not self._stop.wait(self._lease / 3):
            try:
                if not self.keep():
                    return
            except ClaryError:
                continue  # the next time may do; the trial's own words will say what is wrong

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self._stop.set()
        if self._keeper is not None:
            self._keeper.join()
            self._keeper = None
        if error is None or self._ended:
            return
        ours = isinstance(error, Exception)
        try:
            self.tell(state="failed" if ours else "cancelled", reason=f"{type(error).__name__}: {error}"[:1000])
        except ClaryError:
            pass  # what went wrong first is what the caller sees; the lease ends by itself


@dataclass
class Study:
    """A search that the cluster holds: ask it for trials, tell what came of them, from anywhere at once.

    Iterating over it gives trials to run until it is done.
    """

    _channel: Channel
    name: str
    worker: str = field(default_factory=lambda: f"{socket.gethostname()[:64]}-{os.getpid()}-{secrets.token_hex(4)}")
    """Who asks. It must be this worker's own: only it may report and tell of its trials."""
    lease: float = _LEASE
    """How many seconds without a word from this worker may pass before its trial is given to another."""

    def ask(self, timeout: float | None = None) -> Trial | None:
        """The next trial to run, or None if the study is done.

        While there is none, because as many run as may or the study pauses, it waits; TimedOut says that it has
        waited for so many seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            trials, reason, done, retry_after = self._ask(1)
            if trials:
                return trials[0]
            if done:
                return None
            wait = min(max(retry_after, 0.05), _PATIENT)
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimedOut(f"study {self.name} has given no trial for {timeout:g} s: {reason}")
                wait = min(wait, left)
            time.sleep(wait)

    def ask_many(self, count: int) -> list[Trial]:
        """Up to so many trials to run, as many as there are now."""
        return self._ask(count)[0]

    def _ask(self, count: int) -> tuple[list[Trial], str, bool, float]:
        request = _message(
            "AskRequest",
            sweep=self.name,
            count=count,
            worker=self.worker,
            request_id=secrets.token_hex(16),
            lease=int(self.lease * 1e9),
        )
        answer = self._channel.call("Sweeps.Ask", request)
        trials = [Trial(self, trial_of(t), self.lease) for t in answer.trials]
        return trials, answer.reason, answer.done, answer.retry_after / 1e9

    def __iter__(self) -> Iterator[Trial]:
        while (trial := self.ask()) is not None:
            yield trial

    def report(self, trial: int, step: float, value: float) -> Verdict:
        """Tell a value of the first objective of a trial on its way; see Trial.report."""
        return self._report(_message("ReportRequest", trial=trial, step=step, value=value))

    def _report(self, request: Any) -> Verdict:
        request.sweep, request.worker = self.name, self.worker
        answer = self._channel.call("Sweeps.Report", request)
        return Verdict(answer.go_on, answer.reason, answer.paused, instant(answer.lease))

    def tell(
        self,
        trial: int,
        value: float | Mapping[str, float] | None = None,
        *,
        state: str = "complete",
        reason: str = "",
        cost: float = 0.0,
        model: str = "",
    ) -> Told:
        """End a trial; see Trial.tell."""
        metrics: dict[str, float] = {}
        if isinstance(value, Mapping):
            metrics = {name: float(v) for name, v in value.items()}
        elif value is not None:
            metrics = {self._objective(): float(value)}
        for name, v in metrics.items():
            if state == "complete" and not math.isfinite(v):
                state, reason, metrics = "failed", reason or f"{name} is {v}", {}
                break
        request = _message(
            "TellRequest",
            sweep=self.name,
            trial=trial,
            worker=self.worker,
            state=state,
            metrics=metrics,
            reason=reason,
            cost=cost,
            model=model,
        )
        answer = self._channel.call("Sweeps.Tell", request)
        return Told(answer.best, answer.done)

    def _objective(self) -> str:
        """The name of the only objective."""
        if not hasattr(self, "_only"):
            job = self._channel.call("Jobs.Get", _message("GetJobRequest", name=self.name)).job
            objectives = json.loads(job.spec).get("objectives", [])
            if len(objectives) != 1:
                names = ", ".join(o["name"] for o in objectives)
                raise ValueError(f"study {self.name} has {len(objectives)} objectives: tell them by name ({names})")
            self._only: str = objectives[0]["name"]
        return self._only

    def get(self) -> SweepView:
        """The study as it stands."""
        return sweep_of(self._channel.call("Sweeps.Get", _message("GetSweepRequest", name=self.name)))

    def watch(self) -> Iterator[SweepView]:
        """The study as it stands, and again after changes, until it has ended.

        Each view has the trials that have ended since the one before: none is missed.
        """
        after = 0

        def request() -> Any:
            return _message("WatchSweepRequest", name=self.name, after=after)

        def done(answer: Any) -> bool:
            return sweep_of(answer).done

        for answer in self._channel.stream("Sweeps.Watch", request, done, ends=False):
            after = max(after, answer.sweep.order)
            yield sweep_of(answer)

    def trials(self, *, states: Sequence[str] = (), by: str = "number", reverse: bool = False) -> Iterator[TrialView]:
        """All trials, or those in some states: by "number", "value" (complete ones, the best first) or "order" of their end."""
        after = ""
        while True:
            request = _message("ListTrialsRequest", sweep=self.name, states=list(states), by=by, reverse=reverse, after=after)
            answer = self._channel.call("Sweeps.Trials", request)
            yield from (trial_of(t) for t in answer.trials)
            if not (after := answer.next):
                return

    def best(self) -> TrialView | None:
        """The best trial so far; with several objectives one of the Pareto front."""
        best = self.get().best
        return best[0] if best else None

    def add(self, parameters: Mapping[str, Value]) -> TrialView:
        """Add a trial by hand. It runs before what the search proposes."""
        request = _message("AddTrialRequest", sweep=self.name, request_id=secrets.token_hex(16))
        for name, value in parameters.items():
            if isinstance(value, bool):
                request.parameters[name].truth = value
            elif isinstance(value, str):
                request.parameters[name].text = value
            else:
                request.parameters[name].number = float(value)
        return trial_of(self._channel.call("Sweeps.AddTrial", request))

    def pause(self) -> SweepView:
        """Begin no new trial until it is resumed."""
        return self._control(pause=True)

    def resume(self) -> SweepView:
        """Go on after a pause."""
        return self._control(pause=False)

    def extend(self, *, trials: int | None = None, seconds: float | None = None, cost: float | None = None) -> SweepView:
        """Set new bounds of the budget, in all and not added to the old."""
        return self._control(trials=trials, time=None if seconds is None else int(seconds * 1e9), cost=cost)

    def stop(self) -> SweepView:
        """Begin no new trial any more: the study ends when those that live have."""
        return self._control(close=True)

    def parallel(self, trials: int) -> SweepView:
        """Change how many trials run at once."""
        return self._control(parallel=trials)

    def _control(self, **change: Any) -> SweepView:
        request = _message("ControlSweepRequest", sweep=self.name, **{k: v for k, v in change.items() if v is not None})
        return sweep_of(self._channel.call("Sweeps.Control", request))


def _message(name: str, /, **fields: Any) -> Any:
    return _api.message(name)(**fields)


def _value(value: Any) -> Value:
    kind = value.WhichOneof("value")
    if kind == "number" and value.number.is_integer() and abs(value.number) < 2**53:
        return int(value.number)
    found: Value = getattr(value, kind)
    return found


def trial_of(view: Any) -> TrialView:
    """The trial that a message says."""
    t = view.trial
    return TrialView(
        number=t.number,
        parameters={name: _value(v) for name, v in sorted(view.parameters.items())},
        state=t.state,
        reason=t.reason,
        values=tuple(t.values),
        limits=tuple(t.limits),
        curve=tuple(Point(p.step, p.value) for p in t.curve),
        started=instant(t.started),
        ended=instant(t.ended),
        cost=t.cost,
        job=t.job,
        worker=t.worker,
        model=t.model,
        by=t.by,
    )


_STATES = ("waiting", "running", "paused", "complete", "stopped", "failed", "infeasible", "cancelled")


def sweep_of(view: Any) -> SweepView:
    """The sweep that a message says."""
    return SweepView(
        name=view.job.name,
        state=view.job.state,
        reason=view.job.reason,
        paused=view.sweep.paused,
        closed=view.sweep.closed,
        parallel=view.sweep.parallel,
        counts={state: getattr(view.sweep.counts, state) for state in _STATES},
        budget_trials=view.sweep.budget.trials,
        best=tuple(trial_of(t) for t in view.best),
        live=tuple(trial_of(t) for t in view.live),
        changed=tuple(trial_of(t) for t in view.changed),
        time_left=None if view.time_left < 0 else view.time_left / 1e9,
        sampler=view.sampler,
        stopper=view.stopper,
    )
