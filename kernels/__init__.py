"""Kernels: operations with one reference and several implementations, chosen by one dispatcher."""
