"""Clary from Python: ask for trials and tell what came of them, run jobs, read their logs.

import clary

study = clary.Client().create_study("demo", {"lr": clary.Float(1e-4, 1e-1, "log")}, "min:loss", trials=20)
for trial in study:
    with trial:
        trial.tell((trial["lr"] - 0.01) ** 2)
"""

from .client import Client
from .endpoints import Endpoint, Replica, Variant
from .errors import ClaryError, Conflict, Denied, Exhausted, Internal, Invalid, JobFailed, NotFound, TimedOut, Unready
from .jobs import Job, LogChunk, Output, Task
from .models import Evaluation, Model, ModelVersion
from .predictor import Prediction, Predictor, Router
from .space import Choice, Float, Int
from .study import Point, Study, SweepView, Told, Trial, TrialView, Verdict

__version__ = "0.1.0"

__all__ = [
    "Choice",
    "ClaryError",
    "Client",
    "Conflict",
    "Denied",
    "Endpoint",
    "Evaluation",
    "Exhausted",
    "Float",
    "Int",
    "Internal",
    "Invalid",
    "Job",
    "JobFailed",
    "LogChunk",
    "Model",
    "ModelVersion",
    "NotFound",
    "Output",
    "Point",
    "Prediction",
    "Predictor",
    "Replica",
    "Router",
    "Study",
    "SweepView",
    "Task",
    "TimedOut",
    "Told",
    "Trial",
    "TrialView",
    "Unready",
    "Variant",
    "Verdict",
]
