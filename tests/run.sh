#!/bin/sh
# Runs everything that says whether this tree is sound: linters, types, layers, tests.
#
#     sh tests/run.sh [--all] [arguments of pytest]
#
# --all also runs the tests marked `rig`. It makes its own environment, .test-venv, from pinned, hashed packages (once).
# Everything runs although something failed before; pytest is last, and its closing line the last that is printed.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
. deploy/python-env.sh

marks='not rig'
if [ "${1:-}" = --all ]; then
    marks=
    shift
fi
make_environment .test-venv tests/requirements.txt

bin=$(pwd)/.test-venv/bin
failed=
step() { # step NAME COMMAND...
    name=$1
    shift
    printf '%s\n' "── $name"
    "$@" || failed="$failed, $name"
}
step 'ruff check' "$bin/ruff" check --quiet --output-format concise .
step 'ruff format' "$bin/ruff" format --check --quiet .
step 'mypy on linux' "$bin/mypy" --no-error-summary --platform linux
step 'mypy on win32' "$bin/mypy" --no-error-summary --platform win32
step 'lint-imports' "$bin/lint-imports"

[ -z "$failed" ] || printf '%s\n' "Failed so far: ${failed#, } (see above); the tests follow."
printf '%s\n' '── pytest'
"$bin/python" -m pytest ${marks:+-m "$marks"} --ignore=tests/bench "$@" || failed="$failed, pytest"
[ -z "$failed" ]
