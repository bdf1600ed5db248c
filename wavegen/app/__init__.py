"""The server of ``wavegen app``: what a page or a script asks for over HTTP, done in turn by the library."""
