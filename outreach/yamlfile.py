"""
YAML text → a tree that knows its places.

Only scalars as text, lists and mappings: nothing is resolved or constructed, so `no` stays the text
`no` (Norway) until a key asks for a yes or no, `10:00` is no number, and no tag can build an object.
What a value means is decided by `keys`, from the key it stands under.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from outreach.errors import Problem

MAX_BYTES = 1_000_000
MAX_VALUES = 20_000
MAX_ALIASED = 2_000
MAX_DEPTH = 20


@dataclass(frozen=True, eq=False)
class Node:
    """One value with its place (from 1): exactly one of text, items, entries is set, or none for null."""

    file: str
    line: int
    column: int
    text: str | None = None
    items: tuple[Node, ...] | None = None
    entries: Mapping[str, Node] | None = None
    keys: Mapping[str, Node] = field(default_factory=dict)  # the place of each key of `entries`
    size: int = 1  # values in it, itself included
    content: tuple[int, int] | None = None  # where the text itself starts: behind a quote, below a `|`

    @property
    def is_null(self) -> bool:
        """Whether it was left empty, or written `null` or `~`."""
        return self.text is None and self.items is None and self.entries is None

    def get(self, *path: str | int) -> Node | None:
        """The value at this path of keys and list indexes, or None."""
        node: Node | None = self
        for part in path:
            node = _child(node, part) if node else None
        return node

    def nearest(self, *path: str | int) -> Node:
        """The value at this path, or the closest value above it that exists."""
        node = self
        for part in path:
            below = _child(node, part)
            if below is None:
                return node
            node = below
        return node


def _child(node: Node, part: str | int) -> Node | None:
    if isinstance(part, int):
        return node.items[part] if node.items and 0 <= part < len(node.items) else None
    return (node.entries or {}).get(part)


def problem(node: Node, id: str, text: str, hint: str = "", *, warning: bool = False) -> Problem:  # noqa: A002
    """A Problem at this node's place."""
    return Problem(node.file, node.line, node.column, id, text, hint, warning)


def did_you_mean(word: str, allowed: Mapping[str, object] | tuple[str, ...] | list[str]) -> str:
    """`did you mean …?` with the nearest of the allowed words, or nothing."""
    by_small = {name.lower(): name for name in allowed}
    near = get_close_matches(word[:100].lower(), list(by_small), n=1, cutoff=0.6)
    return f"did you mean `{by_small[near[0]]}`?" if near else ""


def listed(allowed: Mapping[str, object] | tuple[str, ...] | list[str], most: int = 40) -> str:
    """The allowed words in one line."""
    words = list(allowed)
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def shown(text: str, most: int = 60) -> str:
    """A value as error texts quote it: on one line, and not at any length."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text[: most * 4]).split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def read_text(path: Path, name: str) -> tuple[str | None, list[Problem]]:
    """The file's text, or a problem that says why it cannot be read; `name` is what the user calls it."""
    try:
        raw = path.read_bytes() if path.is_file() else None
    except OSError as error:
        return None, [Problem(name, 0, 0, "unreadable", f"cannot be read: {error.strerror or 'unknown error'}")]
    if raw is None:
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        return None, [Problem(name, 0, 0, "unreadable", what)]
    try:
        return raw.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        return None, [Problem(name, line, column, "not-utf-8", "is not UTF-8 text", "save the file as UTF-8")]


class _Stop(Exception):  # it carries the one problem that ends the reading
    def __init__(self, found: Problem) -> None:
        self.found = found


@dataclass
class _Reading:
    file: str
    longest: Mapping[str, int]
    problems: list[Problem] = field(default_factory=list)
    anchors: dict[str, Node | None] = field(default_factory=dict)  # None while it is still open
    values: int = 0
    aliased: int = 0

    def stop(self, mark: Any, id: str, text: str, hint: str = "") -> _Stop:  # noqa: A002
        return _Stop(Problem(self.file, mark.line + 1, mark.column + 1, id, text, hint))


def read(file: str, text: str, *, longest: Mapping[str, int] | None = None) -> tuple[Node | None, list[Problem]]:
    """The mapping that the text holds, with every problem of its form; never raises.

    `longest` limits the lists under top-level keys, so that a huge file is refused without being read to
    its end. A file over 1 MB, over 20,000 values or 20 levels deep, or with over 2,000 values repeated by
    aliases is refused. When the node is None there is at least one problem.
    """
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "replace")) > MAX_BYTES:
        return None, [Problem(file, 0, 0, "too-large", "is over 1 MB, too large for a file written by hand")]
    reading = _Reading(file, longest or {})
    try:
        return _document(_events(reading, text.removeprefix("\ufeff")), reading), reading.problems
    except _Stop as stop:
        return None, [*reading.problems, stop.found]


def _events(reading: _Reading, text: str) -> Iterator[Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as error:
        raise _Stop(_syntax(reading.file, text, error)) from None
    except ReaderError as error:
        before = text[: error.position]
        column = error.position - before.rfind("\n")
        found = f"holds a control character (code {error.character})"
        raise _Stop(Problem(reading.file, before.count("\n") + 1, column, "yaml-syntax", found, "remove it")) from None
    except Exception:  # whatever else the parser stumbles over is the file's fault, too
        raise _Stop(Problem(reading.file, 0, 0, "yaml-syntax", "is not valid YAML")) from None


_ADVICE = (
    ("mapping values are not allowed", 'a value that holds ": " needs quotes; if not, the indentation is off'),
    ("could not find expected ':'", "a key needs a colon and a space behind it"),
    ("cannot start any token", "put the value in quotes"),
    ("found unexpected end of stream", "a quote is not closed"),
    ("expected <block end>", "the indentation does not fit the lines above"),
    ("expected ',' or", "a bracket is not closed, or a comma is missing"),
)


def _syntax(file: str, text: str, error: Any) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.split("\n")
    row = lines[line] if line < len(lines) else ""
    indent = row[: len(row) - len(row.lstrip())]
    if "\t" in indent or row[column : column + 1] == "\t":
        column = indent.index("\t") if "\t" in indent else column
        return Problem(file, line + 1, column + 1, "yaml-tab", "a tab: YAML is indented with spaces only")
    said = str(error.problem or "unknown error")
    advice = next((hint for part, hint in _ADVICE if part in said), "")
    return Problem(file, line + 1, column + 1, "yaml-syntax", f"not valid YAML: {shown(said, 120)}", advice)


def _document(events: Iterator[Any], reading: _Reading) -> Node:
    from ruamel.yaml.events import DocumentStartEvent, StreamEndEvent, StreamStartEvent

    root: Node | None = None
    for event in events:
        if isinstance(event, DocumentStartEvent):
            if root is not None:
                raise reading.stop(event.start_mark, "two-documents", "a second document (`---`): write one a file")
            root = _node(next(events), events, reading, ())
        elif not isinstance(event, StreamStartEvent | StreamEndEvent):
            continue
    if root is None or root.is_null:
        raise _Stop(Problem(reading.file, 0, 0, "empty", "is empty"))
    if root.entries is None:
        what = "a list" if root.items is not None else "plain text"
        raise _Stop(problem(root, "not-a-mapping", f"holds {what} where `key: value` lines are expected"))
    return root


def _node(event: Any, events: Iterator[Any], reading: _Reading, path: tuple[str, ...]) -> Node:
    from ruamel.yaml.events import AliasEvent, MappingStartEvent, ScalarEvent, SequenceStartEvent

    reading.values += 1
    if reading.values > MAX_VALUES:
        raise reading.stop(event.start_mark, "too-large", f"the file holds over {MAX_VALUES:,} values")
    if len(path) > MAX_DEPTH:
        raise reading.stop(event.start_mark, "too-deep", f"nested more than {MAX_DEPTH} levels deep")
    if isinstance(event, AliasEvent):
        return _alias(event, reading)
    if event.tag is not None:
        raise reading.stop(event.start_mark, "yaml-tag", "tags (`!…`) are not read", "write the value without one")
    if event.anchor:
        reading.anchors[event.anchor] = None
    if isinstance(event, ScalarEvent):
        node = _scalar(event, reading)
    elif isinstance(event, SequenceStartEvent):
        node = _sequence(event, events, reading, path)
    elif isinstance(event, MappingStartEvent):
        node = _mapping(event, events, reading, path)
    if event.anchor:
        reading.anchors[event.anchor] = node
    return node


def _alias(event: Any, reading: _Reading) -> Node:
    target = reading.anchors.get(event.anchor)
    if target is None:
        why = "stands inside itself" if event.anchor in reading.anchors else "has no `&` of that name before it"
        raise reading.stop(event.start_mark, "yaml-alias", f"the alias *{shown(event.anchor)} {why}")
    reading.aliased += target.size
    if reading.aliased > MAX_ALIASED:
        raise reading.stop(event.start_mark, "yaml-alias", f"aliases repeat more than {MAX_ALIASED:,} values")
    return target


def _scalar(event: Any, reading: _Reading) -> Node:
    line, column = event.start_mark.line + 1, event.start_mark.column + 1
    plain = not event.style
    text = None if plain and event.value in ("", "~", "null", "Null", "NULL") else event.value
    nothing = plain and not event.value
    return Node(reading.file, line, column, text=text, content=None if nothing else _content_start(event, line, column))


def _content_start(event: Any, line: int, column: int) -> tuple[int, int]:
    if event.style in ("|", ">"):
        source = getattr(event.start_mark, "buffer", None) or ""
        lines = source[event.start_mark.index : event.end_mark.index].split("\n")
        for below, row in enumerate(lines[1:], start=1):
            if row.strip():
                return line + below, len(row) - len(row.lstrip()) + 1
    return line, column + (1 if event.style in ("'", '"') else 0)


def _sequence(event: Any, events: Iterator[Any], reading: _Reading, path: tuple[str, ...]) -> Node:
    from ruamel.yaml.events import SequenceEndEvent

    most = reading.longest.get(path[0]) if len(path) == 1 else None
    items: list[Node] = []
    for inner in events:
        if isinstance(inner, SequenceEndEvent):
            break
        if len(items) == most:
            text = f"`{path[0]}` has over {most} entries, more than outreach takes"
            raise reading.stop(inner.start_mark, "too-many", text)
        items.append(_node(inner, events, reading, (*path, "")))
    return Node(
        reading.file,
        event.start_mark.line + 1,
        event.start_mark.column + 1,
        items=tuple(items),
        size=1 + sum(item.size for item in items),
    )


def _mapping(event: Any, events: Iterator[Any], reading: _Reading, path: tuple[str, ...]) -> Node:
    from ruamel.yaml.events import MappingEndEvent

    keys: dict[str, Node] = {}
    entries: dict[str, Node] = {}
    for inner in events:
        if isinstance(inner, MappingEndEvent):
            break
        key = _node(inner, events, reading, (*path, ""))
        name = _key_name(key)
        value = _node(next(events), events, reading, (*path, name))
        if value.is_null and value.content is None:  # nothing is written: the parser is at the next line already
            value = Node(reading.file, key.line, key.column)
        if name in entries:
            text = f"`{shown(name)}` is written twice: line {keys[name].line} has it, too"
            reading.problems.append(problem(key, "duplicate-key", text, "keep one of them"))
        else:
            keys[name], entries[name] = key, value
    size = 1 + sum(value.size + 1 for value in entries.values())
    line, column = event.start_mark.line + 1, event.start_mark.column + 1
    return Node(reading.file, line, column, entries=entries, keys=keys, size=size)


def _key_name(key: Node) -> str:
    if key.items is not None or key.entries is not None:
        raise _Stop(problem(key, "yaml-syntax", "a list or mapping cannot be a key", "put the key in quotes"))
    if key.text == "<<":
        raise _Stop(problem(key, "yaml-merge", "merge keys (`<<`) are not read", "write the keys out"))
    return (key.text or "").strip()


def plain(node: Node) -> Any:
    """It as dicts, lists, texts and None: JSON-serialisable, and read back by `from_plain`."""
    if node.entries is not None:
        return {name: plain(value) for name, value in node.entries.items()}
    if node.items is not None:
        return [plain(item) for item in node.items]
    return node.text


def from_plain(file: str, value: Any) -> Node:
    """The tree of plain data (of `plain`, or of any JSON); its places are unknown (line 0)."""
    if isinstance(value, dict):
        entries = {str(name): from_plain(file, inner) for name, inner in value.items()}
        keys = {name: Node(file, 0, 0, text=name) for name in entries}
        return Node(file, 0, 0, entries=entries, keys=keys)
    if isinstance(value, list | tuple):
        return Node(file, 0, 0, items=tuple(from_plain(file, inner) for inner in value))
    if isinstance(value, bool):
        return Node(file, 0, 0, text="yes" if value else "no")
    return Node(file, 0, 0, text=None if value is None else str(value))
