#!/usr/bin/env bash
# Builds the llama.cpp that we compare with: the one vendored in the sdist of llama-cpp-python 0.3.36.
#
#   benchmarks/peers/build.sh DIR [plain|amx|both]      default: both where the CPU has AMX, else plain
#
# plain: for this CPU, AMX code left out. amx: with it. Results in DIR/plain/bin and DIR/amx/bin: llama-quantize, llama-bench,
# llama-server, llama-completion and the shared libraries; sources in DIR/llama.cpp. Takes some minutes a build.
#
# GCC 12 drops the stores that fill the tile configuration before _tile_loadconfig reads it (its intrinsic claims to read 8
# bytes), and AMX builds of llama.cpp die of SIGILL: both builds get a compiler barrier there, which changes nothing else.
set -euo pipefail

VERSION=0.3.36
SHA256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
COMMIT=0c1e57098bba43ac29e6e3b677cdceebdd22334f # of llama.cpp, for the record

[[ $# -ge 1 ]] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
which=${2:-$(grep -qw amx_int8 /proc/cpuinfo && echo both || echo plain)}
jobs=${JOBS:-$(nproc)}

archive=$dir/llama_cpp_python-$VERSION.tar.gz
if [[ ! -f $archive ]]; then
    python3 -m pip download --quiet --no-deps --no-binary :all: --dest "$dir" "llama-cpp-python==$VERSION"
fi
echo "$SHA256  $archive" | sha256sum --check --quiet

source=$dir/llama.cpp
if [[ ! -d $source ]]; then
    tar -xzf "$archive" -C "$dir"
    mv "$dir/llama_cpp_python-$VERSION/vendor/llama.cpp" "$source"
    rm -rf "$dir/llama_cpp_python-$VERSION" "$source/.git" # a link to what is no longer there
    sed -i 's|^    _tile_loadconfig(&tc);|    asm volatile("" :: "r"(\&tc) : "memory");\n&|' "$source/ggml/src/ggml-cpu/amx/mmq.cpp"
    grep -q 'asm volatile("" :: "r"(&tc)' "$source/ggml/src/ggml-cpu/amx/mmq.cpp"
    echo "$COMMIT" > "$source/COMMIT"
fi

fail() {
    tail -20 "$dir/$1.log" >&2
    exit 1
}

build() { # name, compiler flags
    cmake -S "$source" -B "$dir/$1" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DCMAKE_C_FLAGS="$2" -DCMAKE_CXX_FLAGS="$2" \
        -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_UI=OFF > "$dir/$1.log" 2>&1 || fail "$1"
    cmake --build "$dir/$1" -j "$jobs" --target llama-quantize llama-bench llama-server llama-completion >> "$dir/$1.log" 2>&1 || fail "$1"
    echo "$1: $dir/$1/bin ($("$dir/$1/bin/llama-completion" --version 2>&1 | head -1))"
}

# -U also undoes what -march=native predefines, whatever their order.
if [[ $which != amx ]]; then build plain "-U__AMX_TILE__ -U__AMX_INT8__ -U__AMX_BF16__"; fi
if [[ $which != plain ]]; then build amx ""; fi
