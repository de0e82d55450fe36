#!/bin/sh
# Finds a Python that acs runs on and hands over to set_up.py. Written in sh so that a missing or an old Python is
# answered with one clear line instead of a stack trace. PYTHON=... names one; without it the usual names are tried.
set -u

fail() {
    echo "set-up: $*" >&2
    exit 1
}

version_of() {
    "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null
}

how="install python3.12 or python3.11 (Debian, Ubuntu: apt install python3 python3-venv python3-dev), or name one with PYTHON=/path/to/python3.12"
found=""
try() {
    candidate=$1
    shift
    version=$(version_of "$candidate") || return 0
    case "$version" in
        3.11.* | 3.12.*) exec "$candidate" "${0%/*}/set_up.py" "$@" ;;
        ?*) found="$found${found:+, }$candidate is $version" ;;
    esac
}

if [ -n "${PYTHON:-}" ]; then
    try "$PYTHON" "$@"
else
    # An environment is kept with the Python that it was made with, even where that one has no usual name.
    if [ "${1:-}" = --venv ] && [ -f "$2/.acs/python" ] && read -r made_with <"$2/.acs/python"; then
        try "$made_with" "$@"
    fi
    for name in python3 python3.12 python3.11 python; do
        try "$name" "$@"
    done
fi
if [ -n "$found" ]; then
    fail "acs needs Python 3.11 or 3.12, but $found: $how"
elif [ -n "${PYTHON:-}" ]; then
    fail "PYTHON=$PYTHON does not run: $how"
fi
fail "no Python found, and acs needs 3.11 or 3.12: $how"
