#!/bin/sh
# Finds a Python that acs supports and runs set_up.py with it. Written in sh so that a missing or old Python gives one
# clear line instead of a stack trace. PYTHON=... names one; without it the usual names and places are tried.
set -u

fail() {
    echo "set-up: $*" >&2
    exit 1
}

version_of() {
    "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null
}

venv=""
ros=kilted
option=""
for argument in "$@"; do
    case "$option" in
        --venv) venv=$argument ;;
        --ros) ros=$argument ;;
    esac
    option=$argument
done

# Jazzy's Python is 3.12, and an environment for it should have no other unless PYTHON names one.
how="Ubuntu 24.04, Debian 12: apt install python3 python3-venv python3-dev; elsewhere uv python install 3.12, or pyenv install 3.12"
if [ "$ros" = jazzy ] && [ -z "${PYTHON:-}" ]; then
    needs="ROS Jazzy needs Python 3.12"
    names="python3 python3.12"
    supported() { case "$1" in 3.12.*) ;; *) return 1 ;; esac; }
else
    needs="acs needs Python 3.11 or 3.12"
    names="python3 python3.12 python3.11 python"
    supported() { case "$1" in 3.11.* | 3.12.*) ;; *) return 1 ;; esac; }
fi
how="$how; or name one with PYTHON=/path/to/python3.12"

found=""
try() {
    candidate=$1
    shift
    version=$(version_of "$candidate") || return 0
    [ -n "$version" ] || return 0
    if supported "$version"; then
        exec "$candidate" "${0%/*}/set_up.py" "$@"
    fi
    found="$found${found:+, }$candidate is $version"
}

if [ -n "${PYTHON:-}" ]; then
    try "$PYTHON" "$@"
else
    # An existing environment keeps the Python that it was created with, even if that has an unusual name.
    if [ -n "$venv" ] && [ -f "$venv/.acs/python" ] && read -r made_with <"$venv/.acs/python"; then
        try "$made_with" "$@"
    fi
    for name in $names; do
        try "$name" "$@"
    done
    # Where uv and pyenv put the Pythons that they install, which need not be in PATH. No match leaves the pattern.
    for folder in "${UV_PYTHON_INSTALL_DIR:-${HOME:-}/.local/share/uv/python}" "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions"; do
        for name in "$folder"/*3.12*/bin/python3.12 "$folder"/*3.11*/bin/python3.11; do
            [ -x "$name" ] && try "$name" "$@"
        done
    done
fi
if [ -n "$found" ]; then
    fail "$needs, but $found: $how"
elif [ -n "${PYTHON:-}" ]; then
    fail "PYTHON=$PYTHON does not run: $how"
fi
fail "no Python found: $needs: $how"
