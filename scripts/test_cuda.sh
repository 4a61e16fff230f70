#!/bin/bash
# Compiles llama.cpp for CUDA on this machine, which needs no GPU: the compiler comes from pinned wheels, by the role cuda_toolkit.
#   scripts/test_cuda.sh objects   configures llama.cpp and compiles two CUDA objects; the role llama_engine makes a release of a
#                                  small program that links what llama.cpp links: two minutes, and 2 GB in the cache
#   scripts/test_cuda.sh small     the second half of that
#   scripts/test_cuda.sh full      the role llama_engine builds it all for one architecture, links it and asks it: an hour or more.
#                                  Interrupted, it goes on where it was, by the compiler cache.
set -euo pipefail
cd "$(dirname "$0")/.."

folder="$ONPREM_LLAMACPP_CACHE/cuda"
python tests/cuda/wheels.py > /dev/null

objects() {
  local source="$folder/source" work
  ansible-playbook -i localhost, tests/cuda/toolkit.yml -e "cuda_folder=$folder"
  "$folder/13.0.2/bin/nvcc" --version | tail -n 2
  python tests/cuda/limits.py "$folder/13.0.2" 13.0
  if [ ! -d "$source" ]; then
    python tests/cuda/source.py "$source"
  fi
  work=$(mktemp -d)
  # shellcheck disable=SC2064 # the folder of now
  trap "rm -rf '$work'" EXIT
  local options
  mapfile -t options < "$folder/cmake-options"
  # Without the compiler cache, so that something is compiled every time.
  cmake -S "$source" -B "$work" -G Ninja "${options[@]}" -DGGML_CCACHE=OFF > "$work/configure.log" 2>&1 \
    || { tail -n 40 "$work/configure.log"; return 1; }
  cmake --build "$work" --target ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/{scale,out-prod}.cu.o
  for object in scale out-prod; do
    readelf --sections --wide "$work/ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/$object.cu.o" > "$work/sections"
    grep -q nv_fatbin "$work/sections" || { echo "$object.cu.o has no code for a GPU"; return 1; }
  done
  echo "2 CUDA objects compiled"
}

# A release by the role llama_engine, from an archive that a file tells of in JSON.
release() {
  ansible-playbook -i localhost, tests/cuda/build.yml -e "cuda_folder=$folder" -e "cuda_engine=$1" -e "cuda_source=$2"
}

small() {
  local work="$folder/small"
  rm -rf "$work"
  mkdir -p "$work"
  tar --create --gzip --file "$work/engine.tar.gz" --directory tests/cuda engine
  printf '{"url": "%s", "sha256": "%s", "folder": "engine"}' "$work/engine.tar.gz" \
    "$(sha256sum "$work/engine.tar.gz" | cut -d ' ' -f 1)" > "$work/archive.json"
  release small "$work/archive.json"
  rm -rf "$work"
}

full() {
  python tests/models/engine_source.py | python -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["llama_engine_archive"]))' \
    > "$folder/archive.json"
  release engine "$folder/archive.json"
}

case "${1:-objects}" in
  objects) objects; small ;;
  small) small ;;
  full) full ;;
  *) echo "usage: $0 [objects|small|full]" >&2; exit 2 ;;
esac
