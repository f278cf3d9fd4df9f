#!/usr/bin/env bash
# Say what is missing to build qwick, and how to get it.   usage: check_tools.sh PYTHON
set -euo pipefail
python=$1
problems=0

missing() {
    printf 'qwick: %s\n       remedy: %s\n' "$1" "$2" >&2
    problems=1
}

if ! command -v "$python" >/dev/null; then
    missing "$python is not installed" "apt install python3 python3-venv python3-dev   (or: make PYTHON=/path/to/python3.11 …)"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    missing "$("$python" --version) is too old, 3.11 or newer is needed" "make PYTHON=/path/to/a/newer/python …"
else
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        missing "$python cannot make virtual environments" "apt install python3-venv"
    header=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h
    [ -f "$header" ] || missing "the headers of $python are missing ($header)" "apt install python3-dev"
fi

compiler=${CXX:-c++}
if ! command -v "$compiler" >/dev/null; then
    missing "there is no C++ compiler ($compiler)" "apt install g++   (or set CXX to a C++17 compiler)"
elif ! echo 'int main() { if (int a = 0; a) {} }' | "$compiler" -std=c++17 -x c++ -fsyntax-only - 2>/dev/null; then
    missing "$compiler does not compile C++17" "apt install g++   (version 10 or newer)"
fi

# cmake and ninja are not looked for: they come with the Python build requirements.
exit "$problems"
