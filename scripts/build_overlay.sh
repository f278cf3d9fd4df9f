# Sourced: build_overlay BUILD_DIR CMAKE_FLAGS... makes another build of the extension importable beside the installed one.
#
# The editable install of .venv must not win over this build. So the interpreter below .venv runs, with .venv's packages on
# PYTHONPATH (there, no .pth file is read) after an overlay: links to the Python sources and the other extension.
# Sets `python` and exports PYTHONPATH.
build_overlay() {
    local build=$PWD/$1 venv=$PWD/.venv packages
    shift
    export PATH="$venv/bin:$PATH"
    cmake -S . -B "$build" -G Ninja -DPython_EXECUTABLE="$venv/bin/python" "$@"
    cmake --build "$build"
    rm -rf "$build/overlay"
    mkdir -p "$build/overlay/qwick"
    ln -s "$PWD"/src/qwick/* "$build/overlay/qwick/"
    cmake --install "$build" --prefix "$build/overlay"
    read -r python packages < <("$venv/bin/python" -c 'import sys, sysconfig; print(sys._base_executable, sysconfig.get_path("purelib"))')
    export PYTHONPATH=$build/overlay:$packages
}
