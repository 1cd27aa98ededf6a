#!/usr/bin/env bash
# What docs/performance.md says of running programs, measured on this machine: one
# coordinator and agents as processes of their own, with TLS and synced logs. From submission
# to a running process, in each kind of view and in a container; tasks started in a second;
# how fast a task can write its log; what agent and shims hold of memory. `make bench-exec`
# runs it; it needs root. EXEC_ROUNDS (3) rounds of EXEC_STARTS (20) starts of each kind,
# one kind after the other in each round; EXEC_TASKS is which numbers of tasks run (0 100 1000).
set -euo pipefail
. "$(dirname "$0")/cluster.sh" exec
rounds=${EXEC_ROUNDS:-3} starts=${EXEC_STARTS:-20}
chmod 0755 "$dir"

# figure NAME reads a figure of a bench's JSON on standard input.
figure() { sed -n "s/.*\"$1\": *\([0-9.]*\).*/\1/p"; }

# middle prints the median of numbers on standard input, one a line.
middle() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# An engine of the script's own, with a network apart from the machine's, and an image that
# is a static busybox and nothing else.
engine_up() {
  space=$(basename "$dir") socket=$dir/docker.sock
  ip netns add "$space"
  at_end+=(engine_down)
  ip -n "$space" link set lo up
  nsenter --net="/run/netns/$space" dockerd --data-root "$dir/docker" --exec-root "$dir/exec" --pidfile "$dir/docker.pid" \
    -H "unix://$socket" >"$dir/docker.log" 2>&1 &
  pids+=($!)
  until_true 30 "the container engine" engine GET /_ping
  mkdir -p "$dir/root/bin" "$dir/root/tmp"
  cp "$(command -v busybox)" "$dir/root/bin/busybox"
  for applet in sh true sleep; do ln -s busybox "$dir/root/bin/$applet"; done
  tar -C "$dir/root" -c . | engine POST '/images/create?fromSrc=-&repo=clary-bench&tag=busybox' --data-binary @- >/dev/null
}

engine_down() {
  local mount
  for mount in $(awk -v below="$dir/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort -r); do umount -l "$mount"; done
  ip netns delete "$space"
}

engine() { # engine METHOD PATH [CURL'S OPTIONS...]
  local method=$1 path=$2
  shift 2
  curl -sS --fail --unix-socket "$socket" -X "$method" -H 'Content-Type: application/json' "$@" "http://engine$path"
}

# engine_start prints how many milliseconds the engine itself takes to create and start a
# container like the agent's.
engine_start() {
  local made begun
  made=$(engine POST "/containers/create?name=clary-bench" -o /dev/null -w '%{time_total}' -d "{\"Image\": \"clary-bench:busybox\", \"Cmd\": [\"true\"],
    \"User\": \"200000:200000\", \"HostConfig\": {\"NetworkMode\": \"host\", \"CapDrop\": [\"ALL\"], \"SecurityOpt\": [\"no-new-privileges\"], \"Init\": true,
    \"Memory\": 16777216, \"MemorySwap\": 16777216, \"PidsLimit\": 4096, \"LogConfig\": {\"Type\": \"json-file\", \"Config\": {}},
    \"Mounts\": [{\"Type\": \"bind\", \"Source\": \"$dir/root\", \"Target\": \"/opt/ml\"}, {\"Type\": \"bind\", \"Source\": \"$dir/root/tmp\", \"Target\": \"/tmp\"}]}}")
  begun=$(engine POST /containers/clary-bench/start -o /dev/null -w '%{time_total}')
  engine DELETE '/containers/clary-bench?force=true' >/dev/null
  awk "BEGIN { print ($made + $begun) * 1000 }"
}

# job NAME SPEC writes a job file.
job() { echo "{\"spec\": {\"resources\": {\"cores\": 0.01, \"memory\": \"16MiB\"}, $2}}" >"$dir/$1.json"; }

job_files() {
  job node '"program": {"command": ["true"]}, "labels": {"view": "node"}'
  job own '"program": {"command": ["true"]}, "labels": {"view": "own"}'
  job offline '"program": {"command": ["true"]}, "labels": {"view": "own"}, "network_isolation": true'
  job python '"script": {"entry": "main.py", "source": "s3://clary/bench/source.tar.gz", "requirements": "nothing\n"}, "labels": {"view": "own"}'
  job image '"image": "clary-bench:busybox", "program": {"command": ["true"]}, "labels": {"view": "own"}'
  job gang '"program": {"command": ["true"]}, "labels": {"view": "own"}, "instances": 200'
  job sleep '"program": {"command": ["sleep", "3600"]}, "labels": {"view": "own"}'
}

# script makes a wheelhouse of one Python package with nothing in it, and a script.
script() {
  mkdir -p "$dir/wheels" "$dir/code"
  python3 - "$dir/wheels/nothing-1.0-py3-none-any.whl" <<'PYTHON'
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    wheel.writestr("nothing.py", "")
    wheel.writestr("nothing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1.0\n")
    wheel.writestr("nothing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("nothing-1.0.dist-info/RECORD", "nothing.py,,\nnothing-1.0.dist-info/METADATA,,\nnothing-1.0.dist-info/WHEEL,,\nnothing-1.0.dist-info/RECORD,,\n")
PYTHON
  echo "import nothing" >"$dir/code/main.py"
  tar -C "$dir/code" -czf "$dir/source.tar.gz" main.py
  "$clary" cp "$dir/source.tar.gz" s3://clary/bench/source.tar.gz >/dev/null
}

measure_starts() {
  local kind round
  script
  for kind in node own offline python image; do "$clary" bench start -f "$dir/$kind.json" --count 2 >/dev/null; done # what is cached from here on

  say "from submission to a running process, ms: clary bench start --count $starts -f KIND, round after round"
  printf '%-44s %8s %8s\n' kind "p50" "p99"
  for round in $(seq "$rounds"); do
    for kind in "node:a process, in the node's own view" "own:a process, in a view of its own" "offline:and without a network" \
      "python:a script in a cached Python environment"; do
      "$clary" bench start -f "$dir/${kind%%:*}.json" --count "$starts" -o json >"$dir/figures"
      printf '%-44s %8.1f %8.1f\n' "${kind#*:}" "$(figure p50_ms <"$dir/figures")" "$(figure p99_ms <"$dir/figures")"
    done
  done

  say "the same of a container, whose image is cached, and the engine's own create and start in turns, ms"
  printf '%-8s %12s %12s %12s\n' round "clary p50" "engine p50" above
  for round in $(seq "$rounds"); do
    : >"$dir/clary.ms" && : >"$dir/engine.ms"
    for _ in $(seq "$starts"); do
      "$clary" bench start -f "$dir/image.json" --count 1 -o json | figure p50_ms >>"$dir/clary.ms"
      engine_start >>"$dir/engine.ms"
    done
    printf '%-8s %12.0f %12.0f %12.0f\n' "$round" "$(middle <"$dir/clary.ms")" "$(middle <"$dir/engine.ms")" \
      "$(awk -v c="$(middle <"$dir/clary.ms")" -v e="$(middle <"$dir/engine.ms")" 'BEGIN { print c - e }')"
  done
}

measure_bursts() {
  local what
  say "tasks started in a second on one agent: clary bench burst --count N -f KIND"
  printf '%-44s %10s %10s %10s\n' burst "a second" "p50 ms" "p99 ms"
  for round in $(seq "$rounds"); do
    for what in "200 jobs, in the node's own view:200:node" "200 jobs, each in a view of its own:200:own" "one gang of 200, in views of their own:1:gang"; do
      local rest=${what#*:}
      "$clary" bench burst --count "${rest%:*}" -f "$dir/${rest#*:}.json" -o json >"$dir/figures"
      printf '%-44s %10.0f %10.0f %10.0f\n' "${what%%:*}" "$(figure per_second <"$dir/figures")" "$(figure p50_ms <"$dir/figures")" "$(figure p99_ms <"$dir/figures")"
    done
  done
}

measure_logs() {
  say "a task's log: clary bench logs --size SIZE"
  for size in 16MiB 512MiB; do
    for _ in $(seq "$rounds"); do "$clary" bench logs --size "$size"; done
  done
}

# memory FIELD PIDS... is the sum of a figure of processes' memory in MiB.
memory() {
  local field=$1 pid
  shift
  for pid in "$@"; do cat "/proc/$pid/smaps_rollup" 2>/dev/null; done | awk -v field="$field:" '$1 == field { kb += $2 } END { printf "%.1f", kb / 1024 }'
}

measure_memory() {
  local count shims
  say "memory in MiB with so many tasks that sleep, each a job: clary bench burst --count N -f sleep.json --stay 600s"
  echo "Rss counts pages that processes share in each of them, Pss their share"
  printf '%8s %12s %16s %16s %14s\n' tasks "agent Rss" "agent Rss later" "shims Pss" "a shim's Rss"
  for count in ${EXEC_TASKS:-0 100 1000}; do
    local burst= later shims=()
    if [ "$count" -gt 0 ]; then
      "$clary" bench burst --count "$count" -f "$dir/sleep.json" --stay 600s >"$dir/burst" 2>&1 &
      burst=$!
      until_true 300 "$count running tasks" test -s "$dir/burst"
    fi
    local before
    before=$(memory Rss "${own_agent}")
    sleep 20 # so that the collector has run
    later=$(memory Rss "${own_agent}")
    mapfile -t shims < <(pgrep -f "clary-shim $dir/own/" || true)
    printf '%8d %12s %16s %16s %14s\n' "$count" "$before" "$later" "$(memory Pss "${shims[@]}")" \
      "$(awk -v all="$(memory Rss "${shims[@]}")" -v n="${#shims[@]}" 'BEGIN { printf "%.1f", n ? all / n : 0 }')"
    if [ -n "$burst" ]; then
      sed 's/^/         /' "$dir/burst"
      kill -INT "$burst" && wait "$burst" || true
      until_true 120 "the tasks' end" no_tasks
    fi
  done
}

no_tasks() { [ -z "$(ls "$dir/own/tasks")" ]; }

say "one coordinator, an agent whose tasks share its view, an agent whose tasks have views of their own"
engine_up
server s1
until_true 30 "the coordinator" test -s "$dir/s1/admin.token"
until_true 30 "the login" "$clary" login "$first" --ca "$dir/s1/tls/ca.pem" --token-file "$dir/s1/admin.token"
mkdir -p "$dir/wheels"
for view in node own; do
  ports=10000-10999
  [ "$view" = node ] || ports=11000-12999
  more=(--task-uids 0-0 --container-engine none)
  [ "$view" = node ] || more=(--container-engine "unix://$socket" --wheelhouse "$dir/wheels")
  "$clary" token create --join agent --token-file "$dir/agent.token"
  agent "$view" --label "view=$view" --cores 64 --memory 64GiB --ports "$ports" "${more[@]}"
  until_true 30 "agent $view" "$clary" nodes "$view"
done
own_agent=${pids[-1]}
until_true 30 "both agents" ready_nodes 2
shown nodes

job_files
for part in ${EXEC_PARTS:-starts bursts logs memory}; do "measure_$part"; done
echo
printf 'machine: %s, %s cores, load %s\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)"
