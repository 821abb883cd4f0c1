"""Pictures of the page of a run, for README and docs: its first screen at 1280 and at 390 pixels.

    python -m benchmarks.pictures runs/kuaishou_like/latest --out docs

The page is made anew from the run's report.json, so that the pictures show what this version makes
of it. It needs Chromium; a run of the main scenario takes minutes, the pictures take seconds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from simulator.page.html import page
from simulator.report import load
from simulator.report.sections import document
from tests.browser import PROGRAM, Browser

SCREENS = {"page.png": (1280, 900), "page-phone.png": (390, 844)}
"""Width and height of each picture, px."""

MOST_BYTES = 150_000
COLOURS = 128
"""Of a picture: a page of text and lines needs no more."""


def shrink(picture: Path) -> None:
    """Keep a PNG with a palette."""
    with Image.open(picture) as whole:
        few = whole.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(picture, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="a run's folder, or its report.json")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the pictures")
    given = parser.parse_args()
    if PROGRAM is None:
        raise SystemExit("no Chromium on this machine: install `chromium`")
    html = page(document(load(given.run)))
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        file = Path(folder) / "report.html"
        file.write_text(html, encoding="utf-8")
        for name, (width, height) in SCREENS.items():
            browser.open(file, width=width, height=height)
            picture = given.out / name
            browser.screen(picture)
            shrink(picture)
            size = picture.stat().st_size
            print(f"{picture}: {width} x {height}, {size / 1000:.0f} kB")
            if size > MOST_BYTES:
                raise SystemExit(f"{picture}: must have at most {MOST_BYTES:,} bytes; has {size:,}")


if __name__ == "__main__":
    main()
