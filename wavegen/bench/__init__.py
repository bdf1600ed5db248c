"""Speed of sampling, coding and training, compared with the machine's peaks and with plain PyTorch."""
