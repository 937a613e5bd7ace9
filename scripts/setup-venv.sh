#!/bin/sh
# Makes the virtual environment $1 and installs this checkout with the extras in $2, by uv when it is there, else by pip.
set -eu
venv=$1 what=$2

suits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if [ ! -x "$venv/bin/python" ]; then
    python=
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 && suits "$candidate"; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "Python 3.11 or newer is needed and none was found (set PYTHON=/path/to/python3)" >&2
        exit 2
    fi
    if command -v uv >/dev/null 2>&1; then
        uv venv --quiet --python "$python" "$venv"
    else
        "$python" -m venv "$venv"
    fi
fi

echo "Installing $what into $venv (about a minute the first time) ..." >&2
# uv compiles nothing unless it is told to, and where PYTHONDONTWRITEBYTECODE is set each process would compile all it imports.
if command -v uv >/dev/null 2>&1; then
    uv pip install --quiet --compile-bytecode --python "$venv/bin/python" -e "$what"
else
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$what"
fi

# The kernels of the engines are compiled by the first run that needs them: here, not while somebody waits for an energy. Nothing is
# written but the compiled kernels.
"$venv/bin/python" - <<'PYTHON' || echo "the kernels are not compiled yet: the first run does that" >&2
from simulator import load_molecule, make_spec, run_vqe

for molecule, options in (
    ("lih", {}),
    ("lih", {"engine": "statevector"}),
    ("h2", {"ansatz": "efficient_su2", "max_iterations": 3}),
    ("h2", {"shots": 100, "optimizer": "cobyla", "max_iterations": 1}),
):
    run_vqe(make_spec(load_molecule(molecule), **options))
PYTHON
