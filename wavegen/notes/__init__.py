"""Notes: melodies as arrays, the composer, the piano that renders them, and the corpus made of both."""
