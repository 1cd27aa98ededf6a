#!/usr/bin/env bash
# The figures of docs/performance.md, measured on this machine: three coordinators and an
# agent as processes of their own, with TLS and synced logs; durable submissions from 1, 8,
# 64 and 256 clients, starts of a trivial task, and the trainer's step. `make bench` runs
# it. BENCH_SECONDS is how long each number of clients submits (5), BENCH_CLIENTS which.
set -euo pipefail
. "$(dirname "$0")/cluster.sh" bench
seconds=${BENCH_SECONDS:-5}

figure() { sed -n "s/.*\"$1\": *\([0-9.]*\).*/\1/p" "$dir/figures"; }

# ticks PID is the CPU time that a process has used, in hundredths of a second.
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

# submit CLIENTS prints a row: CPU time is that of each process, per submission.
submit() {
  local before after pid client
  before=$(for pid in "${pids[@]:0:3}"; do ticks "$pid"; done)
  client=$({ TIMEFORMAT='%U %S' && time "$clary" bench submit --clients "$1" --seconds "$seconds" --keep -o json >"$dir/figures"; } 2>&1) ||
    fail "bench submit: $client"
  after=$(for pid in "${pids[@]:0:3}"; do ticks "$pid"; done)
  echo $before $after $client | awk -v clients="$1" -v n="$(figure count)" -v rate="$(figure per_second)" -v p50="$(figure p50_ms)" -v p99="$(figure p99_ms)" \
    '{ us = 10000 / n; printf "%8d %10.0f %9.2f %9.2f %12.0f %14.0f %12.0f\n", clients, rate, p50, p99, ($4-$1)*us, (($5-$2)+($6-$3))*us/2, ($7+$8)*1e6/n }'
}

say "three coordinators and an agent"
coordinators
agents n1

say "durable submissions, $seconds s each: clary bench submit --clients N --seconds $seconds"
echo "the last three columns are CPU time per submission, in microseconds"
printf '%8s %10s %9s %9s %12s %14s %12s\n' clients "a second" "p50 ms" "p99 ms" "the leader" "each follower" "the clients"
for clients in ${BENCH_CLIENTS:-1 8 64 256}; do submit "$clients"; done
stop && rm -rf "${dir:?}"/s? "$dir"/n1 && first=

say "from submission to a running process, in an empty cluster: clary bench start --count 50"
coordinators >/dev/null
agents n1 >/dev/null
"$clary" bench start --count 50
stop

say "one training step, 784-128-128-10 and 128 rows: a plain loop, and with a parameter server"
cd "$root" && go test -run '^$' -bench Step -benchtime "${BENCH_STEPS:-2000x}" ./trainer/... | grep -E '^(Benchmark|FAIL|---)'
echo
printf 'machine: %s, %s cores, load %s\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)"
