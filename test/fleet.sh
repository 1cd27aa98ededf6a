#!/usr/bin/env bash
# The figures of "Two thousand agents" in docs/performance.md, measured on this machine. `make bench-fleet` runs it.
# FLEET_NODES is how many simulated agents there are (2000), FLEET_PROCESSES in how many processes (4), FLEET_QUEUED how many jobs
# wait (10000), FLEET_FINISHED how many have ended when a coordinator is started again (100000).
set -euo pipefail
. "$(dirname "$0")/cluster.sh" fleet
nodes=${FLEET_NODES:-2000} processes=${FLEET_PROCESSES:-4} queued=${FLEET_QUEUED:-10000} finished=${FLEET_FINISHED:-100000}
(cd "$root" && go build -o "$dir/sched" ./test/sched)

# pid NAME is the process of a coordinator; resident PID its memory in MiB.
pid() { pgrep -f -- "server --id $1 --data $dir/$1 " | head -1; }
resident() { awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$1/status"; }
memory() { # memory WHAT
  printf '%-44s' "$1"
  local name
  for name in s1 s2 s3; do printf ' %s %s MiB' "$name" "$(resident "$(pid $name)")"; done
  echo
}
# note remembers what coordinators hold, and per WHAT COUNT tells how much more it is since, shared by COUNT.
declare -A noted=()
note() {
  local name
  for name in s1 s2 s3; do noted[$name]=$(live $name); done
}
per() {
  printf '%-44s' "held in memory for each $1:"
  local name
  for name in s1 s2 s3; do
    printf ' %s %s KiB' "$name" "$(awk -v now="$(live $name)" -v before="${noted[$name]}" -v count="$2" 'BEGIN { printf "%.1f", (now - before) / count / 1024 }')"
  done
  echo ", the leader is $(leader)"
}
leader() { "$clary" cluster -o json | sed -n 's/^ *"leader": "\(s[0-9]\)".*/\1/p'; }
other_leader() { [ -n "$(leader)" ] && [ "$(leader)" != "$1" ]; }

first=
coordinators >/dev/null
join=$("$clary" cluster -o json | sed -n 's/.*"address": *"\([^"]*\)".*/\1/p' | paste -sd,)
"$clary" login "$join" --ca "$dir/s1/tls/ca.pem" --token-file "$dir/s1/admin.token" >/dev/null

# tell has all processes of the fleet say how their beats were answered since they were asked last.
tell() {
  local p
  kill "-$1" "${beating[@]}"
  sleep 1
  for p in $(seq "$processes"); do tail -n 1 "$dir/beats-$p" | sed 's/^/  /'; done
}

# crash NAME kills a coordinator, again NAME starts it with what it had.
crash() {
  local of
  of=$(pid "$1")
  kill -KILL "$of"
  wait "$of" 2>/dev/null || true
}
again() {
  local args=()
  mapfile -d '' -t args <"$dir/$1.args"
  start "$1" server --id "$1" --data "$dir/$1" "${args[@]}"
}

say "$nodes simulated agents in $processes processes, on three coordinators"
memory "coordinators without agents:"
note
beating=()
for p in $(seq "$processes"); do
  each=$((nodes / processes))
  "$dir/sched" --beat --first $(((p - 1) * each)) --nodes "$each" --join "$join" >"$dir/beats-$p" 2>"$dir/beats-$p.log" &
  beating+=($!)
  pids+=($!)
done
until_true 300 "$nodes ready nodes" ready_nodes "$nodes"
sleep 10
tell USR1 >/dev/null
sleep 30
tell USR1
memory "with $nodes agents:"
per agent "$nodes"

say "the leader is killed while $nodes agents beat"
old=$(leader) began=$(date +%s%N)
crash "$old"
until_true 30 "another leader" other_leader "$old"
printf 'leader %s killed; another leads, as seen by a client after %d ms\n' "$old" $((($(date +%s%N) - began) / 1000000))
fewest=$nodes
for _ in $(seq 20); do
  now=$(count nodes '"state": "ready"')
  fewest=$((now < fewest ? now : fewest))
  sleep 0.5
done
tell USR1
echo "of $nodes agents $fewest counted as ready at the least"
again "$old"
until_true 60 "three voters again" three_voters
tell INT >/dev/null
wait "${beating[@]}" || fail "the fleet"
until_true 60 "the fleet to count as lost" ready_nodes 0

say "$finished jobs end"
"$dir/sched" --nodes 200 --first 900000 --tasks "$finished" --rate 0 --join "$join" || fail "the jobs that end"

say "$queued jobs wait"
until_true 60 "all nodes to count as lost" ready_nodes 0
memory "before:"
note
"$dir/sched" --queued "$queued" --clients 64
sleep 3
memory "with $queued jobs that wait:"
per "job that waits" "$queued"

say "a coordinator starts again with $finished jobs that have ended and $queued that wait"
follower=s1
[ "$(leader)" != s1 ] || follower=s2
mapfile -d '' -t args <"$dir/$follower.args"
"$clary" login "${args[1]}" --name one --ca "$dir/s1/tls/ca.pem" --token-file "$dir/s1/admin.token" >/dev/null
"$clary" context use default >/dev/null
du -sh "$dir/$follower" | sed 's/^/its folder: /'
memory "before:"
crash "$follower"
began=$(date +%s%N)
again "$follower"
until_true 300 "an answer of it" "$clary" --context one nodes -o json
printf 'started, and it answers what is linearizable: %d ms\n' $((($(date +%s%N) - began) / 1000000))
until_true 300 "three voters again" three_voters
memory "after:"
printf '\nmachine: %s, %s cores, load %s\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)"
