# Makes a Python environment of pinned, hashed packages; read by quickstart.sh and tests/run.sh with `.`
#
#     make_environment FOLDER REQUIREMENTS
#
# leaves a working environment in FOLDER (a path in the repository's root, which is the current folder) with REQUIREMENTS
# and the project installed. A stamp inside, written last, holds the hash of everything that went in: the same stamp
# means that nothing is to be done, any other or none that the environment is made anew. So an install that was
# interrupted leaves nothing to repair by hand.
# shellcheck shell=sh

say() { printf '%s\n' "$*" >&2; }

# fail SENTENCE NEXT-STEP
fail() {
    say "$1"
    say "$2"
    exit "${3:-1}"
}

# Prints a Python of at least 3.11: $PYTHON when it is set, else the newest found.
find_python() {
    old=
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON" # a path may hold spaces; the one that was named, and no other
    else
        set -- python3.13 python3.12 python3.11 python3 python
    fi
    for candidate in "$@"; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        found=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2], sys.version_info >= (3, 11))' 2>/dev/null) ||
            continue # a pyenv shim without that version behind it
        case $found in
        *True)
            printf '%s\n' "$candidate"
            return 0
            ;;
        esac
        old=${old:-"$candidate is Python ${found%% *}"}
    done
    if [ -n "$old" ]; then
        fail "Python 3.11 or newer is needed, and $old." \
            "Install Python 3.11 or newer (Debian, Ubuntu: apt install python3.11 python3.11-venv), or name one: PYTHON=/path/to/python3." 2
    fi
    fail "Python 3.11 or newer is needed, and no ${PYTHON:-python3} was found." \
        "Install Python 3.11 or newer (Debian, Ubuntu: apt install python3 python3-venv), or name one: PYTHON=/path/to/python3." 2
}

# The hash of everything the environment depends on.
stamp_of() {
    "$1" -c 'import hashlib, os, sys
seen = hashlib.sha256()
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        seen.update(file.read())
print(seen.hexdigest(), "%d.%d.%d" % sys.version_info[:3], os.getcwd())' "$2" pyproject.toml deploy/python-env.sh
}

# explain LOG: what an install's failure means, in a sentence, then what to do.
explain() {
    if grep -qi -e 'no space left' -e 'disk quota exceeded' -e 'errno 28' "$1"; then
        fail "The disk is full: the packages need about 1 GB in $(pwd)." "Free space there and run this again." 4
    elif grep -qi -e 'ensurepip is not' -e 'no module named.*ensurepip' -e 'no module named.*venv' "$1"; then
        version=$("$2" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        fail "This Python ($2, $version) cannot make environments: its module venv is not complete." \
            "Install it (Debian, Ubuntu: apt install python$version-venv; as root) and run this again." 2
    elif grep -qi -e 'permission denied' -e 'read-only file system' "$1"; then
        fail "The environment cannot be written in $(pwd)." "Run this as the owner of that folder, or in a copy of your own." 2
    elif grep -qi -e 'do not match the hashes' "$1"; then
        fail "A package that the index gave does not have the hash in the list." "Do not install it; run this again elsewhere, and tell the maintainers." 7
    elif grep -qi -e 'from versions: none' -e 'connection' -e 'name resolution' -e 'timed out' -e 'max retries' -e 'ssl' -e 'proxy' "$1"; then
        fail "The package index cannot be reached, or has no file for this machine (Linux with glibc on x86_64 or aarch64)." \
            "Check the network (and the settings of pip: proxy, index, certificates), and run this again." 6
    elif grep -qi -e 'no matching distribution' -e 'could not find a version' "$1"; then
        grep -i -m 1 -e 'no matching distribution' -e 'could not find a version' "$1" >&2
        fail "The package index has no file of this package for this machine." \
            "stateward runs on Linux (glibc 2.28 or newer) on x86_64 and aarch64 with Python 3.11 to 3.13." 6
    fi
    tail -n 15 "$1" >&2
    fail "The packages could not be installed; the last lines above say why." "Correct that and run this again." 1
}

make_environment() {
    folder=$1
    requirements=$2
    stamp=$folder/.stateward-stamp
    # The environment's own Python knows whether it is complete, so that a second run needs no other and takes no time.
    if [ -f "$stamp" ] && [ -x "$folder/bin/python" ] &&
        [ "$(stamp_of "$folder/bin/python" "$requirements" 2>/dev/null)" = "$(cat "$stamp")" ]; then
        return 0
    fi
    python=$(find_python) || exit $?
    free_kib=$(df -Pk . | awk 'NR == 2 { print $4 }')
    if [ "${free_kib:-1048576}" -lt 1048576 ]; then
        fail "The disk is nearly full: $((free_kib / 1024)) MiB are free in $(pwd), and the packages need about 1 GB." \
            "Free space there and run this again." 4
    fi
    say "Making the environment $folder with $("$python" -V 2>&1); this is done once and takes a minute or two."
    log=$(mktemp "${TMPDIR:-/tmp}/stateward-install.XXXXXX") ||
        fail "No temporary file can be made in ${TMPDIR:-/tmp}." "Free space there, or set TMPDIR." 4
    trap 'rm -f "$log"' EXIT
    trap 'rm -f "$log"; say "Interrupted; the next run begins the installation anew."; exit 9' INT TERM HUP
    {
        rm -rf "$folder" && "$python" -m venv "$folder" &&
            "$folder/bin/python" -m pip --disable-pip-version-check install --quiet --no-input --require-hashes --no-deps \
                --only-binary :all: -r "$requirements" &&
            "$folder/bin/python" -m pip --disable-pip-version-check install --quiet --no-input --no-index --no-deps \
                --no-build-isolation -e .
    } >"$log" 2>&1 || explain "$log" "$python"
    stamp_of "$folder/bin/python" "$requirements" >"$stamp.new" && mv "$stamp.new" "$stamp" ||
        fail "The environment cannot be written in $(pwd)." "Free space there and run this again." 4
    trap - EXIT INT TERM HUP
    rm -f "$log"
}
