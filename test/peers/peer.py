"""Proposes trials as another tuner does: the program of `clary tune bench --program`, whose
help has the protocol. PEER is the first argument: python3 peer.py optuna-gp."""

import json
import logging
import os
import sys
import time
import warnings

# One thread, so that processor time can be compared. Set before any library is imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ[variable] = "1"

# Answers go to what is standard output now; whatever a library prints does not.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


class Peer:
    """One search. Losses are minimised: those of a search that maximises are negated."""

    def __init__(self, search):
        raise NotImplementedError

    def ask(self):
        """The next configuration, and the tuner's own handle of the trial."""
        raise NotImplementedError

    def tell(self, handle, loss):
        raise NotImplementedError

    def add(self, config, loss):
        """A trial that the tuner did not propose."""
        raise NotImplementedError


def name(i):
    """A parameter's name for the tuners: with the digits of one as in the search."""
    return f"x{i:03d}"


class Optuna(Peer):
    def __init__(self, search):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.optuna = optuna
        self.space = {name(i): self.distribution(p) for i, p in enumerate(search["parameters"])}
        self.study = optuna.create_study(sampler=self.sampler(search["seed"]))

    def distribution(self, p):
        made = self.optuna.distributions
        if p["type"] == "float":
            return made.FloatDistribution(p["low"], p["high"])
        if p["type"] == "ordered":
            return made.IntDistribution(0, p["choices"] - 1)
        return made.CategoricalDistribution(range(p["choices"]))

    def sampler(self, seed):
        raise NotImplementedError

    def ask(self):
        trial = self.study.ask(self.space)
        return [trial.params[n] for n in self.space], trial

    def tell(self, handle, loss):
        self.study.tell(handle, loss)

    def add(self, config, loss):
        params = {n: v if isinstance(d, self.optuna.distributions.FloatDistribution) else int(v) for (n, d), v in zip(self.space.items(), config)}
        self.study.add_trial(self.optuna.create_trial(params=params, distributions=self.space, value=loss))


class OptunaGP(Optuna):
    def sampler(self, seed):
        return self.optuna.samplers.GPSampler(seed=seed)


class OptunaTPE(Optuna):
    def sampler(self, seed):
        return self.optuna.samplers.TPESampler(seed=seed)


class OptunaCMAES(Optuna):
    def sampler(self, seed):
        return self.optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


class Ax(Peer):
    """Ax's default strategy: Sobol points, then BoTorch's Gaussian process with qLogNEI."""

    def __init__(self, search):
        import torch
        from ax.api.client import Client
        from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

        torch.manual_seed(search["seed"])
        self.kinds = [p["type"] for p in search["parameters"]]
        parameters = []
        for i, p in enumerate(search["parameters"]):
            if p["type"] == "float":
                parameters.append(RangeParameterConfig(name=name(i), parameter_type="float", bounds=(p["low"], p["high"])))
            elif p["type"] == "ordered" and p["choices"] > 2:
                parameters.append(RangeParameterConfig(name=name(i), parameter_type="int", bounds=(0, p["choices"] - 1)))
            else:
                parameters.append(ChoiceParameterConfig(name=name(i), parameter_type="int", values=list(range(p["choices"])), is_ordered=p["type"] == "ordered"))
        self.client = Client(random_seed=search["seed"])
        self.client.configure_experiment(parameters=parameters)
        self.client.configure_optimization(objective="-loss")
        self.client.configure_generation_strategy(method="fast", allow_exceeding_initialization_budget=True)

    def ask(self):
        ((index, params),) = self.client.get_next_trials(max_trials=1).items()
        return [params[name(i)] for i in range(len(self.kinds))], index

    def tell(self, handle, loss):
        self.client.complete_trial(trial_index=handle, raw_data={"loss": loss})

    def add(self, config, loss):
        values = {name(i): v if kind == "float" else int(v) for i, (kind, v) in enumerate(zip(self.kinds, config))}
        self.tell(self.client.attach_trial(parameters=values), loss)


class HEBO(Peer):
    """HEBO. It knows nothing of trials that run: it proposes from those that ended."""

    def __init__(self, search):
        import numpy
        import pandas
        import torch
        from hebo.design_space.design_space import DesignSpace
        from hebo.optimizers.hebo import HEBO as Optimizer

        torch.set_num_threads(1)
        torch.manual_seed(search["seed"])
        numpy.random.seed(search["seed"])
        self.numpy, self.pandas = numpy, pandas
        self.kinds = [p["type"] for p in search["parameters"]]
        space = []
        for i, p in enumerate(search["parameters"]):
            if p["type"] == "float":
                space.append({"name": name(i), "type": "num", "lb": p["low"], "ub": p["high"]})
            elif p["type"] == "ordered":
                space.append({"name": name(i), "type": "int", "lb": 0, "ub": p["choices"] - 1})
            else:
                space.append({"name": name(i), "type": "cat", "categories": [str(k) for k in range(p["choices"])]})
        self.optimizer = Optimizer(DesignSpace().parse(space), scramble_seed=search["seed"])

    def ask(self):
        row = self.optimizer.suggest(n_suggestions=1)
        values = [row[name(i)].iloc[0] for i in range(len(self.kinds))]
        return [float(v) if kind == "float" else int(v) for kind, v in zip(self.kinds, values)], row

    def tell(self, handle, loss):
        self.optimizer.observe(handle, self.numpy.array([[loss]]))

    def add(self, config, loss):
        values = {"float": float, "ordered": int, "categorical": lambda v: str(int(v))}
        row = {name(i): [values[kind](v)] for i, (kind, v) in enumerate(zip(self.kinds, config))}
        self.tell(self.pandas.DataFrame(row), loss)


class SMAC(Peer):
    """SMAC: its black-box facade (a Gaussian process) where all parameters are floats, and
    else its facade for hyperparameters (a random forest). One evaluation a configuration."""

    def __init__(self, search):
        import tempfile

        import ConfigSpace
        import smac

        logging.disable(logging.CRITICAL)
        self.ConfigSpace, self.runhistory = ConfigSpace, smac.runhistory
        self.kinds = [p["type"] for p in search["parameters"]]
        self.space = ConfigSpace.ConfigurationSpace(seed=search["seed"])
        for i, p in enumerate(search["parameters"]):
            if p["type"] == "float":
                self.space.add(ConfigSpace.UniformFloatHyperparameter(name(i), p["low"], p["high"]))
            elif p["type"] == "ordered":
                self.space.add(ConfigSpace.UniformIntegerHyperparameter(name(i), 0, p["choices"] - 1))
            else:
                self.space.add(ConfigSpace.CategoricalHyperparameter(name(i), list(range(p["choices"]))))
        facade = smac.BlackBoxFacade if all(kind == "float" for kind in self.kinds) else smac.HyperparameterOptimizationFacade
        self.folder = tempfile.TemporaryDirectory(prefix="clary-smac-")
        scenario = smac.Scenario(self.space, deterministic=True, n_trials=search["budget"], seed=search["seed"], output_directory=self.folder.name)
        self.smac = facade(
            scenario,
            lambda config, seed=0: 0.0,
            intensifier=facade.get_intensifier(scenario, max_config_calls=1),
            overwrite=True,
            logging_level=False,
        )

    def ask(self):
        info = self.smac.ask()
        return [info.config[name(i)] for i in range(len(self.kinds))], info

    def tell(self, handle, loss):
        self.smac.tell(handle, self.runhistory.TrialValue(cost=loss), save=False)

    def add(self, config, loss):
        values = {name(i): v if kind == "float" else int(v) for i, (kind, v) in enumerate(zip(self.kinds, config))}
        self.tell(self.runhistory.TrialInfo(self.ConfigSpace.Configuration(self.space, values=values), seed=0), loss)


PEERS = {"optuna-gp": OptunaGP, "optuna-tpe": OptunaTPE, "optuna-cmaes": OptunaCMAES, "ax": Ax, "hebo": HEBO, "smac": SMAC}


class Searches:
    """Answers questions, one search after the other."""

    def __init__(self, make):
        self.make = make

    def answer(self, question):
        if "search" in question:
            self.sign = -1.0 if question["search"]["maximize"] else 1.0
            self.peer, self.running = self.make(question["search"]), {}
        for trial in question["ended"]:
            loss = self.sign * trial["value"]
            if trial["trial"] in self.running:
                self.peer.tell(self.running.pop(trial["trial"]), loss)
            else:
                self.peer.add(trial["config"], loss)
        config, self.running[question["trial"]] = self.peer.ask()
        return [float(v) for v in config]


def warm_up(make):
    """A small search, so that what a library loads when it is first used is not counted."""
    x = {"type": "float", "low": 0.0, "high": 1.0}
    searches, ended = Searches(make), []
    question = {"search": {"parameters": [x, x], "maximize": False, "seed": 0, "budget": 100, "workers": 1}}
    for number in range(12):
        config = searches.answer({**question, "trial": number, "ended": ended})
        ended, question = [{"trial": number, "config": config, "value": sum(config)}], {}


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in PEERS:
        sys.exit(f"peer.py: name one of {', '.join(PEERS)}")
    make = PEERS[sys.argv[1]]
    warm_up(make)
    searches = Searches(make)
    for line in sys.stdin:
        before = time.process_time()
        config = searches.answer(json.loads(line))
        json.dump({"config": config, "cpu_ms": 1000 * (time.process_time() - before)}, answers)
        answers.write("\n")
        answers.flush()


if __name__ == "__main__":
    main()
