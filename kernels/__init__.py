"""Holds operations that have one reference and several fast implementations, among which one dispatcher chooses."""

from . import native as native
from .nearest_code.api import nearest_code as nearest_code
from .wavenet.api import wavenet_generate as wavenet_generate
from .wavenet.forward import wavenet_forward as wavenet_forward
from .wavenet.prefill import wavenet_prefill as wavenet_prefill
from .wavenet.shapes import WaveNetShape as WaveNetShape
from .wavenet.state import wavenet_init_state as wavenet_init_state
