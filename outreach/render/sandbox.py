"""
The Jinja2 environment that templates run in: nothing of Python is in reach, and every template ends.

What a template may touch is listed, not what it may not: the attributes in `_ATTRIBUTES`, the filters it is
given. Loops, calls and every text made are counted, so that no template takes over the
machine. A documented name that a record lacks is false in `{% if %}` and an error when it is printed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import date, datetime, tzinfo
from decimal import Decimal
from functools import lru_cache, partial
from itertools import islice, pairwise
from typing import Any, NoReturn

from jinja2 import (
    BaseLoader,
    Environment,
    Template,
    TemplateRuntimeError,
    TemplateSyntaxError,
    Undefined,
    nodes,
    pass_context,
)
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.runtime import Context, LoopContext
from jinja2.runtime import Undefined as MissingElse
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, missing
from markupsafe import Markup

from outreach.values import Money, in_main_units

LARGEST_TEXT = 200_000  # characters of any one text; twice what a mailbox provider shows of an e-mail
LARGEST_RANGE = 10_000
LARGEST_LIST = 1_000
LARGEST_NUMBER = 10**30
AT_ONCE = 64  # parts of a text that are put together before it is measured
MOST_STEPS = 20_000  # rounds of loops and calls in one rendering
RUN = "_run"  # the name of the Run in a template's context; `check` refuses it as unknown in a template


@dataclass
class Run:
    """One rendering: what its filters and links need, and how much it may still do."""

    locale: str
    zone: tzinfo
    link: Callable[[str, str], tuple[str, str]]
    links: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)  # (kind, target) → (token, url)
    steps: int = MOST_STEPS

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise TemplateRuntimeError(f"does more than {MOST_STEPS:,} rounds of loops and calls")

    def url(self, kind: str, target: str = "") -> str:
        if (kind, target) not in self.links:
            self.links[kind, target] = self.link(kind, target)
        return self.links[kind, target][1]


class Links:
    """The `links` of a template: each is made, once, when it is named."""

    def __init__(self, run: Run, survey: str = "") -> None:
        self._run = run
        self._survey = survey

    @property
    def unsubscribe(self) -> str:
        return self._run.url("unsubscribe")

    @property
    def preferences(self) -> str:
        return self._run.url("preferences")

    @property
    def survey(self) -> str:
        return self._run.url("survey", self._survey)

    def survey_score(self, score: int) -> str:
        return self._run.url("survey_score", f"{self._survey}:{score}")


class MissingValueError(UndefinedError):
    """A value that this record lacks was printed or computed with."""

    def __init__(self, value: Missing, message: str | None = None) -> None:
        self.value = value
        super().__init__(message)


class Missing(Undefined):
    """A documented name without a value: false, equal to nothing, and an error wherever a value is needed."""

    __slots__ = ()

    def __init__(self, hint: str | None = None, obj: Any = missing, name: str | None = None, exc: Any = None) -> None:
        super().__init__(hint, obj, name, exc or partial(MissingValueError, self))  # type: ignore[arg-type]

    def fail(self) -> NoReturn:
        raise MissingValueError(self)

    def __str__(self) -> str:
        self.fail()

    def __iter__(self) -> Iterator[Any]:
        self.fail()

    def __len__(self) -> int:
        self.fail()

    def __bool__(self) -> bool:
        return False

    __hash__ = Undefined.__hash__

    def path(self, facts: Mapping[str, Any]) -> str:
        """Its dotted name, found by looking for the record it was asked of in `facts`."""
        obj, name = self._undefined_obj, self._undefined_name or "?"
        if obj is missing:
            return name
        parent = obj.path(facts) if isinstance(obj, Missing) else _path_of(obj, facts)
        return f"{parent}.{name}".replace(".[", "[") if parent else name


def _path_of(wanted: object, facts: object, path: str = "") -> str:
    parts: Iterable[tuple[str, object]] = ()
    if isinstance(facts, Mapping):
        parts = ((f"{path}.{name}" if path else str(name), part) for name, part in facts.items())
    elif isinstance(facts, list):
        parts = ((f"{path}[]", part) for part in facts)
    for name, part in parts:
        found = name if part is wanted else _path_of(wanted, part, name)
        if found:
            return found
    return ""


TOO_LARGE = f"makes a text over {LARGEST_TEXT:,} characters"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NOT_PRINTED = {
    Money: "an amount of money cannot be printed as it is: add `| money`",
    datetime: "a time cannot be printed as it is: add `| date` or `| datetime`",
    date: "a date cannot be printed as it is: add `| date`",
    bool: "yes or no cannot be printed: use {% if %}",
}
_PRINTED = (str, int, float, Decimal)


def _printable(value: Any) -> Any:
    """What `{{ … }}` lets through; control characters, text-direction overrides and half characters are dropped."""
    kind = type(value)
    if kind is not str and kind is not Markup:
        if isinstance(value, Undefined):
            if type(value) is MissingElse:
                return ""  # {{ a if b }} without an else
            return str(value)
        if kind not in _PRINTED:
            raise TemplateRuntimeError(_NOT_PRINTED.get(kind, "a list, record or function cannot be printed"))
        value = str(value)
    if not value.isprintable():
        value = kind(CONTROLS.sub("", value.replace("\r\n", "\n")))
    return value


def joined(parts: Iterable[str]) -> str:
    """The parts as one text; TemplateRuntimeError once it grows over LARGEST_TEXT, some parts later at most."""
    return "".join(gathered(parts))


def gathered(parts: Iterable[str]) -> list[str]:
    """The parts; TemplateRuntimeError once they grow over LARGEST_TEXT together, some parts later at most."""
    coming = iter(parts)
    kept = some = list(islice(coming, AT_ONCE))
    size = 0
    while True:
        size += sum(map(len, some))
        if size > LARGEST_TEXT:
            raise TemplateRuntimeError(TOO_LARGE)
        if len(some) < AT_ONCE:
            return kept
        some = list(islice(coming, AT_ONCE))
        kept += some


# --- attributes --------------------------------------------------------------------------------

_LOOP = "index index0 revindex revindex0 first last length depth depth0 previtem nextitem cycle changed"
_MOMENT = frozenset({"year", "month", "day", "hour", "minute"})
_ATTRIBUTES: dict[type, frozenset[str]] = {
    str: frozenset({"lower", "upper", "title", "capitalize", "strip", "split", "startswith", "endswith"}),
    Money: frozenset({"amount", "currency"}),
    datetime: _MOMENT,
    date: _MOMENT - {"hour", "minute"},
    Links: frozenset({"unsubscribe", "preferences", "survey", "survey_score"}),
    LoopContext: frozenset(_LOOP.split()),
}
_ATTRIBUTES[Markup] = _ATTRIBUTES[str]

TYPE_ATTRIBUTES = {
    "text": _ATTRIBUTES[str],
    "money": _ATTRIBUTES[Money],
    "time": _MOMENT,
    "date": _ATTRIBUTES[str],
    "loop": _ATTRIBUTES[LoopContext],
}


COUNTED = "_counted"


@pass_context
def _counted(context: Context, values: Iterable[Any]) -> Iterator[Any]:
    run: Run = context.parent[RUN]
    for value in values:
        run.step()
        yield value


class _Code(CodeGenerator):
    """`~` is counted like every other way to make a text longer, and all that is printed goes one way: `printed`."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.glued(context, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:  # noqa: ARG002
        self.write("environment.printed(")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:  # noqa: ARG002
        self.write(")")

    def visit_FilterBlock(self, node: nodes.FilterBlock, frame: Frame) -> None:  # noqa: N802
        inner = frame.inner()
        inner.symbols.analyze_node(node)
        self.enter_frame(inner)
        self.buffer(inner)
        self.blockvisit(node.body, inner)
        self.start_write(frame, node)
        self.write("environment.printed(")
        self.visit_Filter(node.filter, inner)
        self.write(")")
        self.end_write(frame)
        self.leave_frame(inner)


_GUARDED: Any = (
    nodes.Getattr,
    nodes.For,
    nodes.Import,
    nodes.FromImport,
    nodes.Include,
    nodes.EvalContextModifier,
    nodes.ScopedEvalContextModifier,
)


class Sandbox(ImmutableSandboxedEnvironment):
    """
    Jinja2 with listed attributes and filters, counted loops, and no way to read anything but `loader`'s templates.

    With `html`, every value is escaped, without exception: there is no `safe` filter and no `autoescape` block.
    Texts among `constants` are printed by name at no cost: no template may give these names another meaning.
    """

    code_generator_class = _Code
    intercepted_binops = frozenset({"+", "*", "**", "%"})
    concat = staticmethod(joined)

    def __init__(
        self,
        loader: BaseLoader,
        filters: Mapping[str, Callable[..., Any]],
        *,
        html: bool,
        constants: Mapping[str, Any] | None = None,
    ) -> None:
        self.constants = constants or {}
        self._read: dict[Any, Template] = {}
        super().__init__(
            loader=loader,
            autoescape=html,
            undefined=Missing,
            finalize=_printable,
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            cache_size=-1,
            auto_reload=False,
        )
        self.filters = {**filters, COUNTED: _counted}
        self.globals = GLOBALS
        self.tree = lru_cache(maxsize=1024)(self._tree)  # layouts are read with every file that extends them

    def _tree(self, text: str, file: str) -> nodes.Template:
        """The text as Jinja2 reads it, for looking only; `tree` keeps the last ones. Raises TemplateSyntaxError."""
        return self.parse(text, filename=file)

    def make_globals(self, d: MutableMapping[str, Any] | None) -> MutableMapping[str, Any]:  # noqa: ARG002
        """The same few for every template: Jinja2 would chain and copy them for each rendering."""
        return self.globals

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for node in list(tree.find_all(_GUARDED)):
            if isinstance(node, nodes.Getattr):
                if node.attr.startswith("_"):
                    text = f"names that begin with _ are refused ({node.attr})"
                    raise TemplateSyntaxError(text, node.lineno, name, filename)
            elif isinstance(node, nodes.For):
                node.iter = nodes.Filter(node.iter, COUNTED, [], [], None, None, lineno=node.lineno)
            elif isinstance(node, nodes.Import | nodes.FromImport | nodes.Include):
                node.with_context = True
            else:
                raise TemplateSyntaxError("autoescape cannot be changed", node.lineno, name, filename)
        return tree

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        """Jinja2 writes constants into the words around them: so what is the same for everybody costs nothing."""
        if self.constants:
            for output in source.find_all(nodes.Output):
                output.nodes = [folded(node, self.constants) for node in output.nodes]
        return super()._generate(source, name, filename, defer_init)

    def get_template(
        self,
        name: Any,
        parent: str | None = None,
        globals: MutableMapping[str, Any] | None = None,  # noqa: A002
    ) -> Template:
        """Each is read once, and never changes: Jinja2 would ask its loader anew."""
        found = self._read.get(name)
        if found is None:
            found = super().get_template(name, parent, globals)
            self._read[name] = found
        return found

    def getattr(self, obj: Any, attribute: str) -> Any:
        kind = type(obj)
        if kind is dict or (kind not in _ATTRIBUTES and isinstance(obj, Mapping)):  # asking a Mapping is dear
            try:
                return obj[attribute]
            except KeyError:
                return Missing(obj=obj, name=attribute)
        if isinstance(obj, Undefined):
            return Missing(obj=obj, name=attribute)
        return self._listed(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Mapping):
            return self.getattr(obj, argument)
        if isinstance(obj, list | tuple | str) and isinstance(argument, int):
            try:
                return obj[argument]
            except IndexError:
                return Missing(obj=obj, name=f"[{argument}]")
        return self.getattr(obj, str(argument))

    def _listed(self, obj: Any, attribute: str) -> Any:
        if attribute in _ATTRIBUTES.get(type(obj), ()):
            return in_main_units(obj) if type(obj) is Money and attribute == "amount" else getattr(obj, attribute)
        if isinstance(obj, Namespace) and not attribute.startswith("_"):
            return getattr(obj, attribute, Missing(name=attribute))
        if type(obj).__name__ == "TemplateReference" and not attribute.startswith("_"):
            return obj[attribute]
        raise SecurityError(f"a template may not read {attribute!r} of this")

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:  # noqa: ARG002
        return attr in _ATTRIBUTES.get(type(obj), ())

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        __context.parent[RUN].step()
        if isinstance(__obj, Missing):
            __obj.fail()
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        context.parent[RUN].step()
        if operator == "%" and not _number(left):
            raise SecurityError("texts are not formatted with %: use filters")
        if operator == "**" and not (_number(right) and abs(right) <= 100):
            raise SecurityError("a power over 100 is not computed")
        if operator == "*":
            _check_product(left, right)
        result = self.binop_table[operator](left, right)
        if isinstance(result, int) and abs(result) > LARGEST_NUMBER:
            raise TemplateRuntimeError("makes a number too large")
        if isinstance(result, str | list | tuple):
            limit = LARGEST_TEXT if isinstance(result, str) else LARGEST_LIST
            if len(result) > limit:
                raise TemplateRuntimeError(TOO_LARGE)
        return result

    def printed(self, value: Any) -> str:
        """
        What `{{ … }}` and a `filter` block show of a value; escaped in HTML.

        Jinja2 would escape the first in twice the time, and not the second.
        """
        text = _printable(value)
        if not self.autoescape:
            return str(text)
        if type(text) is Markup:
            return text
        if "&" in text or "<" in text or ">" in text or '"' in text or "'" in text:
            return Markup.escape(text)
        return str.__new__(Markup, text)

    def glued(self, context: Context, parts: tuple[Any, ...]) -> str:
        """`a ~ b`; escaped in HTML."""
        context.parent[RUN].step()
        if self.autoescape:
            return Markup(joined(Markup.escape(part) for part in parts))  # noqa: S704 (each part is escaped)
        return joined(str(part) for part in parts)


def may_rename_business(source: str) -> bool:
    """Whether a tag of the template names `business` as a whole, as one would that gives it another meaning."""
    if _WHOLE.search(source) is None:
        return False
    try:
        tokens = [(kind, text) for _, kind, text in _LEXER.lex(source) if kind != "whitespace"]
    except TemplateSyntaxError:
        return True
    in_tag = False
    for (kind, text), (_, following) in pairwise([*tokens, ("end", "")]):
        in_tag = kind == "block_begin" or (in_tag and kind != "block_end")
        if in_tag and (kind, text) == ("name", "business") and following != ".":
            return True
    return False


_WHOLE = re.compile(r"\bbusiness\b(?!\s*\.)")
_LEXER = Environment(autoescape=True)  # only reads


def folded(node: nodes.Expr, constants: Mapping[str, Any]) -> nodes.Expr:
    """The text that a dotted name among the constants stands for; any other expression as it is."""
    value = constant(node, constants)
    return nodes.Const(value, lineno=node.lineno) if type(value) is str else node


def constant(node: nodes.Node, constants: Mapping[str, Any]) -> Any:
    """What a name or dotted name stands for among the constants; None where it stands for nothing there."""
    if isinstance(node, nodes.Name):
        return constants.get(node.name)
    if isinstance(node, nodes.Getattr) and isinstance(of := constant(node.node, constants), Mapping):
        return of.get(node.attr)
    return None


def _number(value: object) -> bool:
    return isinstance(value, int | float | Decimal)


def _check_product(left: Any, right: Any) -> None:
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str | list | tuple) and isinstance(times, int) and len(value) * times > LARGEST_LIST:
            raise TemplateRuntimeError("repeats a text or list too often")


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > LARGEST_RANGE:
        raise TemplateRuntimeError(f"a range has at most {LARGEST_RANGE:,} numbers")
    return numbers


GLOBALS: dict[str, Any] = {"range": _range, "namespace": Namespace}
