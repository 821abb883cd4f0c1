"""The house in figures, and its picture: what the imports say of the rooms.

    python .ci/house.py                  # the figures of this tree
    python .ci/house.py TREE ...         # of others, side by side
    python .ci/house.py --draw FILE.svg  # the picture of docs/design.md

A room is a package directly below `simulator`, or one of the other packages; in trees where modules
lie loose in `simulator`, each is a room. An import counts wherever it stands: at the top, within a
function, under TYPE_CHECKING, or as a string that names a module, as `"simulator.cli.run:run"`,
which import-linter does not see.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tempfile
import tokenize
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent

PACKAGES = ("abtest", "simulator", "recgpt", "policies")

NAMED = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+(?=:\w+$|$)")
"""A string that names a module, alone or with an attribute."""

Graph = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Module:
    """A module of ours."""

    name: str
    file: Path
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The room that it lies in."""
        package, *rest = self.name.split(".")
        return rest[0] if package == "simulator" and rest else package

    def imports(self, known: Iterable[str]) -> Iterator[str]:
        """The modules among `known` that it imports, some of them more than once."""
        modules = frozenset(known)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                targets = self._targets(node, modules)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                match = NAMED.match(node.value)
                targets = [] if match is None else [match[0]]
            else:
                continue
            yield from (name for name in targets if name in modules and name != self.name)

    def _targets(self, node: ast.ImportFrom, known: frozenset[str]) -> list[str]:
        base = node.module or ""
        if node.level:
            here = self.name.split(".")
            up = node.level - (self.file.name == "__init__.py")
            base = ".".join([*here[: len(here) - up], *([base] if base else [])])
        inner = [f"{base}.{alias.name}" for alias in node.names]
        return [name if name in known else base for name in inner]


class House:
    """The modules of a tree, and what can be counted of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules = {module.name: module for module in _modules(root)}

    @cached_property
    def arrows(self) -> Graph:
        """Module -> the modules that it imports."""
        return {
            name: frozenset(module.imports(self.modules)) for name, module in self.modules.items()
        }

    @cached_property
    def room_arrows(self) -> Graph:
        """Room -> the other rooms that it imports from."""
        arrows: dict[str, set[str]] = defaultdict(set)
        for name, targets in self.arrows.items():
            room = self.modules[name].room
            arrows[room] |= {self.modules[target].room for target in targets} - {room}
        return {room: frozenset(others) for room, others in arrows.items()}

    @property
    def repeated_modules(self) -> dict[str, list[str]]:
        """Module names that stand twice or more inside `simulator` -> the modules."""
        return _repeated(
            (name.rpartition(".")[2], name)
            for name, module in self.modules.items()
            if name.startswith("simulator.") and module.file.name != "__init__.py"
        )

    @property
    def repeated_classes(self) -> dict[str, list[str]]:
        """Names of public classes that stand twice or more -> the modules that define them."""
        return _repeated(
            (node.name, name)
            for name, module in self.modules.items()
            for node in module.tree.body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        )

    def figures(self) -> dict[str, str]:
        """What is written down of a tree, in words and numbers."""
        lines = [line for module in self.modules.values() for line in module.text.splitlines()]
        nodes = [node for module in self.modules.values() for node in ast.walk(module.tree)]
        statements = sum(isinstance(node, ast.stmt) for node in nodes)
        comprehensions = sum(
            isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp))
            for node in nodes
        )
        ternaries = sum(isinstance(node, ast.IfExp) for node in nodes)
        comments = sum(_comments(module.text) for module in self.modules.values())
        formatted = _formatted(self.modules.values())
        arrows = sum(len(targets) for targets in self.room_arrows.values())

        def per_100(count: int, total: int) -> str:
            return f"{100 * count / total:.1f}"

        return {
            "modules": f"{len(self.modules)}",
            "lines": f"{len(lines):,}",
            "lines, formatted as here": f"{sum(text.count(chr(10)) for text in formatted):,}",
            "of these, code lines": f"{sum(map(_code_lines, formatted)):,}",
            "statements (AST)": f"{statements:,}",
            "lines over 100 characters": f"{sum(len(line) > 100 for line in lines):,}",
            "comprehensions per 100 lines": per_100(comprehensions, len(lines)),
            "comprehensions per 100 statements": per_100(comprehensions, statements),
            "ternaries per 100 lines": per_100(ternaries, len(lines)),
            "ternaries per 100 statements": per_100(ternaries, statements),
            "comments per 100 lines": per_100(comments, len(lines)),
            "rooms": f"{len({module.room for module in self.modules.values()})}",
            "arrows between rooms": f"{arrows}",
            "circles of rooms (rooms in them)": _sizes(circles(self.room_arrows)),
            "circles of modules (modules in them)": _sizes(circles(self.arrows)),
            "module names twice in simulator": f"{len(self.repeated_modules)}",
            "class names twice": f"{len(self.repeated_classes)}",
        }


def floors(root: Path) -> list[list[str]]:
    """The floors of the house from the top down, as pyproject.toml has them for import-linter."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c.get("containers") == ["simulator"])
    return [re.split(r"\s*[|:]\s*", layer) for layer in layers]


def circles(arrows: Graph) -> list[list[str]]:
    """The groups of two or more that reach each other (Tarjan, SIAM J. Comput. 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in sorted(arrows.get(node, ())):
            if target not in order:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == order[node]:
            place = stack.index(node)
            group = sorted(stack[place:])
            del stack[place:]
            if len(group) > 1:
                groups.append(group)

    for node in sorted(arrows):
        if node not in order:
            visit(node)
    return groups


def reduced(arrows: Graph) -> Graph:
    """The arrows without those that follow from two or more others; there must be no circle."""

    def reach(node: str) -> frozenset[str]:
        return arrows.get(node, frozenset()).union(
            *(reach(target) for target in arrows.get(node, ()))
        )

    return {
        node: targets.difference(*(reach(target) for target in targets))
        for node, targets in arrows.items()
    }


# Sizes of the picture, in pixels.
WIDTH, HEIGHT, BOX, TALL, MARGIN = 760, 66, 104, 34, 10

COLUMNS = {
    "abtest": 0.1,
    "cli": 0.9,
    "reproduce": 0.9,
    "offpolicy": 0.1,
    "surface": 0.5,
    "run": 0.7,
    "report": 0.3,
    "calibration": 0.16,
    "datasets": 0.44,
    "engine": 0.9,
    "serving": 0.78,
    "scenario": 0.6,
    "living": 0.74,
    "page": 0.1,
    "stats": 0.3,
    "users": 0.52,
    "log": 0.4,
    "designs": 0.28,
    "config": 0.5,
    "recgpt": 0.9,
    "policies": 0.3,
}
"""Where a room stands on its floor, so that few arrows pass behind another room; the floors are
those of the contracts, and the arrows come from the imports.
"""


def picture(root: Path) -> str:
    """The rooms on their floors as SVG, with an arrow for each import between two rooms that does
    not follow from others.
    """
    house = House(root)
    top, *rest = floors(root)
    rows = [["abtest", *top], *rest, ["recgpt"], ["policies"]]
    place: dict[str, tuple[float, float]] = {}
    for floor, rooms in enumerate(rows):
        for room in rooms:
            place[room] = COLUMNS[room] * WIDTH, MARGIN + floor * HEIGHT
    height = 2 * MARGIN + (len(rows) - 1) * HEIGHT + TALL
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        ' font-family="system-ui, sans-serif" font-size="13" text-anchor="middle">',
        "<title>The rooms of abtest; every arrow is an import, and all of them point down</title>",
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
        ' orient="auto"><path d="M0 0L8 4L0 8z" fill="#78909c"/></marker>',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for room, targets in sorted(reduced(house.room_arrows).items()):
        if room in place:
            parts += [_arrow(place[room], place[target]) for target in sorted(targets)]
    for room, (x, y) in place.items():
        fill = "#e3f2fd" if room in PACKAGES else "#f5f5f5"
        parts.append(
            f'<rect x="{x - BOX / 2:.0f}" y="{y:.0f}" width="{BOX}" height="{TALL}" rx="5"'
            f' fill="{fill}" stroke="#546e7a"/>'
        )
        parts.append(f'<text x="{x:.0f}" y="{y + TALL / 2 + 4.5:.0f}" fill="#263238">{room}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x, y), (u, v) = (start[0], start[1] + TALL), end
    bend = (v - y) / 2
    path = f"M{x:.0f} {y:.0f}C{x:.0f} {y + bend:.0f} {u:.0f} {v - bend:.0f} {u:.0f} {v:.0f}"
    return f'<path d="{path}" fill="none" stroke="#78909c" marker-end="url(#tip)"/>'


def _modules(root: Path) -> Iterator[Module]:
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            parts = list(file.relative_to(root).with_suffix("").parts)
            if "template" in parts:
                continue  # what `abtest policies new` fills in
            if parts[-1] == "__init__":
                parts.pop()
            text = file.read_text(encoding="utf-8")
            yield Module(".".join(parts), file, text, ast.parse(text))


def _repeated(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    places: dict[str, list[str]] = defaultdict(list)
    for name, place in pairs:
        places[name].append(place)
    return {name: where for name, where in sorted(places.items()) if len(where) > 1}


def _formatted(modules: Iterable[Module]) -> list[str]:
    """The texts of modules as this repository formats them: lines of two trees compare only where
    both are cut at the same length.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for module in modules:
            (folder / f"{module.name}.py").write_text(module.text, encoding="utf-8")
        settings = HERE / "pyproject.toml"
        ruff = [sys.executable, "-m", "ruff", "format", "--quiet", "--config", str(settings)]
        subprocess.run([*ruff, str(folder)], check=True)
        return [file.read_text(encoding="utf-8") for file in sorted(folder.iterdir())]


def _code_lines(text: str) -> int:
    """The lines that are neither blank nor a comment nor of a string that stands alone."""
    strings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
            continue
        if isinstance(node.value.value, str):
            strings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.string.strip() and token.type != tokenize.COMMENT:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - strings)


def _comments(text: str) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(
        token.type == tokenize.COMMENT and not re.match(r"#\s*(type:|noqa|pragma)", token.string)
        for token in tokens
    )


def _sizes(groups: list[list[str]]) -> str:
    return f"{len(groups)} ({sum(map(len, groups))})" if groups else "0"


def main(arguments: list[str]) -> int:
    """Print the figures of trees side by side as a Markdown table, or draw the picture."""
    if arguments[:1] == ["--draw"]:
        Path(arguments[1]).write_text(picture(HERE), encoding="utf-8")
        return 0
    trees = [Path(argument) for argument in arguments] or [HERE]
    columns = [House(tree).figures() for tree in trees]
    print(f"| | {' | '.join(tree.resolve().name for tree in trees)} |")
    print(f"|---|{'---:|' * len(trees)}")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(column[name] for column in columns)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
