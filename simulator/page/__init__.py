"""The document toolkit: every page, table and figure is made of its blocks.

`blocks` are what a document consists of; `html`, `markdown` and `terminal` render them; `figures`
draws the only SVG, for pages and for files of their own; `words` writes numbers; `escapes` makes
text of others harmless; `templates` holds the one template, its style sheets and its script.
"""
