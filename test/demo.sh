#!/usr/bin/env bash
# A whole cluster on this machine: three coordinators and two agents as processes of
# their own, with TLS between all of them. It trains a network on handwritten digits,
# shows the job's life, scores the model it stored, and cleans up. `make demo` runs it.
# Its last line is one JSON object.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/clary-demo.XXXXXX")
export CLARY_CONFIG=$dir/config.json
unset CLARY_ADDRESS CLARY_TOKEN CLARY_CA_PIN CLARY_CONTEXT
clary=$root/bin/clary
pids=()
began=$SECONDS

say() { printf '\n== %s\n' "$*"; }

# shown COMMAND... prints a clary command as a user would type it, and runs it.
shown() {
  printf '$ clary %s\n' "$*"
  "$clary" "$@"
}

fail() {
  echo "demo: $*" >&2
  for log in "$dir"/*.log; do
    [ -f "$log" ] && printf -- '-- the last of %s\n' "$(basename "$log")" >&2 && tail -n 15 "$log" >&2
  done
  exit 1
}

# stop ends every process that was started, politely first.
stop() {
  [ ${#pids[@]} -eq 0 ] && return
  kill -TERM "${pids[@]}" 2>/dev/null || true
  for pid in "${pids[@]}"; do
    for _ in $(seq 100); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  pids=()
}

# left_over lists processes that still work in the demo's folder.
left_over() {
  local file words
  for file in /proc/[0-9]*/cmdline; do
    words=$(cat "$file" 2>/dev/null | tr "\0" " ") || continue
    [[ $words == *"$dir/"* ]] && echo "${file//[^0-9]/}: $words"
  done
  return 0
}

clean() {
  local status=$?
  trap - EXIT INT TERM
  stop
  rm -rf "$dir"
  [ $status -eq 0 ] || echo '{"demo":"failed"}'
  exit $status
}
trap clean EXIT
trap 'exit 130' INT TERM

# A free port answers nobody. Each is given once.
next=$((20000 + RANDOM % 10000))
free_port() {
  while (exec 3<>"/dev/tcp/127.0.0.1/$next") 2>/dev/null; do next=$((next + 1)); done
  port=$next
  next=$((next + 1))
}

# start NAME ARGUMENTS... runs a clary process that goes on.
start() {
  local name=$1
  shift
  "$clary" "$@" >"$dir/$name.log" 2>&1 &
  pids+=($!)
}

# until_true SECONDS WHAT COMMAND... waits for a command to succeed.
until_true() {
  local limit=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $limit ] || fail "waited in vain for $what"
    sleep 0.2
  done
}

server() { # server NAME [MORE...]
  local name=$1 listen gossip store
  shift
  free_port && listen=$port
  free_port && gossip=$port
  free_port && store=$port
  [ -n "${first:-}" ] || first=127.0.0.1:$listen
  start "$name" server --id "$name" --data "$dir/$name" --listen "127.0.0.1:$listen" \
    --gossip "127.0.0.1:$gossip" --object-store-listen "127.0.0.1:$store" "$@"
}

agent() { # agent NAME
  local listen gossip ports
  free_port && listen=$port
  free_port && gossip=$port
  ports=$next-$((next + 19))
  next=$((next + 20))
  start "$1" agent --id "$1" --data "$dir/$1" --address 127.0.0.1 --listen "127.0.0.1:$listen" \
    --gossip "127.0.0.1:$gossip" --ports "$ports" --cores 1 --join "$first" --token-file "$dir/agent.token"
}

count() { "$clary" "$1" -o json | grep -c "$2"; }
three_voters() { [ "$(count cluster '"voter": true')" = 3 ] && [ "$(count cluster '"alive": true')" = 3 ]; }
two_nodes() { [ "$(count nodes '"state": "ready"')" = 2 ]; }

say "three coordinators: the first makes the CA, the others join by a token that pins it"
server s1
until_true 30 "the first coordinator" test -s "$dir/s1/admin.token"
until_true 30 "the login" "$clary" login "$first" --ca "$dir/s1/tls/ca.pem" --token-file "$dir/s1/admin.token"
shown token create --join coordinator --token-file "$dir/coordinator.token"
server s2 --join "$first" --token-file "$dir/coordinator.token"
# The token is bound to the first key that used it, so each coordinator gets its own.
shown token create --join coordinator --token-file "$dir/coordinator-2.token"
server s3 --join "$first" --token-file "$dir/coordinator-2.token"
until_true 30 "three voting coordinators" three_voters
shown cluster

say "two agents"
for name in n1 n2; do
  shown token create --join agent --token-file "$dir/agent.token"
  agent "$name"
  until_true 30 "agent $name" "$clary" nodes "$name"
done
until_true 30 "two ready nodes" two_nodes
shown nodes

say "train on digits with two workers and two parameter servers"
shown train -f "$root/examples/digits/digits.yaml" --dry-run
shown train -f "$root/examples/digits/digits.yaml" --detach
shown job digits
shown wait digits || fail "the job did not succeed"
shown job digits
shown logs digits worker-0 --tail 3

say "score the stored model on 359 digits that it has never seen"
shown evaluate digits "$root/examples/digits/test.csv.gz"
accuracy=$("$clary" evaluate digits "$root/examples/digits/test.csv.gz" -o json | sed -n 's/.*"accuracy": *\([0-9.]*\).*/\1/p')
awk -v a="$accuracy" 'BEGIN { exit !(a >= 0.96) }' || fail "accuracy $accuracy: at least 0.96 is expected"
zcat <"$root/examples/digits/test.csv.gz" | sed -n 1,5p | cut -d, -f1-64 >"$dir/rows.csv"
shown predict digits --rows "$dir/rows.csv"

say "clean up"
seconds=$((SECONDS - began))
stop
left=$(left_over)
[ -z "$left" ] || fail "processes are left over: $left"
rm -rf "$dir"
trap - EXIT
printf '{"demo":"ok","accuracy":%.4f,"seconds":%d}\n' "$accuracy" "$seconds"
