#define WAVEGEN_ENGINE avx_vnni
#define WAVEGEN_INT8_ONLY
#include "engine.h"
