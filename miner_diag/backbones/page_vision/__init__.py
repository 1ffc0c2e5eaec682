"""A page retriever that sees pictures alone: a reader of text lines of our own in front of MiniLM."""
