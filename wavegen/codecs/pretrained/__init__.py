"""Published codecs, from the files of Hugging Face."""
