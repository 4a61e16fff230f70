#!/bin/bash
# Runs the stages named, or all of them: lint unit browser sanity package cuda lab molecule. The first failure ends the run.
# "full" adds what takes longer and writes build/full.json.
# What is made once and kept (images, engines, models, sanity environments) lies in $ONPREM_LLAMACPP_CACHE.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s (%s s since the start)\n' "$*" "$SECONDS"; }

# A copy without links and version control: what a user installs, and what ansible-test accepts.
installed_copy() {
  ansible-galaxy collection build --force --output-path build . > /dev/null
  rm -rf "$1"
  ANSIBLE_COLLECTIONS_PATH="$1" ansible-galaxy collection install --force --no-deps -p "$1" build/onprem-llamacpp-*.tar.gz > /dev/null
}

lint() {
  say "lint: ruff, mypy, ansible-lint, generated documents"
  ruff check .
  ruff format --check .
  mypy plugins/module_utils plugins/plugin_utils plugins/filter plugins/action roles/llama_server/files/llamacpp_switch roles/llama_server/files/llamacpp_tuning.py
  ansible-lint --offline --profile production
  python scripts/role_docs.py --check
}

unit() {
  say "unit: pytest"
  python -m pytest -q tests/unit
}

browser() {
  say "browser: the fleet's page in a headless Chromium"
  python -m pytest -q -m browser tests/browser
}

sanity() {
  say "sanity: ansible-test in an installed copy"
  local home="$ONPREM_LLAMACPP_CACHE/ansible-test" copy
  copy=$(mktemp -d)
  mkdir -p "$home/.ansible/test/cache"
  # ansible-test fetches get-pip from a host of its own; Python's ensurepip does the same without it.
  cp scripts/ensure_pip.py "$home/.ansible/test/cache/get_pip_24_2.py"
  installed_copy "$copy"
  (cd "$copy/ansible_collections/onprem/llamacpp" && HOME="$home" ansible-test sanity --python 3.11 --color no) 2>&1 | grep -vE '^(Collecting|  Downloading|Installing|Using cached|Successfully|Requirement)'
  rm -rf "$copy"
}

package() {
  say "package: a clone and an installed tarball plan a host, as a normal user too"
  scripts/test_package.sh
}

cuda() {
  say "cuda: the compiler from wheels, two objects of llama.cpp, a release that carries what it links"
  scripts/test_cuda.sh objects
}

lab() {
  say "lab: hosts made, shaped, cut, crashed and removed"
  python -m pytest -q -m lab tests/lab
}

# Takes scenarios that nobody has taken yet, one after the other, until none is left or one fails.
take() {
  local scenario log
  for scenario in "${scenarios[@]}"; do
    mkdir "build/molecule/$scenario" 2> /dev/null || continue
    case " $bring_their_own " in
      *" $scenario "*) ;;
      *) until [ -e build/molecule/default/ended ]; do sleep 2; done ;;
    esac
    log="build/molecule-$scenario.log"
    say "molecule: scenario $scenario on lab hosts, see $log"
    if COLUMNS=200 command molecule test --scenario-name "$scenario" > "$log" 2>&1; then
      touch "build/molecule/$scenario/ended"
      say "molecule: scenario $scenario passed: $(grep -aoE '=+ .*(passed|failed).* =+' "$log" | tail -n 1)"
    else
      touch "build/molecule/$scenario/ended" "build/molecule/$scenario/failed"
      say "molecule: scenario $scenario failed; the end of $log:"
      tail -n 200 "$log"
      return 1
    fi
  done
}

molecule() {
  # The longest come first. The scenario "default" builds the engine that others find in the cache; these do without it.
  local scenarios=(default plan weights switch server front airgap) bring_their_own="default plan weights driver"
  local first failed=0 scenario
  if [ -n "${FULL:-}" ]; then
    scenarios+=(engine driver)
  fi
  rm -rf build/molecule
  mkdir build/molecule
  # Hosts mostly wait, so two run side by side.
  take &
  first=$!
  take || failed=1
  wait "$first" || failed=1
  # What both say is mixed, so what failed stands once more at the end.
  for scenario in "${scenarios[@]}"; do
    if [ -e "build/molecule/$scenario/failed" ]; then
      say "molecule: what failed in $scenario:"
      # Without molecule's colours and frame.
      sed -E 's/\x1b\[[0-9;]*m//g; s/^ *│ ?//' "build/molecule-$scenario.log" \
        | grep -aE '^(E  |FAILED|ERROR|fatal:|\[ERROR\])' | cut -c 1-1000 | tail -n 40 || true
    fi
  done
  return "$failed"
}

source_demo() {
  say "source demo: the engine built from an archive"
  demo/run.sh source
  demo/clean.sh
}

mkdir -p build "$ONPREM_LLAMACPP_CACHE"
all=(lint unit browser sanity package cuda lab molecule)
report=""
case "${1:-}" in
  "") set -- "${all[@]}" ;;
  full)
    export FUZZ_EXAMPLES=100000 EVERY_COMBINATION=1 KILLS=30 SWITCHES=30 FULL=1
    set -- "${all[@]}" source_demo
    report=build/full.json
    ;;
esac
seconds=""
for stage in "$@"; do
  began=$SECONDS
  "$stage"
  seconds="$seconds${seconds:+, }\"$stage\": $((SECONDS - began))"
done
if [ -n "$report" ]; then
  printf '{"commit": "%s", "passed": true, "seconds": {%s}}\n' "$(git rev-parse HEAD)" "$seconds" > "$report"
fi
say "all stages passed: $*"
