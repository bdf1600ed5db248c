#define WAVEGEN_ENGINE avx2
#include "engine.h"
