"""Codecs of log-mel frames."""
