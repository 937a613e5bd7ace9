#!/bin/sh
# Writes the lock files of the images anew from pyproject.toml: sh docker/requirements/compile.sh [uv's options, e.g. --upgrade]
set -eu
cd "$(dirname "$0")/../.."
compile() { uv pip compile --quiet --generate-hashes --python-version 3.12 --no-header --no-emit-index-url "$@"; }
compile pyproject.toml --extra kafka --extra lake -o docker/requirements/cpu.txt "$@"
compile docker/requirements/spark.in -c docker/requirements/cpu.txt -o docker/requirements/spark.txt "$@"
printf 'qiskit-aer-gpu>=0.17.2,<0.19\n' |
    compile pyproject.toml - --extra kafka --extra lake --overrides docker/requirements/gpu.in -o docker/requirements/gpu.txt "$@"
printf 'cryptography>=45\n' | compile - -c docker/requirements/cpu.txt -o docker/requirements/init.txt "$@"
