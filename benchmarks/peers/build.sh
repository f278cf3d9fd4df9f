#!/usr/bin/env bash
# Builds the llama.cpp that we compare with: the one vendored in the sdist of llama-cpp-python 0.3.36.
#
#   benchmarks/peers/build.sh DIR [plain|amx|avx2]...      default: all three
#
# plain: for this CPU, AMX code left out. amx: with it (skipped where the CPU has none). avx2: what a CPU without AVX-512
# and VNNI runs. Results in DIR/VARIANT/bin: llama-bench, llama-batched-bench, llama-quantize, llama-server,
# llama-completion and the shared libraries; sources in DIR/llama.cpp. Takes some minutes a build; JOBS=N for fewer cores.
#
# GCC 12 drops the stores that fill the tile configuration before _tile_loadconfig reads it (its intrinsic claims to read 8
# bytes), and AMX builds of llama.cpp die of SIGILL: all builds get a compiler barrier there, which changes nothing else.
set -euo pipefail

VERSION=0.3.36
SHA256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
COMMIT=0c1e57098bba43ac29e6e3b677cdceebdd22334f # of llama.cpp, for the record
TARGETS=(llama-bench llama-batched-bench llama-quantize llama-server llama-completion)

usage() {
    sed -n '2,12s/^# \{0,1\}//p' "$0"
    exit 2
}
[[ $# -ge 1 && $1 != -* ]] || usage
mkdir -p "$1"
dir=$(cd "$1" && pwd)
shift
[[ $# -gt 0 ]] || set -- plain amx avx2
for variant in "$@"; do [[ $variant == plain || $variant == amx || $variant == avx2 ]] || usage; done
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

build() { # name, cmake options
    local name=$1
    shift
    # Without .git the version says "unknown": the commit is given, and its first digits are what llama-bench shows.
    cmake -S "$source" -B "$dir/$name" -DCMAKE_BUILD_TYPE=Release "$@" -DLLAMA_BUILD_COMMIT="${COMMIT:0:7}" \
        -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_UI=OFF > "$dir/$name.log" 2>&1 || fail "$name"
    cmake --build "$dir/$name" -j "$jobs" --target "${TARGETS[@]}" >> "$dir/$name.log" 2>&1 || fail "$name"
    echo "$name: $dir/$name/bin ($("$dir/$name/bin/llama-completion" --version 2>&1 | head -1))"
}

for variant in "$@"; do
    case $variant in
    plain) # -U also undoes what -march=native predefines, whatever their order
        without="-U__AMX_TILE__ -U__AMX_INT8__ -U__AMX_BF16__"
        build plain -DGGML_NATIVE=ON -DCMAKE_C_FLAGS="$without" -DCMAKE_CXX_FLAGS="$without"
        ;;
    amx)
        if grep -qw amx_int8 /proc/cpuinfo; then
            build amx -DGGML_NATIVE=ON
        else
            echo "amx: skipped, this CPU has no AMX"
        fi
        ;;
    avx2)
        off=()
        for set in AVX_VNNI AVX512 AVX512_VBMI AVX512_VNNI AVX512_BF16 AMX_TILE AMX_INT8 AMX_BF16; do off+=("-DGGML_$set=OFF"); done
        build avx2 -DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON "${off[@]}"
        ;;
    esac
done
