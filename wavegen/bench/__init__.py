"""Sampling speed: implementations side by side, against the machine's peaks and a plain PyTorch loop."""
