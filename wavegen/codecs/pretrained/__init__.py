"""Published codecs, read from files in the layout of Hugging Face."""
