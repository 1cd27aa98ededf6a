#!/usr/bin/env bash
# The figures of "Scheduling" in docs/performance.md, measured on this machine. `make bench-sched` runs it.
# SCHED_PARTS says which (pure raft slurm), SCHED_NODES how large the simulated fleet is (1000),
# SCHED_TASKS how many tasks wait (20000), SCHED_COORDINATORS the numbers of coordinators ("1 3").
set -euo pipefail
. "$(dirname "$0")/cluster.sh" sched
parts=${SCHED_PARTS:-pure raft slurm}
nodes=${SCHED_NODES:-1000} tasks=${SCHED_TASKS:-20000}

build_sched() { (cd "$root" && go build -o "$dir/sched" ./test/sched); }

# alone starts one coordinator.
alone() {
  first=
  server s1 ${SCHED_SERVER_FLAGS:-}
  until_true 30 "the coordinator" test -s "$dir/s1/admin.token"
  until_true 30 "the login" "$clary" login "$first" --ca "$dir/s1/tls/ca.pem" --token-file "$dir/s1/admin.token"
}

# through_raft COORDINATORS GANG: coordinators as processes with synced logs, and one that plays the fleet.
through_raft() {
  local join
  first=
  if [ "$1" = 3 ]; then coordinators >/dev/null; else alone >/dev/null; fi
  join=$("$clary" cluster -o json | sed -n 's/.*"address": *"\([^"]*\)".*/\1/p' | paste -sd,)
  "$dir/sched" --nodes "$nodes" --tasks "$tasks" --gang "$2" --join "${join:-$first}" ${SCHED_FLAGS:-} >"$dir/figures" || fail "the fleet of $1 coordinators and gangs of $2"
  printf '%s coordinator(s), gangs of %s: ' "$1" "$2"
  cat "$dir/figures"
  stop
  [ "$1" = 3 ] || "$clary" replay "$dir/s1/decisions" || fail "what was decided is not repeated"
  rm -rf "${dir:?}"/s?
}

if [[ $parts == *pure* ]]; then
  say "decisions alone, on one core"
  (cd "$root" && go run ./test/sched/pure ${SCHED_PURE_FLAGS:-})
fi

if [[ $parts == *raft* ]]; then
  say "through Raft: $nodes simulated nodes, $tasks tasks that wait until all nodes become free at once"
  build_sched
  for coordinators in ${SCHED_COORDINATORS:-1 3}; do
    for gang in ${SCHED_GANGS:-1 8}; do through_raft "$coordinators" "$gang"; done
  done
fi

# slurm_up starts munged, slurmctld and slurmd in the script's folder, for a node of $slots CPUs.
slurm_up() {
  local host home=$dir/slurm
  host=$(hostname -s)
  mkdir -p "$home/state" "$home/spool"
  chmod 755 "$dir" "$home"
  (umask 077 && head -c 1024 /dev/urandom >"$home/munge.key")
  free_port && local ctld=$port
  free_port && local slurmd=$port
  export SLURM_CONF=$home/slurm.conf
  cat >"$SLURM_CONF" <<END
ClusterName=bench
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge.socket
SlurmctldPort=$ctld
SlurmdPort=$slurmd
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
NodeName=$host NodeAddr=127.0.0.1 CPUs=$slots RealMemory=1000 State=UNKNOWN
PartitionName=bench Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
  munged --foreground --force --socket="$home/munge.socket" --key-file="$home/munge.key" \
    --pid-file="$home/munged.pid" --seed-file="$home/munge.seed" --log-file="$home/munged.log" >"$dir/munged.log" 2>&1 &
  pids+=($!)
  until_true 10 "munged" test -S "$home/munge.socket"
  slurmctld -D >"$home/ctld.out" 2>&1 &
  pids+=($!)
  until_true 20 "slurmctld" scontrol ping
  slurmd -D >"$home/slurmd.out" 2>&1 &
  pids+=($!)
  until_true 20 "an idle node of Slurm" slurm_idle
}
slurm_idle() { sinfo -h -o %T | grep -q '^idle$'; }

# slurm_run WHAT COMMAND... times a submission until no job is left.
slurm_run() {
  local what=$1 began took
  shift
  began=$(date +%s%N)
  "$@" >/dev/null || fail "$what"
  until [ -z "$(squeue -h)" ]; do sleep 0.1; done
  took=$((($(date +%s%N) - began) / 1000000))
  awk -v what="$what" -v n="$many" -v ms="$took" 'BEGIN { printf "%-55s %7.2f s %8.1f jobs/s\n", what, ms / 1000, n * 1000 / ms }'
}
one_by_one() { seq "$many" | xargs -P 8 -n 1 sh -c 'exec sbatch --output=/dev/null --wrap true' >/dev/null; }

if [[ $parts == *slurm* ]]; then
  many=${SCHED_JOBS:-500} slots=64
  say "$many jobs of 'true', end to end, on one node that takes $slots at a time: $(slurmctld -V) and Clary"
  build_sched
  for round in $(seq "${SCHED_ROUNDS:-2}"); do
    slurm_up
    slurm_run "Slurm, one array: sbatch --array=1-$many --wrap true" sbatch --output=/dev/null --array=1-"$many" --wrap true
    slurm_run "Slurm, $many times sbatch --wrap true, 8 at a time" one_by_one
    stop
    rm -rf "${dir:?}/slurm"
    alone >/dev/null
    "$clary" token create --join agent --token-file "$dir/agent.token" >/dev/null
    agent n1 --cores "$slots"
    until_true 30 "a ready node" ready_nodes 1
    "$dir/sched" --jobs "$many" --clients 8 >"$dir/figures" || fail "$many jobs of true through Clary"
    sed -n 's/.*"seconds":\([0-9.]*\),"per_second":\([0-9.]*\).*/\1 \2/p' "$dir/figures" |
      awk '{ printf "%-55s %7.2f s %8.1f jobs/s\n", "Clary, as many submissions, 8 at a time", $1, $2 }'
    stop
    rm -rf "${dir:?}"/s1 "$dir"/n1
  done
fi
printf '\nmachine: %s, %s cores, load %s\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)"
