"""A document as one self-contained HTML page: no network, readable without script, on a phone, in
print, in light and dark.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simulator.page import figures, words
from simulator.page.assets import asset
from simulator.page.blocks import FACETS, Block, Document, Prose
from simulator.page.escapes import printable


def page(document: Document) -> str:
    """The page of a document, with its style and script within; the content security policy admits
    that one script and no request.

    All text of the document is escaped.
    """
    script = asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            d=document,
            checks=any(section.id == "checks" for section in document.sections),
            style=Markup(asset("figure.css") + asset("page.css")),
            script=Markup(script),
            script_hash=digest,
        )
    )


def framed(document: Document, height: int) -> str:
    """The page of a document within a frame, as a notebook shows it: nothing of the notebook's
    style reaches the page, and nothing of the page's the notebook.

    Args:
        document: what is shown.
        height: of the frame, px.
    """
    style = f"width: 100%; height: {height}px; border: 0"
    frame = Markup('<iframe title="{}" style="{}" srcdoc="{}"></iframe>')
    return str(frame.format(printable(document.title), style, page(document)))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("simulator.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_seen,
    )
    environment.globals |= {
        "swatch": figures.swatch,
        "kind": _kind,
        "lights": words.LIGHTS,
        "stacking": STACKING,
        "facets": json.dumps(FACETS),
    }
    environment.filters |= {"typeset": _typeset, "about": _about}
    return environment


def _seen(value: Any) -> Any:
    """What the template prints, before it is escaped: text of others with what nobody could see as
    escapes; our own prose with its code and links.
    """
    if isinstance(value, Prose):
        return Markup("").join(Markup(FORMS[kind]).format(*texts) for kind, *texts in value.parts())
    return printable(value) if type(value) is str else value


FORMS = {"words": "{}", "code": "<code>{}</code>", "link": '<a href="{1}">{0}</a>'}


STACKING = ("forest", "checks", "evidence", "decisions")
"""Kinds of tables whose rows become cards on a phone; any other one scrolls within itself there."""


def _about(values: Mapping[str, str]) -> Markup:
    """Attributes that say which value of which facet an element is about."""
    pairs = [(facet, value) for facet, value in values.items() if facet]
    if not pairs:
        return Markup("")
    return Markup(" data-about='{}'").format(json.dumps({k: printable(v) for k, v in pairs}))


def _typeset(text: str) -> str:
    return type(text)(words.typeset(text))


def _kind(block: Block) -> str:
    return type(block).__name__
