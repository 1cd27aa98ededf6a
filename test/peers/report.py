"""What test/tune.sh measured, in tables of text and one JSON file: python3 report.py RESULTS
REPORT. RESULTS has WORKERS/SAMPLER/FAMILY.json of searches and cost/SAMPLER/COUNT.json, as
`clary tune bench -o json` prints them."""

import json
import math
import pathlib
import sys

OURS = "bayes"  # beside which the others are put
BBOB = "bbob-"


class Searches:
    """What one sampler scored, task by task."""

    def __init__(self, folder):
        self.name, self.tasks, self.families, self.costs, self.searches = folder.name, {}, {}, {}, {}
        for file in sorted(folder.glob("*.json")):
            measured = json.loads(file.read_text())
            for task, means in measured["tables"].items():
                self.tasks[task] = {t: (mean, measured["standard_errors"][task][t]) for t, mean in means.items()}
                self.families[task] = file.stem
                self.costs[task], self.searches[task] = measured["cpu_ms_per_ask"], measured["seeds"]

    def seeds(self, tasks):
        """How many searches there were of each task."""
        return sorted({self.searches[task] for task in tasks})

    def cpu(self, tasks):
        """Processor time a trial."""
        return sum(self.costs[task] for task in tasks) / len(tasks)

    def mean(self, tasks, mark):
        """The mean over tasks with its standard error over the seeds, None if one is missing."""
        if not tasks or any(mark not in self.tasks.get(task, {}) for task in tasks):
            return None
        values = [self.tasks[task][mark] for task in tasks]
        return sum(v for v, _ in values) / len(values), math.hypot(*(e for _, e in values)) / len(values)


def table(heading, rows):
    widths = [max(len(row[i]) for row in [heading, *rows]) for i in range(len(heading))]
    for row in [heading, *rows]:
        print("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))).rstrip())


def shown(figure, digits=3):
    return "" if figure is None else f"{figure[0]:.{digits}f} ± {figure[1]:.{digits}f}"


def groups(tasks, families):
    """The families among tasks in order, each with its tasks, and at the end all of them."""
    found = {}
    for task in tasks:
        found.setdefault(families[task], []).append(task)
    return {family.removeprefix(BBOB): sorted(found[family]) for family in sorted(found)} | {"all": sorted(tasks)}


def versus(ours, theirs):
    """Whether ours is better, as far as twice the standard error of the difference shows."""
    difference, error = ours[0] - theirs[0], math.hypot(ours[1], theirs[1])
    word = "no clear difference" if abs(difference) <= 2 * error else "ours is better" if difference < 0 else "THEIRS IS BETTER"
    return {"difference": difference, "standard_error": error, "verdict": word}


def section(title, samplers, tasks, families, marks):
    """Prints and returns what samplers scored on the same tasks."""
    samplers = [s for s in samplers if s.mean(tasks, marks[-1])]
    if not samplers:
        return None
    columns, result = groups(tasks, families), {"tasks": sorted(tasks), "samplers": {}, "beside_" + OURS: {}}
    for s in samplers:
        result["samplers"][s.name] = {
            "seeds": s.seeds(tasks),
            "cpu_ms_per_ask": s.cpu(tasks),
            "families": {g: {m: dict(zip(("mean", "standard_error"), s.mean(of, m))) for m in marks} for g, of in columns.items()},
        }
    for mark in marks:
        print(f"\n== {title}, after {mark[1:]} trials")
        ranked = sorted(samplers, key=lambda s: s.mean(tasks, mark)[0])
        rows = [[s.name, "/".join(map(str, s.seeds(tasks))), *(shown(s.mean(of, mark)) for of in columns.values()), f"{s.cpu(tasks):.1f}"] for s in ranked]
        table(["sampler", "seeds", *columns, "CPU ms a trial"], rows)
        ours = next((s for s in samplers if s.name == OURS), None)
        for s in samplers:
            if ours and s is not ours and s.name not in ("random", "tpe", "cmaes"):
                against = {g: versus(ours.mean(of, mark), s.mean(of, mark)) for g, of in columns.items()}
                result["beside_" + OURS].setdefault(s.name, {})[mark] = against
                print(f"{OURS} beside {s.name}: " + "; ".join(f"{g} {a['difference']:+.3f} ± {a['standard_error']:.3f}, {a['verdict']}" for g, a in against.items()))
    return result


def searches(folder):
    """The sections of one number of workers."""
    workers = folder.name
    samplers = [Searches(f) for f in sorted(folder.iterdir())]
    families = {task: family for s in samplers for task, family in s.families.items()}
    when = "one trial at a time" if workers == "1" else f"{workers} trials at a time"
    found = {}
    for kind, what, wanted in (
        ("tables", "tables: regret (0 the best, 1 the median)", ("T25", "T50", "T100")),
        ("bbob", "BBOB: log10 of the distance to the optimum", ("T25", "T50", "T100")),
    ):
        every = {t for t, f in families.items() if f.startswith(BBOB) == (kind == "bbob")}
        subsets = {frozenset(every & set(s.tasks)) for s in samplers} - {frozenset()}
        for tasks in sorted(subsets, key=lambda t: (-len(t), sorted(t))):
            known = [s for s in samplers if tasks <= set(s.tasks)]
            marks = [m for m in wanted if all(m in s.tasks[t] for s in known for t in tasks)]
            marks = marks or [max(known[0].tasks[min(tasks)], key=lambda m: int(m[1:]))]
            share = "" if tasks == every else f", {len(tasks)} of {len(every)}"
            found[f"{kind}, {len(tasks)}"] = section(f"{what}{share}, {when}", known, tasks, families, marks)
    return found


def cost(folder):
    """Processor time a suggestion, by the number of results before it."""
    found = {}
    for sampler in sorted(folder.iterdir()):
        for file in sampler.glob("*.json"):
            for figure in json.loads(file.read_text()):
                found.setdefault(sampler.name, {})[figure["results"]] = figure
    counts = sorted({n for figures in found.values() for n in figures})
    print("\n== CPU ms a suggestion after so many results, six floats")
    rows = [[name, *(shown((f[n]["cpu_ms"], f[n]["standard_error"]), 1) if n in f else "" for n in counts)] for name, f in found.items()]
    table(["sampler", *map(str, counts)], rows)
    return found


def main():
    if len(sys.argv) != 3:
        sys.exit("report.py: name a folder of results and a file to write")
    folder, report = pathlib.Path(sys.argv[1]), {}
    for of in sorted(folder.iterdir()):
        report["cost" if of.name == "cost" else f"workers_{of.name}"] = cost(of) if of.name == "cost" else searches(of)
    pathlib.Path(sys.argv[2]).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
