#!/usr/bin/env bash
# The native kernels under AddressSanitizer and UndefinedBehaviorSanitizer: builds them into a temporary folder, with
# plain loops for the tile unit, and runs the native tests with every instruction set, or the command that is given.
#
#     tests/fuzz/sanitize.sh
#     tests/fuzz/sanitize.sh python tests/fuzz/native.py --minutes 10 --seed 0
#
# Needs GCC, CMake 3.20 and an environment in which `python` can import wavegen. The first finding ends the run.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
cmake -S kernels/native -B "$build" -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE="$(command -v python)" \
    -DWAVEGEN_SANITIZE=ON -DWAVEGEN_EMULATE_TILES=ON
cmake --build "$build" --parallel 2
export WAVEGEN_NATIVE_LIBRARY=$build/libwavegen_native.so

sanitized() {
    # Python does not link the sanitizers, which must come first. Neither Python nor XLA frees all at exit. Checking
    # stacks after return moves arrays to where GCC 12 misaligns those of 64 bytes (GCC bug 110027).
    LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libstdc++.so)" \
        ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 UBSAN_OPTIONS=print_stacktrace=1 "$@"
}

if [ $# -gt 0 ]; then
    sanitized "$@"
else
    for set in $(sanitized python -c 'from wavegen.kernels import native
print(*native.instruction_sets())'); do
        echo "== $set"
        WAVEGEN_INSTRUCTION_SET=$set sanitized python -m pytest -q tests/kernels/test_native.py tests/kernels/test_int8.py
    done
fi
