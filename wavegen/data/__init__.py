"""Recordings on disk to batches on the device: prepare, dataset, batches, device."""
