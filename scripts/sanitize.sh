#!/usr/bin/env bash
# Build the extension with ASan + UBSan (AVX-512 through SIMDe) and run tests/kernels on it.   usage: sanitize.sh BUILD_DIR
#
# The editable install of .venv must not win over this build. So the interpreter below .venv runs, with .venv's packages on
# PYTHONPATH (there, no .pth file is read) after an overlay: links to the Python sources and the sanitized extension.
set -euo pipefail
build=$PWD/$1
venv=$PWD/.venv
overlay=$build/overlay
export PATH="$venv/bin:$PATH"

cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DPython_EXECUTABLE="$venv/bin/python" \
    -DQWICK_SANITIZE=ON -DQWICK_EMULATE_AVX512=ON
cmake --build "$build"
rm -rf "$overlay"
mkdir -p "$overlay/qwick"
ln -s "$PWD"/src/qwick/* "$overlay/qwick/"
cmake --install "$build" --prefix "$overlay"

read -r python packages < <("$venv/bin/python" -c 'import sys, sysconfig; print(sys._base_executable, sysconfig.get_path("purelib"))')
compiler=${CXX:-c++}
# libstdc++ too: python does not link it, and ASan looks for __cxa_throw when it starts.
preload="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libstdc++.so)"
# Leaks are not looked for: the interpreter itself keeps memory to its end. --capture=sys lets the sanitizers' reports through.
LD_PRELOAD=$preload PYTHONPATH=$overlay:$packages QWICK_SANITIZED=1 \
    ASAN_OPTIONS=detect_leaks=0:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 \
    "$python" -S -m pytest -m "not slow" -p no:cacheprovider --capture=sys tests/kernels
