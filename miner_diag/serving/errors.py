"""What a served retriever refuses."""


class ServingError(ValueError):
    """Something that cannot be encoded, saved, exported or read back; the message says what, why and what to do."""
