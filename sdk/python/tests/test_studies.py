"""Studies of a real cluster: that of CLARY_CONFIG."""

import collections
import math
import os
import threading
import unittest
import uuid

import clary


def loss_of(trial: clary.Trial) -> float:
    """What a trial comes to: least at lr 0.01 and depth 3."""
    return (math.log10(float(trial["lr"])) + 2) ** 2 + (float(trial["depth"]) - 3) ** 2


SPACE = {"lr": clary.Float(1e-4, 1e-1, "log"), "depth": (1, 8), "act": ["relu", "tanh"]}


@unittest.skipUnless("CLARY_CONFIG" in os.environ, "there is no cluster: set CLARY_CONFIG")
class Studies(unittest.TestCase):
    def setUp(self) -> None:
        self.client = clary.Client()
        self.addCleanup(self.client.close)

    def create(self, objective: object = "min:loss", **more: object) -> clary.Study:
        name = "study-" + uuid.uuid4().hex[:8]
        return self.client.create_study(name, SPACE, objective, **more)  # type: ignore[arg-type]

    def test_a_loop_finds_the_best_and_ends(self) -> None:
        study = self.create(trials=12, seed=1, initial=[{"lr": 0.01, "depth": 5, "act": "relu"}])
        seen = []
        for trial in study:
            with trial:
                told = trial.tell(loss_of(trial))
            seen.append((trial.number, dict(trial.parameters), loss_of(trial), told.best))
        self.assertEqual([number for number, *_ in seen], list(range(12)))
        self.assertEqual((seen[0][1], told.done), ({"lr": 0.01, "depth": 5, "act": "relu"}, True))
        number, parameters, loss, _ = min(seen, key=lambda s: s[2])
        best = study.best()
        assert best is not None
        self.assertEqual((best.number, dict(best.parameters), best.values), (number, parameters, (loss,)))
        self.assertLess(loss, 4)
        self.assertEqual(
            [best for *_, best in seen], [loss <= min(s[2] for s in seen[: i + 1]) for i, (_, _, loss, _) in enumerate(seen)]
        )
        last = list(study.watch())[-1]
        self.assertEqual((last.state, last.counts["complete"], last.done, last.sampler), ("succeeded", 12, True, "auto (bayes)"))
        by_value = [t.values[0] for t in study.trials(by="value")]
        self.assertEqual(by_value, sorted(s[2] for s in seen))
        self.assertIsNone(study.ask())
        with self.assertRaisesRegex(clary.Conflict, "warm_start"):
            study.pause()

    def test_what_is_learned_serves_the_next_study(self) -> None:
        first = self.create(trials=10, seed=2)
        for trial in first:
            trial.tell(loss_of(trial))
        best = first.best()
        assert best is not None
        second = self.create(trials=4, seed=2, warm_start=[first.name])
        losses = [loss_of(trial) for trial in second if trial.tell(loss_of(trial))]
        self.assertLess(min(losses), best.values[0] + 1)

    def test_many_workers_share_a_study_and_none_gets_the_trial_of_another(self) -> None:
        study = self.create(trials=40, parallel=8, seed=3)
        taken: dict[int, list[str]] = collections.defaultdict(list)
        lock = threading.Lock()
        ended: list[str] = []

        def watch() -> None:
            for view in self.client.study(study.name).watch():
                ended.extend(f"{t.number} {t.state}" for t in view.changed)

        def work() -> None:
            client = clary.Client()
            mine = client.study(study.name)
            for trial in mine:
                with trial, lock:
                    taken[trial.number].append(mine.worker)
                trial.tell(loss_of(trial))
            client.close()

        watcher = threading.Thread(target=watch)
        workers = [threading.Thread(target=work) for _ in range(8)]
        for thread in (watcher, *workers):
            thread.start()
        for thread in (*workers, watcher):
            thread.join(60)
        self.assertEqual(sorted(taken), list(range(40)))
        self.assertEqual([len(workers) for workers in taken.values()], [1] * 40)
        self.assertGreater(len({w for workers in taken.values() for w in workers}), 1)
        self.assertEqual(sorted(ended), sorted(f"{n} complete" for n in range(40)))
        self.assertEqual(self.client.study(study.name).get().counts["complete"], 40)

    def test_a_trial_that_is_not_worth_it_is_stopped(self) -> None:
        study = self.create(trials=12, stopper={"name": "asha", "min": 1, "eta": 2}, max_step=8, seed=4)
        stopped = 0
        for trial in study:
            for epoch in range(1, 9):
                verdict = trial.report(epoch, loss_of(trial) + 1 / epoch)
                if not verdict:
                    self.assertRegex(verdict.reason, "not worth going on with")
                    if not stopped:
                        with self.assertRaisesRegex(clary.Conflict, "is stopped already"):
                            trial.tell(1.0)
                    stopped += 1
                    break
            else:
                trial.tell(loss_of(trial) + 1 / 8)
        view = study.get()
        self.assertEqual((view.counts["stopped"], view.counts["complete"] + stopped), (stopped, 12))
        self.assertGreater(stopped, 2)
        first = next(study.trials(states=["stopped"]))
        self.assertEqual(first.curve[0].step, 1)

    def test_what_goes_wrong_in_a_trial_is_told(self) -> None:
        study = self.create(trials=4)
        with self.assertRaises(ZeroDivisionError), next(iter(study)):
            1 / 0  # noqa: B018
        nan = study.ask()
        assert nan is not None
        nan.tell(math.nan)
        hopeless = study.ask()
        assert hopeless is not None
        hopeless.tell(state="infeasible", reason="too large for this GPU")
        with self.assertRaises(KeyboardInterrupt), next(iter(study)):
            raise KeyboardInterrupt
        reasons = {t.number: (t.state, t.reason) for t in study.trials()}
        self.assertEqual(
            reasons,
            {
                0: ("failed", "ZeroDivisionError: division by zero"),
                1: ("failed", "loss is nan"),
                2: ("infeasible", "too large for this GPU"),
                3: ("cancelled", "KeyboardInterrupt: "),
            },
        )
        last = list(study.watch())[-1]
        self.assertEqual(last.state, "failed")
        self.assertRegex(last.reason, "none of its 4 trials has succeeded; the last that failed: too large for this GPU")

    def test_several_objectives_and_limits_are_told_by_name(self) -> None:
        study = self.create(["min:loss", "max:speed"], limits=["memory<=100"], trials=6)
        for trial in study:
            if trial.number == 0:
                with self.assertRaisesRegex(ValueError, r"2 objectives: tell them by name .loss, speed."):
                    trial.tell(1.0)
                with self.assertRaisesRegex(clary.Invalid, r"metrics\.memory: is missing"):
                    trial.tell({"loss": 1, "speed": 2})
            trial.tell({"loss": loss_of(trial), "speed": float(trial["depth"]), "memory": 30 * float(trial["depth"])})
        front = study.get().best
        self.assertTrue(front)
        for t in front:
            self.assertLessEqual(t.limits[0], 100)
            self.assertEqual(t.values[1], t.parameters["depth"])

    def test_a_study_is_paused_extended_added_to_and_stopped(self) -> None:
        study = self.create(trials=2, parallel=1)
        first = study.ask()
        assert first is not None
        with self.assertRaisesRegex(clary.TimedOut, "1 trials run, as many as may at once"):
            study.ask(timeout=0.1)
        study.parallel(4)
        self.assertTrue(study.pause().paused)
        with self.assertRaisesRegex(clary.TimedOut, "the sweep pauses"):
            study.ask(timeout=0.1)
        added = study.add({"lr": 0.01, "depth": 3, "act": "tanh"})
        self.assertEqual((added.state, added.by), ("waiting", "admin"))
        with self.assertRaisesRegex(clary.Invalid, r'parameters\.depth: "9": give an int from 1 to 8'):
            study.add({"lr": 0.01, "depth": 9, "act": "tanh"})
        study.resume()
        again = study.ask()
        assert again is not None
        self.assertEqual((again.number, again["depth"], again["act"]), (added.number, 3, "tanh"))
        self.assertEqual(study.extend(trials=100, seconds=3600).budget_trials, 100)
        self.assertEqual(len(study.ask_many(2)), 2)
        self.assertEqual(study.stop().closed, "stopped by admin")
        for number in range(4):
            told = study.tell(number, 1.0)
        self.assertTrue(told.done)
        self.assertIsNone(study.ask())
        last = list(study.watch())[-1]
        self.assertEqual((last.state, last.reason, last.budget_trials), ("succeeded", "stopped by admin", 100))

    def test_a_worker_that_is_silent_loses_its_trial(self) -> None:
        study = self.create(trials=2, lease=5)
        lost = study.ask()
        assert lost is not None
        with self.assertRaisesRegex(clary.Denied, "belongs to worker"):
            self.client.study(study.name).tell(lost.number, 1.0)
        for view in study.watch():
            if view.counts["failed"]:
                break
        with self.assertRaisesRegex(clary.Conflict, "is failed already: worker .* was silent for 5s"):
            lost.tell(1.0)
        kept = study.ask()
        assert kept is not None
        with kept:  # longer than the lease
            threading.Event().wait(6)
            self.assertTrue(kept.tell(2.0).best)

    def test_rubbish_is_refused_before_there_is_a_study(self) -> None:
        for wrong, want in (
            ({"x": (1.0, 0.0)}, "high: 0 is below low 1: exchange them"),
            ({"x": clary.Float(0, 1, "log")}, "low: 0: on the scale log values lie above 0"),
            ({"x": clary.Float(math.nan, 1)}, r"spec\.space\.parameters\[0\]\.low: nan: give a finite number"),
            ({"x": []}, "choices"),
            ({}, "parameters"),
        ):
            with self.assertRaisesRegex(clary.Invalid, want):
                self.client.create_study("rubbish", wrong, trials=1)  # type: ignore[arg-type]
        with self.assertRaisesRegex(clary.Invalid, 'there is no sampler "magic": there are auto, bayes'):
            self.client.create_study("rubbish", SPACE, sampler="magic")
        with self.assertRaisesRegex(clary.Invalid, "trials: -1"):
            self.client.create_study("rubbish", SPACE, trials=-1)
        with self.assertRaises(clary.NotFound):
            self.client.study("rubbish").ask()
        study = self.create(trials=1)
        with self.assertRaises(clary.Conflict):
            self.client.create_study(study.name, SPACE)
        self.client.create_study(study.name, SPACE, exists_ok=True)
        trial = study.ask()
        assert trial is not None
        with self.assertRaisesRegex(clary.Invalid, "steps ascend"):
            trial.report(2, 1.0)
            trial.report(1, 1.0)
        with self.assertRaisesRegex(clary.NotFound, "has no trial 7: it has 1, from 0"):
            study.tell(7, 1.0)


if __name__ == "__main__":
    unittest.main()
