#!/usr/bin/env bash
# A study of a million results, measured on this machine: three coordinators as processes of
# their own, with TLS and synced logs. Workers ask and tell until the study has STUDY_RESULTS
# (1000000); then: how soon it answers one worker, what each coordinator holds in memory and
# on disk, and how long it takes until an ask is answered after the leader was killed and after
# all were. `make bench-study` runs it. STUDY_WORKERS (64) ask at the same time.
set -euo pipefail
. "$(dirname "$0")/cluster.sh" study
results=${STUDY_RESULTS:-1000000} workers=${STUDY_WORKERS:-64}

leader() { "$clary" cluster -o json | awk '/"id":/ { id = $2 } /"leader": true/ { gsub(/[",]/, "", id); print id; exit }'; }
another_leader() { local now && now=$(leader) && [ -n "$now" ] && [ "$now" != "$1" ]; }
seconds_since() { awk -v from="$1" -v to="$(date +%s.%N)" 'BEGIN { printf "%.1f s\n", to - from }'; }
one_result() { "$clary" bench study --study million --results 1 --workers 1; }
pid_of() { pgrep -f -- "--data $dir/$1 "; }

# again starts a coordinator as it was started before.
again() {
  local words
  mapfile -d '' words <"$dir/$1.args"
  start "$1" "${words[@]:1}"
}

# held prints what coordinators hold. Pages of the state's file count as memory of the process
# as long as the machine has room for them.
held() {
  local name
  printf '%4s %12s %14s %10s %14s %10s\n' "" "memory MiB" "pages of file" "log MiB" "snapshots MiB" "state MiB"
  for name in s1 s2 s3; do
    awk -v name="$name" -v log_="$(du -sk "$dir/$name/raft/raft/log" | cut -f1)" -v snap="$(du -sk "$dir/$name/raft/raft/snapshots" | cut -f1)" \
      -v state="$(du -k "$dir/$name/raft/state.db" | cut -f1)" \
      '/^RssAnon/ { anon = $2 } /^RssFile/ { file = $2 } END { printf "%4s %12d %14d %10d %14d %10d\n", name, anon/1024, file/1024, log_/1024, snap/1024, state/1024 }' \
      "/proc/$(pid_of "$name")/status"
  done
}

# watch_log notes the largest that a log grows to.
watch_log() {
  local most=0 now
  while sleep 5; do
    now=$(du -sk "$dir/s1/raft/raft/log" 2>/dev/null | cut -f1) || continue
    [ "$now" -le "$most" ] || { most=$now && echo $((most / 1024)) >"$dir/most"; }
  done
}

unwatch() { kill $watcher 2>/dev/null && wait $watcher 2>/dev/null || true; }

say "three coordinators"
coordinators
for name in s1 s2 s3; do cat "/proc/$(pid_of $name)/cmdline" >"$dir/$name.args"; done
held

say "$results results from $workers workers: clary bench study --study million --results $results --workers $workers"
watch_log &
watcher=$!
at_end+=(unwatch)
"$clary" bench study --study million --results "$results" --workers "$workers"
unwatch
echo "the log was never larger than $(cat "$dir/most" 2>/dev/null || echo ?) MiB"

say "one worker: clary bench study --study million --results 1000 --workers 1"
"$clary" bench study --study million --results 1000 --workers 1 --windows 1
held

say "kill -9 of the leader, until an ask is answered"
old=$(leader)
kill -KILL "$(pid_of "$old")"
begun=$(date +%s.%N)
one_result
seconds_since "$begun"

say "kill -9 of all, and start again, until an ask is answered"
for name in s1 s2 s3; do [ "$name" = "$old" ] || kill -KILL "$(pid_of "$name")"; done
for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
pids=()
begun=$(date +%s.%N)
for name in s1 s2 s3; do again "$name"; done
until_true 300 "an answer" one_result
seconds_since "$begun"
held
printf 'machine: %s, %s cores, load %s\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)"
