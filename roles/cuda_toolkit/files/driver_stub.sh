#!/bin/sh
# Makes a library with the names of NVIDIA's driver library, of which every function says CUDA_ERROR_STUB_LIBRARY.
# usage: driver_stub.sh FOLDER_WITH_CUDA_H TARGET
set -eu
umask 022
folder=$(dirname "$2")
mkdir -p "$folder"
work=$(mktemp -d "$folder/.stub-XXXXXX")
trap 'rm -rf "$work"' EXIT

# Preprocessed, because the header gives some functions other names by macros.
echo '#include <cuda.h>' | cc -E -P -I "$1" - | tr '\n' ' ' | grep -o 'CUresult *cu[A-Z][A-Za-z0-9_]* *(' \
  | sed 's/^CUresult *\([A-Za-z0-9_]*\).*/int \1(void) { return 34; }/' | sort -u > "$work/stub.c"
grep -q cuInit "$work/stub.c" || { echo "$1/cuda.h names no functions" >&2; exit 1; }
cc -shared -fPIC -fno-builtin -Wl,-soname,libcuda.so.1 -o "$work/libcuda.so.1" "$work/stub.c"
mv "$work/libcuda.so.1" "$2"
