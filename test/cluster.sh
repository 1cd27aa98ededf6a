# Functions that start a Clary cluster of processes on this machine and end it again, for
# scripts beside this one: . cluster.sh NAME. It makes $dir, a folder that is removed at
# the end, and $clary, the binary. Whatever way the script ends, what it started ends.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
script=$1
dir=$(mktemp -d "${TMPDIR:-/tmp}/clary-$script.XXXXXX")
export CLARY_CONFIG=$dir/config.json
unset CLARY_ADDRESS CLARY_TOKEN CLARY_CA_PIN CLARY_CONTEXT
clary=${CLARY_BIN:-$root/bin/clary}
pids=()
declare -A metrics=() # where each coordinator tells its operators, by name
at_end=() # functions to call once all processes have ended

say() { printf '\n== %s\n' "$*"; }

# shown COMMAND... prints a clary command as a user would type it, and runs it.
shown() {
  printf '$ clary %s\n' "$*"
  "$clary" "$@"
}

fail() {
  echo "$script: $*" >&2
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

# left_over lists processes that still work in the script's folder.
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
  local last
  for last in "${at_end[@]}"; do "$last" || true; done
  rm -rf "$dir"
  [ $status -eq 0 ] || echo "{\"$script\":\"failed\"}"
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
  local name=$1 listen gossip store serve
  shift
  free_port && listen=$port
  free_port && gossip=$port
  free_port && store=$port
  free_port && serve=$port
  free_port && metrics[$name]=127.0.0.1:$port
  [ -n "${first:-}" ] || first=127.0.0.1:$listen
  set -- --listen "127.0.0.1:$listen" --gossip "127.0.0.1:$gossip" --object-store-listen "127.0.0.1:$store" --serve-listen "127.0.0.1:$serve" \
    --metrics-listen "${metrics[$name]}" "$@"
  printf '%s\0' "$@" >"$dir/$name.args"
  start "$name" server --id "$name" --data "$dir/$name" "$@"
}

agent() { # agent NAME [MORE...]
  local name=$1 listen gossip ports
  shift
  free_port && listen=$port
  free_port && gossip=$port
  ports=$next-$((next + 19))
  next=$((next + 20))
  start "$name" agent --id "$name" --data "$dir/$name" --address 127.0.0.1 --listen "127.0.0.1:$listen" \
    --gossip "127.0.0.1:$gossip" --ports "$ports" --cores 1 --join "$first" --token-file "$dir/agent.token" "$@"
}

# live NAME is what a coordinator holds in memory after a collection of what it does not: heap and stacks in bytes, not the state's mapped file.
live() {
  local host=${metrics[$1]%:*} port=${metrics[$1]##*:}
  exec 3<>"/dev/tcp/$host/$port"
  printf 'GET /debug/pprof/heap?gc=1&debug=1 HTTP/1.0\r\nAuthorization: Bearer %s\r\n\r\n' "$(cat "$dir/s1/admin.token")" >&3
  awk '/^# HeapAlloc =/ { heap = $4 } /^# Stack =/ { stack = $4 } END { if (!heap) exit 1; printf "%d", heap + stack }' <&3
  exec 3>&-
}

count() { "$clary" "$1" -o json | grep -c "$2"; }
three_voters() { [ "$(count cluster '"voter": true')" = 3 ] && [ "$(count cluster '"alive": true')" = 3 ]; }
ready_nodes() { [ "$(count nodes '"state": "ready"')" = "$1" ]; }

# coordinators starts three: the first founds the cluster, the others join by tokens. A
# token is bound to the first key that used it, so each coordinator gets its own.
coordinators() {
  server s1
  until_true 30 "the first coordinator" test -s "$dir/s1/admin.token"
  until_true 30 "the login" "$clary" login "$first" --ca "$dir/s1/tls/ca.pem" --token-file "$dir/s1/admin.token"
  local name
  for name in s2 s3; do
    shown token create --join coordinator --token-file "$dir/$name.token"
    server "$name" --join "$first" --token-file "$dir/$name.token"
  done
  until_true 30 "three voting coordinators" three_voters
  shown cluster
}

# agents NAME... starts agents, each with a join token of its own.
agents() {
  local name
  for name in "$@"; do
    shown token create --join agent --token-file "$dir/agent.token"
    agent "$name"
    until_true 30 "agent $name" "$clary" nodes "$name"
  done
  until_true 30 "$# ready nodes" ready_nodes $#
  shown nodes
}
