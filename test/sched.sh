#!/usr/bin/env bash
# The figures of "Scheduling" in docs/performance.md, measured on this machine. `make bench-sched` runs it.
# SCHED_PARTS says which (raft), SCHED_NODES how large the simulated fleet is (1000),
# SCHED_TASKS how many tasks wait (20000), SCHED_COORDINATORS the numbers of coordinators ("1 3").
set -euo pipefail
. "$(dirname "$0")/cluster.sh" sched
parts=${SCHED_PARTS:-raft}
nodes=${SCHED_NODES:-1000} tasks=${SCHED_TASKS:-20000}

# through_raft COORDINATORS GANG: coordinators as processes with synced logs, and one that plays the fleet.
through_raft() {
  local join
  first=
  if [ "$1" = 3 ]; then coordinators >/dev/null; else
    server s1 ${SCHED_SERVER_FLAGS:-}
    until_true 30 "the coordinator" test -s "$dir/s1/admin.token"
    until_true 30 "the login" "$clary" login "$first" --ca "$dir/s1/tls/ca.pem" --token-file "$dir/s1/admin.token"
  fi
  join=$("$clary" cluster -o json | sed -n 's/.*"address": *"\([^"]*\)".*/\1/p' | paste -sd,)
  "$dir/sched" --nodes "$nodes" --tasks "$tasks" --gang "$2" --join "${join:-$first}" ${SCHED_FLAGS:-} >"$dir/figures" || fail "the fleet of $1 coordinators and gangs of $2"
  printf '%s coordinator(s), gangs of %s: ' "$1" "$2"
  cat "$dir/figures"
  stop
  rm -rf "${dir:?}"/s?
}

if [[ $parts == *raft* ]]; then
  say "through Raft: $nodes simulated nodes, $tasks tasks that wait until all nodes become free at once"
  (cd "$root" && go build -o "$dir/sched" ./test/sched)
  for coordinators in ${SCHED_COORDINATORS:-1 3}; do
    for gang in ${SCHED_GANGS:-1 8}; do through_raft "$coordinators" "$gang"; done
  done
fi
