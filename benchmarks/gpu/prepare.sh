#!/bin/bash
# Puts what a check on a borrowed GPU needs into REPO/.gpu, which git does not see, on a machine with a network:
#     bash benchmarks/gpu/prepare.sh
# Carry .gpu and the tree to the GPU, and run there: bash .gpu/gpu_check.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
# The Python on the GPU's machine, whose wheels are taken.
version=${GPU_PYTHON:-3.12}
folder=$repo/.gpu
mkdir -p "$folder/wheels" "$folder/native"
cp "$here"/gpu_check.sh "$here"/gpu_check.py "$folder/"
# What a JAX image usually lacks; NVRTC comes with jax[cuda13].
"$python" -m pip download -q --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_24_x86_64 \
  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d "$folder/wheels" \
  soundfile cffi pycparser pydantic==2.14.4 pydantic-core==2.50.5 annotated-types typing-inspection tyro \
  docstring-parser typeguard tensorboardX grain array-record portpicker cloudpickle
# The native library, which launches the kernel and samples on the host.
library=$("$python" -c "from wavegen.kernels import native; print(native.find())")
cp "$library" "$folder/native/"
du -sh "$folder"
