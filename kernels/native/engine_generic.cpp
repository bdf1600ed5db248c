#define WAVEGEN_ENGINE generic
#include "engine.h"
