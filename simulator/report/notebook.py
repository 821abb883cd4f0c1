"""What a notebook shows for a report: its first screen."""

from __future__ import annotations

from dataclasses import replace

from simulator.page.display import as_html
from simulator.page.html import framed
from simulator.report.content import Content
from simulator.report.sections import document

HEIGHT = 640
"""Of the frame of a report, px; it scrolls within."""

SHOWN = ("verdict", "margins", "checks")
"""The sections of a report that a notebook shows."""


@as_html.register
def of_report(content: Content) -> str:
    """The first screen of a report, its verdict and checks."""
    whole = document(content)
    sections = [section for section in whole.sections if section.id in SHOWN]
    return framed(replace(whole, sections=sections, closing=""), HEIGHT)
