#define WAVEGEN_ENGINE avx512_vnni
#define WAVEGEN_INT8_ONLY
#include "engine.h"
