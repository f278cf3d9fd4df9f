#!/usr/bin/env bash
# Build the extension with AVX-512, VNNI and AMX emulated and run every test that forces them: for CPUs without.   usage: … BUILD_DIR
set -euo pipefail
source scripts/build_overlay.sh
build_overlay "$1" -DCMAKE_BUILD_TYPE=Release -DQWICK_EMULATE=ON
"$python" -S -m pytest -m "not slow" -k "avx512 or vnni or amx" -p no:cacheprovider tests/kernels tests/ops tests/parity tests/engine/test_bitwise.py
