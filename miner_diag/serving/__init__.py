"""A retriever that people load, serve and search with: an index of PDFs, engines behind it, and what it costs."""
