#!/bin/bash
# Runs the jobs named, or all of them, two side by side. A job is a stage (lint unit browser sanity package cuda lab) or a scenario
# of molecule/; "molecule" is all scenarios. One job alone speaks here, of several each has its log in build/test/.
# "full" adds what takes longer and writes build/full.json.
# What is made once and kept (images, engines, models, sanity environments) lies in $ONPREM_LLAMACPP_CACHE.
set -euo pipefail
cd "$(dirname "$0")/.."

stages=(unit lint sanity package cuda browser lab)
scenarios=(default plan weights driver engine switch server front airgap)
# The scenario "default" builds the engine that others find in the cache; these do without it.
bring_their_own=" default plan weights driver "

say() { printf '== %s (%s s since the start)\n' "$*" "$SECONDS"; }

# A copy without links and version control: what a user installs, and what ansible-test accepts.
installed_copy() {
  ansible-galaxy collection build --force --output-path "$1/dist" . > /dev/null
  ANSIBLE_COLLECTIONS_PATH="$1" ansible-galaxy collection install --force --no-deps -p "$1" "$1"/dist/onprem-llamacpp-*.tar.gz > /dev/null
}

# Style, types, and whether generated documents are what they are made from.
lint() {
  ruff check .
  ruff format --check .
  mypy plugins/{module_utils,plugin_utils,modules,filter,action,callback} roles/llama_server/files/llamacpp_{switch,tuning.py} roles/nvidia_driver/files/cuda_probe.py
  grep -lErI '^#!/bin/(ba)?sh' scripts demo tests/lab/files | xargs shellcheck --external-sources --source-path=SCRIPTDIR
  ansible-lint --offline --profile production
  python scripts/role_docs.py --check
}

unit() {
  python -m pytest -q tests/unit
}

# The fleet's page in a headless Chromium.
browser() {
  python -m pytest -q -m browser tests/browser
}

sanity() {
  local home="$ONPREM_LLAMACPP_CACHE/ansible-test" copy
  copy=$(mktemp -d)
  mkdir -p "$home/.ansible/test/cache"
  # ansible-test fetches get-pip from a host of its own; Python's ensurepip does the same without it.
  cp scripts/ensure_pip.py "$home/.ansible/test/cache/get_pip_24_2.py"
  installed_copy "$copy"
  (cd "$copy/ansible_collections/onprem/llamacpp" && HOME="$home" ansible-test sanity --python 3.11 --color no) 2>&1 | grep -vE '^(Collecting|  Downloading|Installing|Using cached|Successfully|Requirement)'
  rm -rf "$copy"
}

# A clone and an installed tarball plan a host, as a normal user too.
package() {
  scripts/test_package.sh
}

# The compiler from wheels, two objects of llama.cpp, a release that carries what it links.
cuda() {
  scripts/test_cuda.sh objects
}

# Hosts made, shaped, cut, crashed and removed.
lab() {
  python -m pytest -q -m lab tests/lab
}

source_demo() { # the engine built from an archive
  demo/run.sh source
  demo/clean.sh
}

alone() {
  if declare -F "$1" > /dev/null; then
    "$1"
  else
    COLUMNS=200 molecule test --scenario-name "$1"
  fi
}

wait_for_the_engine() {
  case "$bring_their_own ${stages[*]} " in *" $1 "*) return ;; esac
  case " ${jobs[*]} " in
    *" default "*) until [ -e "$logs/default.ended" ]; do sleep 2; done ;;
  esac
}

# Takes jobs that nobody has taken yet, one after the other, until none is left or one has failed, here or there.
take() {
  local job began
  for job in "${jobs[@]}"; do
    [ ! -s "$logs/failed" ] || return 0
    mkdir "$logs/$job.taken" 2> /dev/null || continue
    wait_for_the_engine "$job"
    [ ! -s "$logs/failed" ] || return 0
    say "$job: $logs/$job.log"
    began=$SECONDS
    if scripts/test.sh "$job" > "$logs/$job.log" 2>&1; then
      say "$job passed in $((SECONDS - began)) s $(grep -aoE '[0-9]+ (passed|skipped).* in [0-9.]+' "$logs/$job.log" | tail -n 1 || true)"
      printf '"%s": %s\n' "$job" "$((SECONDS - began))" >> "$logs/passed"
    else
      say "$job failed; the end of $logs/$job.log:"
      tail -n 200 "$logs/$job.log"
      echo "$job" >> "$logs/failed"
    fi
    touch "$logs/$job.ended"
  done
}

side_by_side() {
  local job other
  rm -rf "$logs"
  mkdir -p "$logs"
  # Jobs wait in turns, for hosts that boot and for packages, so two run side by side.
  take &
  other=$!
  take
  wait "$other"
  [ -s "$logs/failed" ] || return 0
  # What both say is mixed, so what failed stands once more at the end, without molecule's colours and frame.
  while read -r job; do
    say "what failed in $job:"
    sed -E 's/\x1b\[[0-9;]*m//g; s/^ *│ ?//' "$logs/$job.log" \
      | grep -aE '^(E  |FAILED|ERROR|fatal:|\[ERROR\])' | cut -c 1-1000 | tail -n 40 || true
  done < "$logs/failed"
  return 1
}

logs=build/test
mkdir -p build "$ONPREM_LLAMACPP_CACHE"
# The longest come first, and what needs no engine stands before what does.
jobs=("${scenarios[@]:0:4}" "${stages[@]}" "${scenarios[@]:4}")
report=""
case "${1:-}" in
  "") ;;
  molecule) jobs=("${scenarios[@]}") ;;
  full)
    export FUZZ_EXAMPLES=100000 EVERY_COMBINATION=1 KILLS=30 SWITCHES=1000 LOAD_SECONDS=300 FULL=1
    jobs+=(source_demo)
    report=build/full.json
    ;;
  *)
    if [ $# -eq 1 ]; then
      alone "$1"
      exit
    fi
    # What builds the engine comes before what waits for it.
    case " $* " in *" default "*) jobs=(default) ;; *) jobs=() ;; esac
    for job in "$@"; do [ "$job" = default ] || jobs+=("$job"); done
    ;;
esac
side_by_side
if [ -n "$report" ]; then
  printf '{"commit": "%s", "passed": true, "seconds": {%s}}\n' "$(git rev-parse HEAD)" "$(paste -sd, "$logs/passed")" > "$report"
fi
say "all passed: ${jobs[*]}"
