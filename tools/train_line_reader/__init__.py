"""The trainer of the line reader of ``page-vision``."""
