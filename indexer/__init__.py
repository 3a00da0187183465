"""What we have: SQL rows that are the truth, and a FAISS index that follows them."""
