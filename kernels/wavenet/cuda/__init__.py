"""The WaveNet sampler for GPUs with clusters of blocks (compute capability 9.0 and up), in CUDA C++.

| file | holds |
| --- | --- |
| ``op.py`` | the implementation that ``wavenet_generate`` calls, and what surrounds the kernel |
| ``gpu.py`` | the GPU at hand, and how the native library launches there |
| ``plan.py`` | how a network is divided among blocks, registers and memories |
| ``weights.py`` | the order in which threads hold the weights |
| ``compiler.py`` | NVRTC, which compiles the kernel for a network and a GPU, and the folder of what it compiled |
| ``kernel.h`` | the kernel, with the argument why its threads agree |
| ``fragments.h``, ``draw.h`` | its products, its draws |
| ``device.h`` | its primitives, as instructions of the GPU; the tests have them for a CPU |
| ``sizes.h``, ``params.h`` | the network it is compiled for, the arrays it is given |
"""

from .op import generate as generate
from .op import takes as takes
