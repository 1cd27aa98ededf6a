#!/usr/bin/env bash
# What docs/performance.md says of sweeps of a real network that stop early, measured on this
# machine: a coordinator and an agent as processes of their own search for a network that
# reads digits (sweep.json), SWEEP_PARALLEL (2) trainings at a time, for SWEEP_TIME (90s) a
# sweep, with each of SWEEP_SEEDS seeds (2): at random, at random with ASHA, and by the
# Gaussian process with ASHA; epochs are the fidelity. It prints when a trial had ended
# within 1 % of the best validation accuracy that any sweep found, and how many epochs the
# sweep's trials had trained by then. `make bench-sweep` runs it.
set -euo pipefail
. "$(dirname "$0")/cluster.sh" sweep
time=${SWEEP_TIME:-90s} seeds=${SWEEP_SEEDS:-2} parallel=${SWEEP_PARALLEL:-2}

# search NAME SEED MORE... runs a sweep to its end, and keeps its trials.
search() {
  local name=$1-$2 seed=$2
  shift 2
  "$clary" tune -f "$root/test/sweep.json" --name "$name" --seed "$seed" --parallel "$parallel" --max-time "$time" "$@" >/dev/null 2>"$dir/$name.log" ||
    fail "$name: $(tail -n 3 "$dir/$name.log")"
  "$clary" trials "$name" --limit 0 -o json >"$dir/$name.trials"
}

# report prints a row for each sweep. Of a trial that was still running when the first good
# one ended, a share of the epochs counts, as of its time.
report() {
  python3 - "$dir"/*.trials <<'PYTHON'
import json, os, re, sys
from datetime import datetime

def instant(text):
    return datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*Z$|Z$", r"\1+00:00", text)).timestamp()

def value(trial):
    return trial.get("values", {}).get("validation_accuracy", 0)

sweeps = {os.path.basename(name)[: -len(".trials")]: [t for t in json.load(open(name)) if "started" in t] for name in sys.argv[1:]}
best = max(value(t) for trials in sweeps.values() for t in trials)
print(f"the best validation accuracy is {best:.4f}: good is {0.99 * best:.4f}")
print(f"{'sweep':16} {'trials':>7} {'best':>7} {'good':>5} {'seconds to the first':>21} {'epochs to it':>13} {'epochs in all':>14}")
for name, trials in sorted(sweeps.items()):
    begin = min(instant(t["started"]) for t in trials)
    spans = [(instant(t["started"]), instant(t.get("ended", t["started"])), t["curve"][-1]["step"] if t.get("curve") else 0) for t in trials]
    good = sorted(span[1] for t, span in zip(trials, spans) if t.get("ended") and value(t) >= 0.99 * best)
    to, epochs = "not", "not"
    if good:
        to = f"{good[0] - begin:.1f}"
        epochs = f"{sum(steps * min(max((good[0] - start) / max(end - start, 1e-9), 0), 1) for start, end, steps in spans):.0f}"
    print(f"{name:16} {len(trials):7} {max(map(value, trials)):7.4f} {len(good):5} {to:>21} {epochs:>13} {sum(s[2] for s in spans):14.0f}")
PYTHON
}

say "one coordinator, an agent"
server s1
until_true 30 "the coordinator" test -s "$dir/s1/admin.token"
until_true 30 "the login" "$clary" login "$first" --ca "$dir/s1/tls/ca.pem" --token-file "$dir/s1/admin.token"
"$clary" token create --join agent --token-file "$dir/agent.token"
agent n1 --cores 16
until_true 30 "the agent" ready_nodes 1
"$clary" cp "$root/examples/digits/train.csv.gz" s3://clary/digits/train.csv.gz >/dev/null

say "sweeps of $time each, $parallel at a time: clary tune -f test/sweep.json --seed N --sampler random|bayes [--stopper asha]"
for seed in $(seq "$seeds"); do
  search random "$seed" --sampler random
  search random-asha "$seed" --sampler random --stopper asha
  search bayes-asha "$seed" --sampler bayes --stopper asha
done
report
[ -z "${SWEEP_KEEP:-}" ] || cp "$dir"/*.trials "$SWEEP_KEEP"
echo
printf 'machine: %s, %s cores, load %s\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)"
