#!/usr/bin/env bash
# Clary's tuner beside its peers, measured on this machine as docs/performance.md says:
# tables of real training runs and the BBOB functions, one trial at a time and eight workers,
# and what a suggestion costs. `clary tune bench` plays every search, ours and theirs: the
# same instances, noise, durations and scores. `make bench-tune` runs it.
#   TUNE_TABLES      a folder of tables; without one they are left out
#   TUNE_PARTS       what is measured (tables bbob cost)
#   TUNE_OUT         where results and the peers' environments are kept (bin/tune): what is there is not
#                    measured again, so that a run that was ended goes on
#   TUNE_OURS        samplers of Clary's (bayes tpe cmaes random), with TUNE_SEEDS (20) searches each
#   TUNE_PEERS       peers (optuna-gp optuna-tpe optuna-cmaes ax hebo smac), with TUNE_PEER_SEEDS (5)
#   TUNE_SLOW        which of these see TUNE_SLOW_TASKS only (ax hebo smac)
#   TUNE_WORKERS     how many trials run at once (1 8)
#   TUNE_TRIALS      how long a search is (100)
#   TUNE_COST        after how many results suggestions are measured (50 200 1000), TUNE_COST_ASKS (10) of them
#   TUNE_JOBS        searches at the same time (all cores)
#   TUNE_PYTHON      a Python for the peers' environments (/usr/bin/python3); HEBO needs 3.11 or older
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
clary=${CLARY_BIN:-$root/bin/clary}
out=${TUNE_OUT:-$root/bin/tune}
ours=${TUNE_OURS-bayes tpe cmaes random}
peers=${TUNE_PEERS-optuna-gp optuna-tpe optuna-cmaes ax hebo smac}
slow=" ${TUNE_SLOW-ax hebo smac} "
slow_tasks=" ${TUNE_SLOW_TASKS-hpobench_vehicle hpolib_slice_localization bbob_f08 bbob_f15 bbob_f21} "
export GOMAXPROCS=${TUNE_JOBS:-$(nproc)}
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

say() { printf '\n== %s\n' "$*" >&2; }

# requirements PEER is the file that names what it needs.
requirements() {
  case "$1" in
    hebo) echo "$root/test/peers/hebo.txt" ;;
    smac) echo "$root/test/peers/smac.txt" ;;
    *) echo "$root/test/peers/requirements.txt" ;;
  esac
}

# environment PEER prints the Python that has it. An environment is made once, and again
# when its requirements change.
environment() {
  local needs venv
  needs=$(requirements "$1")
  venv=$out/venv/$(basename "$needs" .txt)
  if ! cmp -s "$needs" "$venv/installed.txt"; then
    say "installing $(basename "$needs")"
    rm -rf "$venv"
    "${TUNE_PYTHON:-/usr/bin/python3}" -m venv "$venv" && "$venv/bin/pip" install -q -r "$needs" >&2 && cp "$needs" "$venv/installed.txt" || return 1
  fi
  echo "$venv/bin/python"
}

# bench NAME RESULT ARGS... measures a sampler or peer, unless the result is there: of the same
# command, and for Clary's samplers of the same version.
bench() {
  local name=$1 result=$2 who asked
  shift 2
  if [[ " $peers " == *" $name "* ]]; then
    who=(--program "$python $root/test/peers/peer.py $name" --seeds "${TUNE_PEER_SEEDS:-5}")
    asked="${who[*]} $*"
  else
    who=(--sampler "$name" --seeds "${TUNE_SEEDS:-20}")
    asked="${who[*]} $* $("$clary" --version)"
  fi
  [ -s "$result" ] && [ "$(cat "$result.asked")" = "$asked" ] && return
  mkdir -p "$(dirname "$result")"
  rm -f "$result"
  if "$clary" tune bench "${who[@]}" "$@" -o json >"$result.part" 2>"$result.log"; then
    echo "$asked" >"$result.asked"
    mv "$result.part" "$result" && rm "$result.log"
  else
    echo "$name: $(basename "$result" .json) was not measured: $result.log ends with: $(tail -n 1 "$result.log")" >&2
    rm "$result.part"
  fi
}

# families prints what is measured in one go: a name and its tasks, a line each.
families() {
  local file family
  if [[ $parts == *" tables "* && -d ${TUNE_TABLES:-} ]]; then
    for file in "$TUNE_TABLES"/*.csv*; do
      file=$(basename "$file" .gz)
      echo "${file%.csv}"
    done | awk -F_ '{ tasks[$1] = tasks[$1] " " $0 } END { for (family in tasks) print family tasks[family] }' | sort
  fi
  [[ $parts == *" bbob "* ]] || return 0
  for family in "separable 1 5" "moderate 6 9" "conditioned 10 14" "multimodal 15 19" "weak 20 24"; do
    echo "bbob-${family%% *} $(seq -s ' ' -f 'bbob_f%02g' ${family#* })"
  done
}

# searches NAME WORKERS measures all tasks, family by family.
searches() {
  local family tasks task some
  while read -r family tasks; do
    some=
    for task in $tasks; do
      [[ $slow == *" $1 "* && $slow_tasks != *" $task "* ]] || some+=",$task"
    done
    [ -n "$some" ] || continue
    local where=(--bbob)
    [[ $family == bbob-* ]] || where=(--tables "$TUNE_TABLES")
    bench "$1" "$out/results/$2/$1/$family.json" "${where[@]}" --only "${some#,}" --trials "${TUNE_TRIALS:-100}" --workers "$2" </dev/null
  done < <(families)
}

parts=" ${TUNE_PARTS-tables bbob cost} "
if [[ $parts == *" tables "* && ! -d ${TUNE_TABLES:-} ]]; then
  say "no tables: TUNE_TABLES names no folder of them, so the functions alone are searched"
fi

for name in $ours $peers; do
  python=
  if [[ " $peers " == *" $name "* ]] && ! python=$(environment "$name"); then
    say "$name is left out: $(requirements "$name") does not install here"
    continue
  fi
  for workers in ${TUNE_WORKERS:-1 8}; do
    say "$name, $workers at once"
    searches "$name" "$workers"
  done
  [[ $parts == *" cost "* ]] || continue
  say "$name, what a suggestion costs"
  for results in ${TUNE_COST-50 200 1000}; do
    bench "$name" "$out/results/cost/$name/$results.json" --cost "$results" --trials "${TUNE_COST_ASKS:-10}"
  done
done

python3 "$root/test/peers/report.py" "$out/results" "$out/report.json"
echo
printf 'machine: %s, %s cores, load %s\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(getconf _NPROCESSORS_ONLN)" "$(cut -d' ' -f1-3 /proc/loadavg)"
