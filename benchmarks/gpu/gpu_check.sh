#!/bin/bash
# Checks and measures wavegen on a GPU, from the root of its tree, with what prepare.sh put into .gpu:
#     bash .gpu/gpu_check.sh
# It ends by itself after BUDGET seconds (450), and every result is in $OUT as soon as it is known. ONLY=parity,rates
# names some steps.
set -u
started=$(date +%s)
tree=$PWD
here=$(cd "$(dirname "$0")" && pwd)
export OUT=${OUT:-$tree/gpu_out}
mkdir -p "$OUT"
site=$(mktemp -d)
package=$(mktemp -d)
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$here"/wheels/*.whl \
  >"$OUT/pip.txt" 2>&1 || cat "$OUT/pip.txt"
# The tree as it is when installed: kernels and configurations within the package.
cp -r "$tree/wavegen" "$package/wavegen"
cp -r "$tree/kernels" "$package/wavegen/kernels"
mkdir -p "$package/wavegen/assets"
cp -r "$tree/configs" "$package/wavegen/assets/configs"
cp "$here"/native/*.so "$package/wavegen/kernels/native/"
export PYTHONPATH=$package:$site PYTHONUNBUFFERED=1
cd "$package" || exit 1
spent=$(($(date +%s) - started))
echo "prepared in $spent s"
exec python3 "$here/gpu_check.py" --out "$OUT" --budget $((${BUDGET:-450} - spent)) ${ONLY:+--only $ONLY}
