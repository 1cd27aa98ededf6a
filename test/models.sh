#!/usr/bin/env bash
# Measures the model server on the digits network beside a FastAPI server of the same network in
# PyTorch, in one run: both answer one row at a time as JSON to 64 connections, in turn, on this
# machine. `make bench-models` runs it; MODELS_SECONDS (10) is how long each is asked, MODELS_ROUNDS (3)
# how often, and MODELS_PYTHON an interpreter of a venv that has torch, fastapi and uvicorn (default:
# one is made, from the package registry). Its last line is one JSON object.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
clary=${CLARY_BIN:-$root/bin/clary}
seconds=${MODELS_SECONDS:-10} rounds=${MODELS_ROUNDS:-3}
out=${MODELS_OUT:-${TMPDIR:-/tmp}/clary-models}
mkdir -p "$out"
dir=$(mktemp -d)
pids=()
trap 'for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done; wait; rm -rf "$dir"' EXIT

command -v wrk >/dev/null || { echo "bench-models: wrk is missing: apt-get install wrk" >&2; exit 1; }
python=${MODELS_PYTHON:-}
if [ -z "$python" ]; then
  python=$out/venv/bin/python
  "$python" -c 'import torch, fastapi, uvicorn' 2>/dev/null || {
    echo "making a venv with torch, fastapi and uvicorn in $out/venv" >&2
    python3 -m venv "$out/venv" && "$out/venv/bin/pip" install -q numpy torch fastapi 'uvicorn[standard]' >&2
  }
fi

echo "== train the digits network, without a cluster" >&2
mkdir -p "$dir/job/input/data/train" "$dir/job/model" "$dir/job/checkpoints"
cp "$root/examples/digits/train.csv.gz" "$dir/job/input/data/train/"
task() { # task ROLE: one task of the training
  SAGEMAKER_BASE_DIR=$dir/job CLARY_SPEC=$root/test/models/digits.json CLARY_JOB=digits CLARY_INDEX=0 CLARY_ROLE=$1 \
    CLARY_HOSTS_SERVER=127.0.0.1:7919 CLARY_HOSTS_WORKER=127.0.0.1:7920 "$clary" trainer "$1" >"$dir/$1.log" 2>&1
}
task server & pids+=($!)
task worker || { cat "$dir/worker.log" >&2; exit 1; }
wait "${pids[0]}" || true
pids=()

echo "== both servers" >&2
"$clary" serve "$dir/job/model" --port 7921 >"$dir/clary.log" 2>&1 & pids+=($!)
"$python" "$root/test/models/fastapi_server.py" "$dir/job/model" 7922 >"$dir/fastapi.log" 2>&1 & pids+=($!)
for port in 7921 7922; do
  for _ in $(seq 900); do
    curl -fs -o "$dir/pong" "http://127.0.0.1:$port/ping" && continue 2
    sleep 0.2
  done
  cat "$dir"/*.log >&2
  echo "bench-models: nobody answers at $port" >&2
  exit 1
done
row=$(zcat <"$root/examples/digits/test.csv.gz" | sed -n 1p | cut -d, -f1-64)
body="{\"instances\":[[$row]]}"
for port in 7921 7922; do # they must agree before it matters how fast they are
  curl -fsS -H 'Content-Type: application/json' -d "$body" "http://127.0.0.1:$port/invocations" >"$dir/answer.$port"
done
"$python" - "$dir/answer.7921" "$dir/answer.7922" <<'END'
import json, sys
one, other = (json.load(open(f))["predictions"][0] for f in sys.argv[1:])
assert one["label"] == other["label"], (one, other)
assert max(abs(a - b) for a, b in zip(one["probabilities"], other["probabilities"])) < 1e-4, (one, other)
END
printf 'wrk.method = "POST"\nwrk.body = [=[%s]=]\nwrk.headers["Content-Type"] = "application/json"\n' "$body" >"$dir/post.lua"
cat >>"$dir/post.lua" <<'END'
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %.1f %.0f %.0f %d\n", summary.requests / summary.duration * 1e6,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
END

ask() { # ask NAME PORT: requests per second, p50 and p99 in microseconds, and errors
  wrk -t 1 -c 64 -d "${seconds}s" --latency -s "$dir/post.lua" "http://127.0.0.1:$2/invocations" | sed -n "s/^RESULT/$1/p"
}
for port in 7921 7922; do wrk -t 1 -c 64 -d 2s -s "$dir/post.lua" "http://127.0.0.1:$port/invocations" >"$dir/warm"; done
for round in $(seq "$rounds"); do
  for one in "clary 7921" "fastapi 7922"; do ask $one; done
done | tee "$dir/results" | awk '{ printf "%-8s %8.0f requests/s   p50 %7.2f ms   p99 %7.2f ms   %d errors\n", $1, $2, $3 / 1000, $4 / 1000, $5 }' >&2

"$python" - "$dir/results" <<'END'
import json, statistics, sys
runs = {}
for line in open(sys.argv[1]):
    name, *numbers = line.split()
    runs.setdefault(name, []).append([float(n) for n in numbers])
median = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in runs.items()}
ours, theirs = median["clary"], median["fastapi"]
print(json.dumps({
    "bench": "models", "connections": 64,
    "requests_per_second": {"clary": round(ours[0]), "fastapi": round(theirs[0])}, "times": round(ours[0] / theirs[0], 2),
    "p99_ms": {"clary": round(ours[2] / 1000, 2), "fastapi": round(theirs[2] / 1000, 2)}, "errors": sum(r[3] for rows in runs.values() for r in rows),
}))
END
