#!/usr/bin/env bash
# Build the extension with ASan + UBSan (AVX-512, VNNI and AMX emulated) and run the kernels' tests on it.   usage: sanitize.sh BUILD_DIR
set -euo pipefail
source scripts/build_overlay.sh
build_overlay "$1" -DCMAKE_BUILD_TYPE=Debug -DQWICK_SANITIZE=ON -DQWICK_EMULATE=ON

compiler=${CXX:-c++}
# libstdc++ too: python does not link it, and ASan looks for __cxa_throw when it starts.
preload="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libstdc++.so)"
# Leaks are not looked for: the interpreter itself keeps memory to its end. --capture=sys lets the sanitizers' reports through.
LD_PRELOAD=$preload QWICK_SANITIZED=1 \
    ASAN_OPTIONS=detect_leaks=0:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 \
    "$python" -S -m pytest -m "not slow" -p no:cacheprovider --capture=sys tests/kernels tests/ops/test_native_bitwise.py
