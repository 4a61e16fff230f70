#!/bin/bash
# Makes two hosts, puts a real model on one, deploys it on the other with site.yml, and asks it a question.
# The argument is where the engine comes from: "package" (minutes) or "source" (a build).
set -euo pipefail
cd "$(dirname "$0")/.."

engine=${1:-package}
model=onprem/gemma-3-270m-GGUF
quant=Q4_K_M
question="What is the capital of France?"
export ANSIBLE_NOCOLOR=1
inventory=(-i demo/inventory.yml -i tests/lab/inventory)
case "$engine" in
  package) ;;
  source)
    archive=$(python tests/models/engine_source.py)
    inventory+=(-e demo_image=trixie -e llama_engine_source=archive -e "@build/demo/engine.yml")
    ;;
  *) echo "demo: ENGINE is package or source, not $engine" >&2; exit 2 ;;
esac

step() { printf '\n-- %s (%s s)\n' "$*" "$SECONDS"; }

if [ -e build/demo/engine-from ] && [ "$(cat build/demo/engine-from)" != "$engine" ]; then
  demo/clean.sh # the other engine's host is of another Debian release
fi
mkdir -p build/demo
echo "$engine" > build/demo/engine-from
if [ "$engine" = source ]; then
  printf '%s\n' "$archive" > build/demo/engine.yml
fi

step "making two hosts with systemd-nspawn; 'make demo-clean' removes them"
ansible-playbook "${inventory[@]}" tests/lab/create.yml > build/demo/create.log || { tail -30 build/demo/create.log; exit 1; }

step "fetching a model: Gemma 3 270M, which comes under the Gemma Terms of Use"
repository=$(python tests/models/gemma.py)

step "serving it from the mirror, as a site would"
ansible-playbook "${inventory[@]}" demo/mirror.yml -e "demo_repository=$repository" > build/demo/mirror.log || { tail -30 build/demo/mirror.log; exit 1; }

step "ansible-playbook site.yml -e model=$model -e quant=$quant"
ansible-playbook "${inventory[@]}" site.yml -e "model=$model" -e "quant=$quant" | tee build/demo/site.log

step "asking: $question"
umask 077
ansible "${inventory[@]}" demo-host -m ansible.builtin.command -a "cat /etc/llamacpp/instances/main/api-keys" --become \
  | grep -vE '^(#|$|demo-host)' | head -1 > build/demo/api-key
url=http://10.77.0.11:8080
mapfile -t said < <(python demo/ask.py "$url" build/demo/api-key "$question")
speed=${said[1]:?the server gave no answer}
echo "${said[0]}"

printf '\nThe plan is in the output above and in build/demo/site.log, the API key in build/demo/api-key (mode 0600).\n'
# shellcheck disable=SC2016 # for the reader's shell to expand
printf 'Ask it yourself:  curl -H "Authorization: Bearer $(cat build/demo/api-key)" %s/v1/models\n' "$url"
printf 'Remove it all:    make demo-clean\n\n'
echo "DEMO OK model=$model quant=$quant tokens_per_second=$speed seconds=$SECONDS url=$url keyfile=$PWD/build/demo/api-key"
