"""
Reading a template without running it: which names it uses, and which of them do not exist.

The walk follows `extends`, the blocks that win, includes, loops, `set`, macros and the guards of `{% if %}`,
and keeps for each value what is Known of it, so that `line.skuu` inside a loop is found as surely as `ordr.id`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from jinja2 import TemplateSyntaxError, nodes

from outreach.errors import Problem
from outreach.render.sandbox import COUNTED, TYPE_ATTRIBUTES, Sandbox
from outreach.render.source import FOLDER, Source
from outreach.render.variables import Known, known_names
from outreach.yamlfile import did_you_mean, listed

ANY = Known("", "any")
TEXT = Known("", "text")
NUMBER = Known("", "number")
LOOP = Known("", "loop")
_BUILT_IN = dict.fromkeys(("range", "namespace", "self", "super", "caller", "varargs", "kwargs"), ANY)
_TREE = known_names()
_SAME = frozenset({"sort", "unique", "list", "select", "reject", "rejectattr", "reverse", "selectattr", COUNTED})
_FORGIVING = frozenset({"default", "d", "greeting"})
_MISPRINTED = {
    "money": "is an amount of money: write `{{{{ {path} | money }}}}`",
    "time": "is a time: write `{{{{ {path} | date }}}}` or `| datetime`",
    "yes_no": "is yes or no: use it in `{{% if %}}`",
    "list": "is a list: go through it with `{{% for %}}`, or use `| join`",
    "record": "is a record: name one of its fields",
    "function": "needs its argument, as in `{path}(5)`",
}


@dataclass(frozen=True)
class Reading:
    """What a walk has found; one for a template and everything that it extends and includes."""

    environment: Sandbox
    sources: Mapping[str, Source]
    subjects: frozenset[str] | None  # None: a name is known if any trigger has it
    links: frozenset[str] | None = None  # names under business.links; None: any
    problems: list[Problem] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    blocks: dict[str, list[tuple[str, nodes.Block]]] = field(default_factory=dict)
    parts: set[str] = field(default_factory=set)  # files included
    attributes: dict[str, tuple[str, int, int]] = field(default_factory=dict)  # by path: file, line, column

    def add(
        self, scope: Scope, node: nodes.Node, kind: str, name: str, text: str, hint: str = "", *, warning: bool = False
    ) -> None:
        if not scope.muted:
            line = node.lineno + scope.shift
            column = _column(self.sources[scope.file], line, name)
            self.problems.append(Problem(scope.file, line, column, kind, text, hint, warning))


@dataclass(frozen=True)
class Scope:
    """Where a walk stands: the names set so far, and those that an enclosing `if` asked for."""

    reading: Reading
    file: str
    names: dict[str, Known]
    guarded: frozenset[str] = frozenset()
    muted: bool = False
    shift: int = 0  # lines to add, for front matter

    def inside(self, names: Mapping[str, Known] | None = None, guards: Iterable[str] = ()) -> Scope:
        return replace(self, names={**self.names, **(names or {})}, guarded=self.guarded | set(guards))


def read_template(
    environments: Mapping[str, Sandbox],
    sources: Mapping[str, Source],
    path: str,
    subjects: frozenset[str] | None,
    links: frozenset[str] | None = None,
) -> Reading:
    """
    Everything that `path` names and gets wrong, what it extends and includes being part of it.

    `environments` has the keys `html` (for the body of an e-mail) and `text`.
    """
    html = environments["html"] if ".email." in path else environments["text"]
    reading = Reading(html, sources, subjects, links)
    scope = Scope(reading, path, {})
    try:
        _chain(path, scope)
        _front_matter(sources[path], scope)
    except RecursionError:
        reading.add(scope, nodes.Const(None, lineno=1), "template-syntax", "", "is nested too deeply")
    reading.problems.sort(key=lambda problem: (problem.file, problem.line, problem.column))
    reading.problems[:] = dict.fromkeys(reading.problems)
    return reading


def _front_matter(source: Source, scope: Scope) -> None:
    entries = [entry for key, entry in source.entries.items() if key != "variables"]
    for entry in (*entries, *(entry for _, entry in source.variables)):
        here = replace(scope, shift=entry.line - 1)
        tree = _parsed(entry.text, here)
        if tree is not None:
            _all(tree.body, here)


def _column(source: Source, line: int, name: str) -> int:
    lines = source.lines
    text = lines[line - 1] if 0 < line <= len(lines) else ""
    whole = text.find(name)
    return max(whole if whole >= 0 else text.find(name.rpartition(".")[2]), 0) + 1


def _parsed(text: str, scope: Scope) -> nodes.Template | None:
    try:
        return scope.reading.environment.tree(text, scope.file)
    except TemplateSyntaxError as error:
        place = nodes.Const(None, lineno=error.lineno)
        scope.reading.add(scope, place, "template-syntax", "", f"cannot be read: {(error.message or '').rstrip('.')}")
    except RecursionError:
        scope.reading.add(scope, nodes.Const(None, lineno=1), "template-syntax", "", "is nested too deeply")
    return None


def _chain(path: str, scope: Scope) -> None:
    """Walk the outermost layout with the blocks of the files that extend it in place of its own."""
    files: list[str] = []
    tree = None
    while path not in files:
        files.append(path)
        scope = replace(scope, file=path)
        tree = _parsed(scope.reading.sources[path].body, scope)
        if tree is None:
            return
        for block in tree.find_all(nodes.Block):
            scope.reading.blocks.setdefault(block.name, []).append((path, block))
        parent = next(tree.find_all(nodes.Extends), None)
        following = _file_named(parent.template, parent, scope) if parent else None
        if parent is None or following is None:
            break
        _all([n for n in tree.body if not isinstance(n, nodes.Block | nodes.Extends | nodes.Output)], scope)
        path = following
    if tree is not None:
        _all(tree.body, scope)
        _lost_blocks(files, tree, scope)


def _lost_blocks(files: list[str], root: nodes.Template, scope: Scope) -> None:
    if len(files) == 1:
        return
    found = scope.reading.blocks
    shown, more = set[str](), {block.name for block in root.find_all(nodes.Block)}
    while more := more - shown:
        shown |= more
        more = {b.name for name in more for _, block in found.get(name, ()) for b in block.find_all(nodes.Block)}
    for name, places in found.items():
        if name not in shown:
            path, block = places[0]
            hint = did_you_mean(name, sorted(shown)) or f"it has {listed(sorted(shown))}"
            text = f"block {name} is nowhere in {files[-1]}, so it would not be shown"
            scope.reading.add(replace(scope, file=path), block, "template-block", name, text, hint)


def _file_named(template: nodes.Expr, node: nodes.Node, scope: Scope) -> str | None:
    add = scope.reading.add
    if not isinstance(template, nodes.Const) or not isinstance(template.value, str):
        add(scope, node, "template-file", "", "names a file that is not a text in quotes")
        return None
    path = FOLDER + template.value
    if path in scope.reading.sources:
        return path
    hint = did_you_mean(template.value, [name.removeprefix(FOLDER) for name in scope.reading.sources])
    add(scope, node, "template-file", template.value, f"there is no {path}", hint)
    return None


# --- statements --------------------------------------------------------------------------------


def _all(found: Iterable[nodes.Node], scope: Scope) -> None:
    for node in found:
        _see(node, scope)


def _see(node: nodes.Node, scope: Scope) -> Known:
    walk = _WALKS.get(type(node))
    if walk is not None:
        return walk(node, scope)
    for child in node.iter_child_nodes():
        _use(child, scope)
    return ANY


def _use(node: nodes.Node, scope: Scope) -> Known:
    """The node's value is needed: warn where some records lack it."""
    known = _see(node, scope)
    if known.optional and known.path and known.path not in scope.guarded:
        text = f"{known.path} is not known of every record, and a message without it would wait"
        scope.reading.add(
            scope,
            node,
            "template-optional",
            known.path,
            text,
            "put it inside {% if %}, or add `| default`",
            warning=True,
        )
    return known


def _guards(test: nodes.Node, scope: Scope) -> set[str]:
    """The documented names that a test asks for."""
    quiet = replace(scope, muted=True)
    parts = [test, *test.find_all((nodes.Name, nodes.Getattr))]
    return {_see(part, quiet).path for part in parts if isinstance(part, nodes.Name | nodes.Getattr)} - {""}


def _see_test(test: nodes.Node, scope: Scope) -> set[str]:
    guards = _guards(test, scope)
    _see(test, scope.inside(guards=guards))
    return guards


def _if(node: nodes.If, scope: Scope) -> Known:
    guards = _see_test(node.test, scope)
    here = replace(scope, guarded=scope.guarded | guards)
    _all(node.body, here)
    _all(node.elif_, here)
    _all(node.else_, here)
    return ANY


def _choice(node: nodes.CondExpr, scope: Scope) -> Known:
    guards = _see_test(node.test, scope)
    known = _use(node.expr1, scope.inside(guards=guards))
    if node.expr2 is not None:
        _use(node.expr2, scope.inside(guards=guards))
    return replace(known, optional=False)


def _and_or(node: nodes.BinExpr, scope: Scope) -> Known:
    _see(node.left, scope)
    _see(node.right, scope.inside(guards=_guards(node.left, scope)))
    return ANY


def _unneeded(node: nodes.Node, scope: Scope) -> Known:
    """Comparing and negating a value that is not there is allowed."""
    for child in node.iter_child_nodes():
        _see(child, scope)
    return ANY


def _for(node: nodes.For, scope: Scope) -> Known:
    values = _use(node.iter, scope)
    if isinstance(node.target, nodes.Name):
        targets = {node.target.name: values.element or ANY}
    else:
        targets = {name.name: ANY for name in node.target.find_all(nodes.Name)}
    inside = scope.inside({**targets, "loop": LOOP})
    guards = _see_test(node.test, inside) if node.test is not None else set()
    _all(node.body, inside.inside(guards=guards))
    _all(node.else_, scope.inside())
    return ANY


def _assign(node: nodes.Assign, scope: Scope) -> Known:
    known = _see(node.node, scope)
    if isinstance(node.target, nodes.Name):
        scope.names[node.target.name] = known
    else:
        scope.names.update({name.name: ANY for name in node.target.find_all(nodes.Name)})
    return ANY


def _assign_block(node: nodes.AssignBlock, scope: Scope) -> Known:
    _all(node.body, scope.inside())
    if node.filter is not None:
        _see(node.filter, scope)
    if isinstance(node.target, nodes.Name):
        scope.names[node.target.name] = TEXT
    return ANY


def _with(node: nodes.With, scope: Scope) -> Known:
    values = [_see(value, scope) for value in node.values]
    names = {t.name: s for t, s in zip(node.targets, values, strict=False) if isinstance(t, nodes.Name)}
    _all(node.body, scope.inside(names))
    return ANY


def _macro(node: nodes.Macro | nodes.CallBlock, scope: Scope) -> Known:
    if isinstance(node, nodes.Macro):
        scope.names[node.name] = ANY
    else:
        _see(node.call, scope)
    _all(node.defaults, scope)
    _all(node.body, scope.inside({argument.name: ANY for argument in node.args}))
    return ANY


def _block(node: nodes.Block, scope: Scope) -> Known:
    """The first definition of the block, from the file that extends; the next one where it calls super()."""
    for path, block in scope.reading.blocks.get(node.name, [(scope.file, node)]):
        _all(block.body, replace(scope.inside(), file=path))
        if not any(isinstance(c.node, nodes.Name) and c.node.name == "super" for c in block.find_all(nodes.Call)):
            break
    return ANY


def _include(node: nodes.Include | nodes.Import | nodes.FromImport, scope: Scope) -> Known:
    path = _file_named(node.template, node, scope)
    if path is not None and path not in scope.reading.parts:
        scope.reading.parts.add(path)
        inside = replace(scope.inside(), file=path)
        tree = _parsed(scope.reading.sources[path].body, inside)
        if tree is not None:
            _all(tree.body, inside)
    return ANY


def _import(node: nodes.Import | nodes.FromImport, scope: Scope) -> Known:
    _include(node, scope)
    if isinstance(node, nodes.Import):
        scope.names[node.target] = ANY
    else:
        scope.names.update({name if isinstance(name, str) else name[1]: ANY for name in node.names})
    return ANY


def _output(node: nodes.Output, scope: Scope) -> Known:
    for child in node.nodes:
        known = _use(child, scope)
        if known.path and known.type in _MISPRINTED:
            text = f"{known.path} {_MISPRINTED[known.type].format(path=known.path)}"
            scope.reading.add(scope, child, "template-print", known.path, text)
    return ANY


# --- values ------------------------------------------------------------------------------------


def _name(node: nodes.Name, scope: Scope) -> Known:
    known = scope.names.get(node.name) or _BUILT_IN.get(node.name)
    if known is not None:
        return known
    known = _TREE.fields.get(node.name)
    if known is None:
        hint = did_you_mean(node.name, [*_TREE.fields, *scope.names]) or f"there is {listed(list(_TREE.fields))}"
        scope.reading.add(scope, node, "template-variable", node.name, f"unknown variable {node.name}", hint)
        return ANY
    return _available(known, node, scope)


def _available(known: Known, node: nodes.Node, scope: Scope, base: Known = ANY) -> Known:
    """Remember that it was named, and report it where the step's messages never have it (and have its `base`)."""
    reading = scope.reading
    if not scope.muted:
        reading.named.add(known.path)
        if ".attributes." in known.path:
            line = node.lineno + scope.shift
            place = (scope.file, line, _column(reading.sources[scope.file], line, known.path))
            reading.attributes.setdefault(known.path, place)
    missing = reading.subjects is not None and known.subjects and not reading.subjects & set(known.subjects)
    if missing and known.path not in scope.guarded and known.subjects != base.subjects:
        text = f"{known.path} is not known in this step: it comes with {_origin(known.subjects)}"
        reading.add(scope, node, "template-variable", known.path, text)
    return known


def _origin(subjects: tuple[str, ...]) -> str:
    origins = {
        "answer": "the trigger survey.answered",
        "offer": "a step that names an offer",
        "survey": "a step that names a survey",
        "email": "e-mail",
    }
    return " or ".join(origins.get(subject, f"triggers about an {subject}") for subject in subjects).replace(
        "an case", "a case"
    )


def _attribute(node: nodes.Getattr, scope: Scope) -> Known:
    return _field(_see(node.node, scope), node.attr, node, scope)


def _item(node: nodes.Getitem, scope: Scope) -> Known:
    base = _see(node.node, scope)
    if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        return _field(base, node.arg.value, node, scope)
    if isinstance(node.arg, nodes.Slice):
        return base
    _see(node.arg, scope)
    return _one_of(base, scope)


def _one_of(values: Known, scope: Scope) -> Known:
    """An element of a list that may be empty, unless an `if` has asked for the list."""
    return replace(values.element, optional=values.path not in scope.guarded) if values.element else ANY


def _field(base: Known, name: str, node: nodes.Node, scope: Scope) -> Known:
    if base.type in ("any", "number", "function") and not base.fields:
        return ANY
    path = f"{base.path}.{name}" if base.path else name
    if base.type in TYPE_ATTRIBUTES:
        return _of_type(base, name, path, node, scope)
    known = base.fields.get(name) or (Known(path, base.fields["*"].type, optional=True) if base.any_name else None)
    if known is None:
        allowed = sorted(name for name in base.fields if name != "*")
        hint = did_you_mean(name, allowed) or (f"it has {listed(allowed)}" if allowed else "")
        scope.reading.add(scope, node, "template-variable", path, f"unknown variable {path}", hint)
        return ANY
    if base.path == "business.links":
        return _business_link(known, name, node, scope)
    if base.optional and base.path not in scope.guarded:
        known = replace(known, optional=True)
    return _available(known, node, scope, base)


def _of_type(base: Known, name: str, path: str, node: nodes.Node, scope: Scope) -> Known:
    allowed = sorted(TYPE_ATTRIBUTES[base.type])
    if name not in allowed:
        hint = did_you_mean(name, allowed) or f"a {base.type} has {listed(allowed)}"
        scope.reading.add(scope, node, "template-variable", path, f"unknown variable {path}", hint)
    lacking = base.optional and base.path not in scope.guarded
    return replace(ANY, path=base.path, optional=True) if lacking else ANY


def _business_link(known: Known, name: str, node: nodes.Node, scope: Scope) -> Known:
    links = scope.reading.links
    if links is not None and name not in links and known.path not in scope.guarded:
        hint = did_you_mean(name, sorted(links)) or f"add `{name}: https://…` under `business: links:` in outreach.yaml"
        scope.reading.add(scope, node, "template-variable", known.path, f"{known.path} is not set", hint)
    return replace(_available(known, node, scope), optional=False)


def _filter(node: nodes.Filter, scope: Scope) -> Known:
    if node.name not in scope.reading.environment.filters:
        known = [name for name in scope.reading.environment.filters if name != COUNTED]
        hint = did_you_mean(node.name, known) or f"there is {listed(known, 60)}"
        scope.reading.add(scope, node, "template-filter", node.name, f"unknown filter {node.name}", hint)
    value = ANY
    if node.node is not None:
        forgiving = node.name in _FORGIVING
        inside = scope.inside(guards=_guards(node.node, scope)) if forgiving else scope
        value = _see(node.node, inside) if forgiving else _use(node.node, scope)
    for argument in (*node.args, *node.kwargs):
        _use(argument, scope)
    return _filtered(node, value, scope)


def _filtered(node: nodes.Filter, value: Known, scope: Scope) -> Known:
    if node.name in ("first", "last"):
        return _one_of(value, scope)
    if node.name not in _SAME:
        return replace(value, optional=False) if node.name in ("default", "d") else ANY
    asked = node.args[0] if node.name == "selectattr" and len(node.args) == 1 else None
    if isinstance(asked, nodes.Const) and value.element and asked.value in value.element.fields:
        fields = value.element.fields
        kept = {**fields, asked.value: replace(fields[asked.value], optional=False)}
        return replace(value, element=replace(value.element, fields=kept))
    return value


def _call(node: nodes.Call, scope: Scope) -> Known:
    function = _see(node.node, scope)
    for argument in (*node.args, *node.kwargs):
        _use(argument, scope)
    return replace(ANY, path=function.path, optional=True) if function.optional else ANY


def _asked(node: nodes.Test, scope: Scope) -> Known:
    if node.name not in scope.reading.environment.tests:
        hint = did_you_mean(node.name, list(scope.reading.environment.tests))
        scope.reading.add(scope, node, "template-filter", node.name, f"unknown test {node.name}", hint)
    return _unneeded(node, scope)


def _constant(node: nodes.Const, scope: Scope) -> Known:  # noqa: ARG001
    return TEXT if isinstance(node.value, str) else ANY


_WALKS: dict[type[nodes.Node], Callable[..., Known]] = {
    nodes.If: _if,
    nodes.CondExpr: _choice,
    nodes.And: _and_or,
    nodes.Or: _and_or,
    nodes.Not: _unneeded,
    nodes.Compare: _unneeded,
    nodes.Operand: _unneeded,
    nodes.For: _for,
    nodes.Assign: _assign,
    nodes.AssignBlock: _assign_block,
    nodes.With: _with,
    nodes.Macro: _macro,
    nodes.CallBlock: _macro,
    nodes.Block: _block,
    nodes.Include: _include,
    nodes.Import: _import,
    nodes.FromImport: _import,
    nodes.Output: _output,
    nodes.Name: _name,
    nodes.Getattr: _attribute,
    nodes.Getitem: _item,
    nodes.Filter: _filter,
    nodes.Call: _call,
    nodes.Test: _asked,
    nodes.Const: _constant,
}
