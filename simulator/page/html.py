"""A report as one self-contained HTML page: no network, readable without script, on a phone, in
print, in light and dark.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simulator.page import figures, words
from simulator.page.blocks import Block, Document
from simulator.page.escapes import printable


def page(document: Document) -> str:
    """The page of a report, with its style and script within; the content security policy admits
    that one script and no request.

    All text of the document is escaped.
    """
    script = _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            d=document,
            style=Markup(_asset("report.css")),
            script=Markup(script),
            script_hash=digest,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("simulator.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=seen,
    )
    environment.globals |= {"swatch": figures.swatch, "kind": _kind}
    environment.filters |= {"typeset": words.typeset}
    return environment


def seen(value: Any) -> Any:
    """What a template prints, before it is escaped: text of others with what nobody could see as
    escapes.
    """
    return printable(value) if type(value) is str else value


def _kind(block: Block) -> str:
    return type(block).__name__


@cache
def _asset(name: str) -> str:
    return files("simulator.report").joinpath("templates", name).read_text(encoding="utf-8")
