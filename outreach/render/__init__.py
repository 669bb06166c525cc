"""
Templates: Jinja2, sandboxed, undefined is an error; (template, facts) → Content; SMS segments.

    source       what a file's name and front matter say
    variables    what a template may name, documented once
    sandbox      the environment that templates run in
    filters      money, dates, greetings, links
    check        which names a template uses, and which do not exist, without running it
    inlining     an e-mail's style sheets into its elements
    flattening   an e-mail's template and its layouts as one, to be filled many times
    shaping      an e-mail from what is the same in every copy of it, and this one's values
    plain_text   an e-mail's text part from its HTML
    segments     SMS parts and encoding
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import TracebackType
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

from jinja2 import FunctionLoader, Template, TemplateNotFound, TemplateRuntimeError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError

from outreach.errors import OutreachError, Problem, TemplateError
from outreach.render.check import Reading, read_template
from outreach.render.filters import FILTERS, FUNCTIONS, zone_of
from outreach.render.flattening import flattened
from outreach.render.plain_text import tidy
from outreach.render.sandbox import GLOBALS, RUN, Links, MissingValueError, Run, Sandbox, gathered, may_rename_business
from outreach.render.segments import outside_gsm, sms_segments
from outreach.render.shaping import Gaps, Shape, as_read, html_and_text, read_html
from outreach.render.source import FOLDER, KINDS, Entry, Name, Source, name_of, name_problem, normal_locale, read_source
from outreach.render.variables import VARIABLES, Variable, sample_facts
from outreach.settings import SETTINGS_FILE, Business
from outreach.yamlfile import did_you_mean, listed

__all__ = [
    "FILTERS",
    "VARIABLES",
    "Content",
    "Gaps",
    "Link",
    "Shape",
    "Templates",
    "Variable",
    "as_read",
    "normal_locale",
    "read_html",
    "sample_facts",
    "sms_segments",
]


@dataclass(slots=True)  # not frozen: links and contents are made for every message, and freezing costs threefold
class Link:
    """A short id used in a message, to be stored with it."""

    token: str
    kind: str  # unsubscribe | preferences | survey | survey_score | url
    target: str = ""  # the address; the survey, or `survey:score`


@dataclass(slots=True)  # not frozen: see Link
class Content:
    """A message ready to hand over."""

    channel: str
    text: str
    subject: str = ""
    own_html: str = ""  # where it has no shape
    preheader: str = ""
    segments: int = 0  # SMS only
    encoding: str = ""  # SMS only: GSM-7 | UCS-2
    content_sid: str = ""  # WhatsApp's approved template
    variables: tuple[tuple[str, str], ...] = ()
    links: tuple[Link, ...] = ()
    shape: Shape | None = None  # what the HTML has in common with other copies, where nobody's values are in it
    values: tuple[str, ...] = ()  # those of the shape, as HTML

    @property
    def has_html(self) -> bool:
        """Whether there is HTML beside the text."""
        return self.shape is not None or bool(self.own_html)

    @property
    def html(self) -> str:
        """The whole HTML; put together anew, for most channels send it in parts."""
        return self.own_html if self.shape is None else self.shape.html.filled(self.values)


OFTEN = 20  # fillings of a template, after which it is worth to put it together with its layouts


@dataclass(slots=True)
class _Ready:
    """A template file, compiled."""

    language: str
    body: Template
    entries: Mapping[str, Template | str]  # a text that is the same for everybody, or a template
    variables: tuple[tuple[str, Template | str], ...]
    written_text: Template | None  # the e-mail's own plain-text part
    filled: int = 0  # how often
    flat: Template | None = None  # an e-mail's body that says the same in less time


class Templates:
    """
    The message templates of one release, compiled once each and cached.

    `files` maps paths (`message_templates/post_sale/thanks.sms.es.j2`) to texts; other paths are ignored, and
    nothing outside the mapping can be read.
    """

    def __init__(self, files: Mapping[str, str], business: Business) -> None:
        wanted = {path: text for path, text in files.items() if path.startswith(FOLDER) and path.endswith(".j2")}
        self._sources = {path: read_source(path, text) for path, text in wanted.items()}
        self._paths = {name: path for path in self._sources if (name := name_of(path)) is not None}
        self._business = business
        self._own = _business_facts(business)
        loader = FunctionLoader(self._load)
        constants = {} if any(map(may_rename_business, wanted.values())) else {"business": self._own}
        self._environments = {
            "text": Sandbox(loader, FUNCTIONS, html=False, constants=constants),
            "html": Sandbox(loader, FUNCTIONS, html=True, constants=constants),
        }
        self._found: dict[tuple[str, str, str, str], str | None] = {}
        self._ready: dict[str, _Ready | TemplateError] = {}
        self._readings: dict[tuple[str, frozenset[str] | None], Reading] = {}
        self._checked: dict[tuple[object, ...], list[Problem]] = {}

    def path(self, template: str, channel: str, locale: str | None, variant: str = "") -> str | None:
        """
        The file that such a message is made from, or None.

        The variant's own template (`<template>-<variant>`) goes before the step's; within one, `es-MX` falls
        back to `es` and to the file without a locale; a channel's own file goes before `.text.` of the same
        locale. Where there is nothing, the same is tried in the business's language.
        """
        key = (template, channel, locale or "", variant)
        if key not in self._found:
            if len(self._found) > 50_000:
                self._found.clear()
            self._found[key] = self._find(*key)
        return self._found[key]

    def _find(self, template: str, channel: str, locale: str, variant: str) -> str | None:
        names = [f"{template}-{variant}", template] if variant else [template]
        for wanted in (locale or self._business.locale, self._business.locale):
            for name in names:
                for fallback in _fallbacks(wanted):
                    for kind in KINDS.get(channel, ()):
                        if path := self._paths.get(Name(name, kind, fallback)):
                            return path
        return None

    def render(
        self,
        template: str,
        channel: str,
        locale: str | None,
        context: Mapping[str, Any],
        *,
        variant: str = "",
        zone: str = "",
        survey: str = "",
        link: Callable[[str, str], tuple[str, str]],
    ) -> Content:
        """
        The message for these facts, complete, or TemplateError naming template, line and variable.

        `context` has the keys that VARIABLES documents (`business` and `links` are added here) and leaves out
        names without a value. `zone` is the IANA zone that times are written in (default: the business's).
        `link(kind, target)` gives the token and the address of a short link; it is called once for each link
        that the message really holds, and those stand in `Content.links`. `survey` names the step's survey.
        """
        path = self.path(template, channel, locale, variant)
        if path is None:
            raise TemplateError(f"there is no template {template} for {channel}", template=template)
        ready = self._compiled(path)
        country = (context.get("customer") or {}).get("country") or ""
        run = Run(self._reader(ready, locale or "", country), self._zone(zone), link)
        facts = {**GLOBALS, **context, "business": self._own, "links": Links(run, survey), RUN: run}
        content = _content(ready, channel, facts, run)
        if not (content.text or content.content_sid or _shows_pictures(content)):
            raise TemplateError(f"{path}: the message is empty for these facts", template=path, line=1)
        ready.filled += 1
        if ready.filled == OFTEN and channel == "email":
            ready.flat = self._flat(path, ready)
        return content

    def _reader(self, ready: _Ready, locale: str, country: str) -> str:
        return _reader_locale(ready.language, locale, country, self._business.locale, self._business.country or "")

    def _zone(self, name: str) -> Any:
        try:
            return zone_of(name or self._business.timezone)
        except (KeyError, ValueError, ZoneInfoNotFoundError):
            return zone_of(self._business.timezone)

    def _load(self, name: str) -> tuple[str, str, Callable[[], bool]] | None:
        source = self._sources.get(FOLDER + name)
        return (source.body, source.path, lambda: True) if source else None

    def _compiled(self, path: str) -> _Ready:
        if path not in self._ready:
            try:
                self._ready[path] = self._compile(path)
            except TemplateError as error:
                self._ready[path] = error
        ready = self._ready[path]
        if isinstance(ready, TemplateError):
            raise TemplateError(str(ready), template=ready.template, line=ready.line, variable=ready.variable)
        return ready

    def _compile(self, path: str) -> _Ready:
        reading = self._reading(path)
        for problem in (*self._sources[path].problems, *reading.problems):
            if not problem.warning and problem.id not in ("template-block", "template-print"):
                variable = problem.text.removeprefix("unknown variable ") if problem.id == "template-variable" else ""
                raise TemplateError(str(problem), template=problem.file, line=problem.line, variable=variable)
        source, name = self._sources[path], name_of(path)
        kind = name.kind if name else ""
        environment = self._environments["html" if kind == "email" else "text"]
        own_text = self._paths.get(replace(name, kind="email_text")) if name and kind == "email" else None
        return _Ready(
            language=self._language(path),
            body=_template(environment, path),
            entries={key: self._entry(path, e) for key, e in source.entries.items() if key != "variables"},
            variables=tuple((key, self._entry(path, entry)) for key, entry in source.variables),
            written_text=_template(self._environments["text"], own_text) if own_text else None,
        )

    def _flat(self, path: str, ready: _Ready) -> Template | None:
        environment = self._environments["html"]
        constants = dict(environment.constants)
        if isinstance(preheader := ready.entries.get("preheader"), str) and preheader:
            constants["email"] = {"preheader": preheader}

        def read(name: str) -> nodes.Template | None:
            source = self._sources.get(FOLDER + name)
            return environment.parse(source.body, filename=source.path) if source else None

        tree = flattened(read, path.removeprefix(FOLDER), constants)
        if tree is None:
            return None
        code = environment.compile(tree, name=path, filename=path)
        return environment.template_class.from_code(environment, code, environment.make_globals(None))

    def _entry(self, path: str, entry: Entry) -> Template | str:
        if not any(mark in entry.text for mark in ("{{", "{%", "{#")):
            return _one_line(entry.text)
        environment = self._environments["text"]
        code = environment.compile("\n" * (entry.line - 1) + entry.text, name=path, filename=path)
        return environment.template_class.from_code(environment, code, environment.make_globals(None))

    def _language(self, path: str) -> str:
        """
        The language that a file is written in: its name's, or its front matter's `locale`.

        Otherwise the business's; English, where the business's language has a file of its own beside it.
        """
        name, entry = name_of(path), self._sources[path].entries.get("locale")
        said = normal_locale(entry.text) if entry else (name.locale if name else "")
        if said or name is None:
            return said
        business = normal_locale(self._business.locale)
        beside = (replace(name, locale=fallback) in self._paths for fallback in (business, business.partition("-")[0]))
        return "en" if any(beside) else business

    # --- checks ----------------------------------------------------------------------------------

    def problems(
        self,
        template: str,
        channels: Sequence[str],
        *,
        variants: Sequence[str] = (),
        subject: str = "customer",
        purpose: str = "marketing",
        has_offer: bool = False,
        has_survey: bool = False,
        max_segments: int = 2,
        position: tuple[str, int, int] = ("", 0, 0),
    ) -> list[Problem]:
        """
        What is wrong with a step's template, in every channel, language and variant it may be sent in.

        `position` is the place of the step's `template:`, for what has no place of its own. Warnings: names that
        some records lack and no `if` guards, and SMS of more than `max_segments` parts with sample facts.
        """
        subjects = (
            {subject}
            | ({"offer"} if has_offer or subject == "coupon" else set())
            | ({"survey"} if has_survey else set())
        )
        found: list[Problem] = []
        for channel in channels:
            if self.path(template, channel, None) is None:
                found.append(self._missing(template, channel, position))
            for path in self._files(template, channel, variants):
                key = (path, channel, frozenset(subjects), purpose, max_segments)
                if key not in self._checked:
                    self._checked[key] = self._file_problems(path, channel, subjects, purpose, max_segments)
                found += self._checked[key]
        if variants and not any(self._files(f"{template}-{variant}", c) for variant in variants for c in channels):
            text = f"the variants {listed(list(variants))} of {template} all read the same"
            hint = f"write {FOLDER}{template}-{variants[-1]}.{channels[0]}.j2"
            found.append(Problem(*position, "template-variants", text, hint, warning=True))
        return list(dict.fromkeys(found))

    def file_problems(self) -> list[Problem]:
        """What is wrong with template files whoever uses them: their names, front matter, syntax, unknown names."""
        found = [problem for path in self._sources if (problem := name_problem(path)) is not None]
        for path, source in self._sources.items():
            found += source.problems
            found += (problem for problem in self._reading(path).problems if not problem.warning)
        return list(dict.fromkeys(found))

    def attributes(self) -> Iterator[tuple[str, tuple[str, int, int]]]:
        """The further columns that templates name, such as `order.attributes.gift`, with file, line and column."""
        found = (pair for path in self._sources for pair in self._reading(path).attributes.items())
        yield from dict.fromkeys(found)

    def _reading(self, path: str, known: frozenset[str] | None = None) -> Reading:
        """What the file names and gets wrong, for a message about these records, or for whichever."""
        key = (path, known)
        if key not in self._readings:
            links = None if known is None else frozenset(self._business.links)
            self._readings[key] = read_template(self._environments, self._sources, path, known, links)
        return self._readings[key]

    def without_content_sid(self, template: str, variants: Sequence[str] = ()) -> list[str]:
        """The files that such WhatsApp messages may be made from, in any language, that name no approved template."""
        entries = {
            path: self._sources[path].entries.get("content_sid") for path in self._files(template, "whatsapp", variants)
        }
        return sorted(path for path, entry in entries.items() if entry is None or not entry.text)

    def _files(self, template: str, channel: str, variants: Sequence[str] = ()) -> list[str]:
        """Every file such messages may be made from, in any language."""
        names = {template, *(f"{template}-{variant}" for variant in variants)}
        kinds = KINDS.get(channel, ()) + (("email_text",) if channel == "email" else ())
        return [
            path
            for name, path in self._paths.items()
            if name.template in names and name.kind in kinds and not self._is_shadowed(name, channel)
        ]

    def _is_shadowed(self, name: Name, channel: str) -> bool:
        """Whether a `.text.` file is never read for the channel, which has a file of its own beside it."""
        return name.kind == "text" and replace(name, kind=channel) in self._paths

    def _missing(self, template: str, channel: str, position: tuple[str, int, int]) -> Problem:
        kinds = KINDS.get(channel, (channel,))
        others = {name.template for name in self._paths if name.kind in kinds}
        beside = sorted({name.kind for name in self._paths if name.template == template})
        hint = did_you_mean(template, sorted(others)) or f"write {FOLDER}{template}.{kinds[-1]}.j2"
        if beside:
            hint = f"it has {listed(beside)}; write {FOLDER}{template}.{kinds[-1]}.j2"
        return Problem(*position, "template-missing", f"there is no template {template} for {channel}", hint)

    def _file_problems(
        self, path: str, channel: str, subjects: set[str], purpose: str, max_segments: int
    ) -> list[Problem]:
        source = self._sources[path]
        known = frozenset(subjects | ({"email"} if channel == "email" else set()))
        reading = self._reading(path, known)
        found = [*source.problems, *reading.problems]
        if ".email." in path:
            found += _email_problems(source, reading, purpose)
        if not any(not problem.warning for problem in found):
            found += self._sample_problems(path, channel, known, reading.named, max_segments)
        return found

    def _sample_problems(
        self, path: str, channel: str, subjects: Collection[str], named: set[str], max_segments: int
    ) -> list[Problem]:
        """What only shows once the template is filled, with sample facts."""
        try:
            ready = self._compiled(path)
            run = Run(self._reader(ready, "", ""), self._zone(""), _sample_link)
            facts = {
                **GLOBALS,
                **sample_facts(subjects, named),
                "business": self._own,
                "links": Links(run, "csat"),
                RUN: run,
            }
            content = _content(ready, channel, facts, run)
        except TemplateError as error:
            return [Problem(error.template or path, error.line, 1, "template-render", str(error).partition(": ")[2])]
        if content.segments <= max_segments:
            return []
        text = (
            f"an SMS of {content.segments} parts ({content.encoding}, {len(content.text)} characters) with sample facts"
        )
        outside = outside_gsm(content.text)
        hint = _room(outside) if outside else f"sms_segments allows {max_segments}"
        cause = _shop_name(self._business.name, content.text, max_segments)
        return [Problem(path, 1, 1, "template-segments", text, hint, warning=True, cause=cause)]


def _room(outside: str) -> str:
    return f"{outside!r} {'halves' if len(outside) == 1 else 'halve'} the room of every part"


def _shop_name(name: str, text: str, most: int) -> Problem | None:
    """What all SMS of a shop have in common whose name alone makes them too long; None if it does not."""
    outside = outside_gsm(name)
    if not outside or sms_segments(text.replace(name, "x" * len(name)))[0] > most:
        return None
    said = f"`business.name` makes the SMS of templates longer than {most} parts, with sample facts"
    hint = f"{_room(outside)}: write the name without {'it' if len(outside) == 1 else 'them'} if it can be"
    return Problem(SETTINGS_FILE, 0, 0, "template-segments", said, hint, warning=True)


def _email_problems(source: Source, reading: Reading, purpose: str) -> list[Problem]:
    found = []
    if not (subject := source.entries.get("subject")) or not subject.text:
        hint = "begin the file with ---, subject: …, ---"
        found.append(Problem(source.path, 1, 1, "template-subject", "an e-mail without a subject", hint))
    if purpose == "marketing" and "links.unsubscribe" not in reading.named:
        text = "a marketing e-mail without an unsubscribe link"
        hint = 'extend "layout.email.j2", or write {{ links.unsubscribe }}'
        found.append(Problem(source.path, 1, 1, "template-unsubscribe", text, hint))
    return found


def _sample_link(kind: str, target: str) -> tuple[str, str]:  # noqa: ARG001
    return "Ab3dEf7hIj1k", "https://tienda.example/l/Ab3dEf7hIj1k"


def _business_facts(business: Business) -> dict[str, Any]:
    names = ("name", "timezone", "currency", "locale", "country", "postal_address")
    facts: dict[str, Any] = {name: value for name in names if (value := getattr(business, name))}
    return {**facts, "links": dict(business.links)}


def _fallbacks(locale: str) -> list[str]:
    whole = normal_locale(locale)
    return list(dict.fromkeys((whole, whole.partition("-")[0], "")))


@lru_cache(maxsize=4096)
def _reader_locale(language: str, wanted: str, country: str, business_locale: str, business_country: str) -> str:
    """
    How amounts and dates are written (`es_MX`): in the text's language, as in the reader's country.

    The country is the locale's own, else the customer's, else the business's, if it has that language at all.
    """
    from babel.localedata import exists

    language, _, own = language.partition("-")
    wanted_language, _, theirs = normal_locale(wanted).partition("-")
    business_language, _, ours = normal_locale(business_locale).partition("-")
    candidates = (
        own,
        theirs if wanted_language == language else "",
        country.upper(),
        ours if business_language == language else "",
        business_country.upper(),
    )
    language = language or business_language
    found = (f"{language}_{place}" for place in candidates if place and place.isalnum())
    return next((name for name in (*found, language) if exists(name)), "en")


# --- filling -----------------------------------------------------------------------------------


def _template(environment: Sandbox, path: str) -> Template:
    try:
        return environment.get_template(path.removeprefix(FOLDER))
    except TemplateSyntaxError as error:
        text = f"{path}:{error.lineno}:1: cannot be read: {error.message}"
        raise TemplateError(text, template=path, line=error.lineno) from None
    except (RecursionError, MemoryError, SyntaxError):
        raise TemplateError(f"{path}: is nested too deeply", template=path, line=1) from None


def _content(ready: _Ready, channel: str, facts: dict[str, Any], run: Run) -> Content:
    try:
        return _made(ready, channel, facts, run)
    except OutreachError:
        raise
    except Exception as error:  # one message that cannot be made must not be in the way of all others
        raise _translated(error, ready.body, facts) from None


def _made(ready: _Ready, channel: str, facts: dict[str, Any], run: Run) -> Content:
    if channel == "email":
        return _email(ready, facts, run)
    text = tidy(_filled(ready.body, facts))
    if channel == "sms":
        count, encoding = sms_segments(text)
        return Content(channel, text, segments=count, encoding=encoding, links=_links(run))
    if channel != "whatsapp":
        return Content(channel, text, links=_links(run))
    values = tuple((name, _one_line(_filled(value, facts))) for name, value in ready.variables)
    sid = _one_line(_filled(ready.entries["content_sid"], facts)) if "content_sid" in ready.entries else ""
    return Content(channel, text, content_sid=sid, variables=values, links=_links(run))


def _email(ready: _Ready, facts: dict[str, Any], run: Run) -> Content:
    subject, preheader = (_one_line(_filled(ready.entries.get(key, ""), facts)) for key in ("subject", "preheader"))
    facts["email"] = {key: text for key, text in (("subject", subject), ("preheader", preheader)) if text}
    parts = _body(ready, facts, run)
    written = tidy(_filled(ready.written_text, facts)) if ready.written_text else ""
    made = html_and_text(parts, ready.body.filename or "", text=not ready.written_text)
    return Content(
        "email",
        written or made.text,
        subject,
        made.own_html,
        preheader,
        links=_links(run),
        shape=made.shape,
        values=made.values,
    )


def _body(ready: _Ready, facts: dict[str, Any], run: Run) -> list[str]:
    if ready.flat is not None:
        steps = run.steps
        try:
            return gathered(ready.flat.root_render_func(ready.flat.new_context(facts, shared=True)))
        except Exception:  # the template itself says where it fails
            run.steps = steps
    return _parts(ready.body, facts)


def _shows_pictures(content: Content) -> bool:
    return content.has_html and "<img" in content.html.lower()


def _links(run: Run) -> tuple[Link, ...]:
    """Those that the message really holds."""
    return tuple(Link(token, *key) for key, (token, _) in run.links.items())


def _one_line(text: str) -> str:
    """The text on one line: what goes into a header can begin no other header."""
    if text.isprintable() and "  " not in text and text[:1] != " " and text[-1:] != " ":
        return text  # of all white space, only single spaces are printable
    return " ".join(text.split())


def _filled(template: Template | str, facts: dict[str, Any]) -> str:
    return template if isinstance(template, str) else "".join(_parts(template, facts))


def _parts(template: Template, facts: dict[str, Any]) -> list[str]:
    try:
        # shared: the facts hold the globals already, and Jinja2 need not copy them once more
        return gathered(template.root_render_func(template.new_context(facts, shared=True)))
    except OutreachError:
        raise
    except Exception as error:
        raise _translated(error, template, facts) from None


def _translated(error: Exception, template: Template, facts: Mapping[str, Any]) -> TemplateError:
    """The error with its place; never with a value, which may be a name or an address."""
    file, line = _place(error.__traceback__) or (template.filename or "", 1)
    variable = ""
    if isinstance(error, MissingValueError):
        variable = error.value.path({name: value for name, value in facts.items() if name != RUN})
        text = f"{variable} has no value for this record: put it inside {{% if {variable} %}}, or add `| default`"
    elif isinstance(error, TemplateNotFound):
        text = f"there is no {FOLDER}{error.name}"
    elif isinstance(error, RecursionError):
        text = "calls or includes itself without end"
    elif isinstance(error, SecurityError | TemplateRuntimeError | TemplateSyntaxError):
        text = error.message or "cannot be filled"
    else:
        text = f"cannot be computed ({type(error).__name__})"
    return TemplateError(f"{file}:{line}: {text}", template=file, line=line, variable=variable)


def _place(traceback: TracebackType | None) -> tuple[str, int] | None:
    place = None
    while traceback is not None:
        source = traceback.tb_frame.f_globals.get("__jinja_template__")
        if isinstance(source, Template) and source.filename:
            place = source.filename, source.get_corresponding_lineno(traceback.tb_lineno)
        traceback = traceback.tb_next
    return place
