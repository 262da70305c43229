#!/bin/sh
# From a bare Linux machine to a backup that was restored and compared: sh deploy/quickstart.sh [options]
# Makes .venv from pinned, hashed packages (once), then runs `stateward quickstart` with the same options (--help: which).
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/deploy/python-env.sh"
(cd "$root" && make_environment .venv deploy/requirements.txt)
exec "$root/.venv/bin/stateward" quickstart "$@"
