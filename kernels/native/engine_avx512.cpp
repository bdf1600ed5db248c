#define WAVEGEN_ENGINE avx512
#include "engine.h"
