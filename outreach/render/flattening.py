"""
An e-mail's template and its layouts as one, for those that are filled again and again.

Jinja2 runs the blocks of layouts as generators within generators, and hands each piece of words through all of
them. What layouts and blocks say is known before anybody's facts are: so they are put together once, with what is
the same for everybody written into the words around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import nodes

from outreach.render.sandbox import constant, folded

_DEEPEST = 10  # files that extend one another
_IMPORTS: Any = (nodes.Import, nodes.FromImport, nodes.Macro)
_NAMING: Any = (*_IMPORTS, nodes.Assign, nodes.AssignBlock)  # what gives names a meaning for all that follows
_OF_BLOCKS = frozenset({"self", "super"})

Reader = Callable[[str], nodes.Template | None]


class _UncertainError(Exception):
    """A block is used, or something named around one, in a way that this does not follow."""


def flattened(read: Reader, name: str, constants: Mapping[str, Any]) -> nodes.Template | None:
    """
    One template that says the same as `name` with all that it extends; None where that is not certain.

    `read` gives a template's nodes, which are taken apart, or None where there is no such template. Texts among
    `constants` are the same for everybody. Nodes come from several files, so line numbers mean nothing.
    """
    try:
        return _flattened(read, name, constants)
    except _UncertainError:
        return None


def _flattened(read: Reader, name: str, constants: Mapping[str, Any]) -> nodes.Template:
    blocks: dict[str, nodes.Block] = {}
    first: list[nodes.Node] = []
    for _ in range(_DEEPEST):
        tree = read(name)
        if tree is None or not _OF_BLOCKS.union(constants).isdisjoint(_meant(tree)):
            raise _UncertainError
        own = {block.name: block for block in tree.find_all(nodes.Block)}
        if len(own) < len(list(tree.find_all(nodes.Block))):
            raise _UncertainError
        blocks = own | blocks
        extends = list(tree.find_all(nodes.Extends))
        if not extends:
            tree.body = first + _spliced(tree.body, blocks, constants)
            return tree
        if extends != [node for node in tree.body if isinstance(node, nodes.Extends)][:1]:
            raise _UncertainError
        first += _run_first(tree.body, extends[0])
        name = _text(extends[0].template)
    raise _UncertainError


def _text(node: nodes.Expr) -> str:
    if not isinstance(node, nodes.Const) or not isinstance(node.value, str):
        raise _UncertainError
    return node.value


def _meant(tree: nodes.Template) -> Iterator[str]:
    """The names that a template gives a meaning, and those that are about its blocks."""
    for name in tree.find_all(nodes.Name):
        if name.ctx != "load" or name.name in _OF_BLOCKS:
            yield name.name
    for node in tree.find_all(_IMPORTS):
        if isinstance(node, nodes.FromImport):
            yield from (one if isinstance(one, str) else one[1] for one in node.names)
        else:
            yield node.target if isinstance(node, nodes.Import) else node.name


def _run_first(body: Sequence[nodes.Node], extends: nodes.Extends) -> list[nodes.Node]:
    """What a file names, and says before it extends another; its further words outside of blocks are never shown."""
    found = []
    for place, node in enumerate(body):
        if isinstance(node, _NAMING) or (isinstance(node, nodes.Output) and place < body.index(extends)):
            found.append(node)
        elif not isinstance(node, nodes.Output | nodes.Extends | nodes.Block):
            raise _UncertainError
    return found


def _spliced(
    body: Sequence[nodes.Node], blocks: dict[str, nodes.Block], constants: Mapping[str, Any]
) -> list[nodes.Node]:
    """
    The statements with what blocks say in the blocks' places, and outputs side by side as one.

    Around a block nothing may be named or counted: the block would not see it, and what stands in its place would.
    """
    around_blocks = any(_holds_block(node) for node in body)
    found: list[nodes.Node] = []
    for node in body:
        if around_blocks and not _names_nothing(node):
            raise _UncertainError
        for one in _resolved(node, blocks, constants):
            if not isinstance(one, nodes.Output):
                found.append(one)
            elif found and isinstance(found[-1], nodes.Output):
                found[-1].nodes += one.nodes
            else:
                found.append(one)
    return found


def _resolved(node: nodes.Node, blocks: dict[str, nodes.Block], constants: Mapping[str, Any]) -> Sequence[nodes.Node]:
    if isinstance(node, nodes.Output):
        node.nodes = [folded(part, constants) for part in node.nodes]
    elif isinstance(node, nodes.Block):
        block = blocks.pop(node.name, None)  # one that stands in two places has no nodes of its own in the second
        if block is None or block.required:
            raise _UncertainError
        inside = _spliced(block.body, blocks, constants)
        named = any(isinstance(one, _NAMING) or one.find(_NAMING) for one in inside)
        return [nodes.Scope(inside, lineno=node.lineno)] if named else inside
    elif isinstance(node, nodes.If):
        if constant(node.test, constants):
            return _spliced(node.body, blocks, constants)
        node.body, node.else_ = (_spliced(body, blocks, constants) for body in (node.body, node.else_))
        for other in node.elif_:
            other.body = _spliced(other.body, blocks, constants)
    elif _holds_block(node):
        raise _UncertainError
    return [node]


def _names_nothing(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Output | nodes.Block) or (isinstance(node, nodes.If) and not node.find(_NAMING))


def _holds_block(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Block) or node.find(nodes.Block) is not None
