"""Readers: files of the field -> Source (catalogue, history, future)."""
