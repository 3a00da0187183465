"""Pictures and words to vectors, and back to words."""
