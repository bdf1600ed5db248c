#define WAVEGEN_ENGINE amx
#define WAVEGEN_TILES
#include "engine.h"
