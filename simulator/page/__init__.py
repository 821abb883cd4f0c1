"""The document toolkit: every page, table and figure is made of its blocks."""
