"""Text → tree: sqlglot reads it, once every word and sign in it is known; slips get a correction."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from outreach.conditions.vocabulary import MAX_DEPTH, MAX_LENGTH
from outreach.errors import ConditionError

_KEPT = (
    *("STRING", "NUMBER", "EQ", "NEQ", "LT", "LTE", "GT", "GTE", "DASH"),
    *("L_PAREN", "R_PAREN", "L_BRACKET", "R_BRACKET", "COMMA", "DOT", "FARROW"),
)
_WORDS = {word.lower(): word for word in ("AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL", "LIKE", "TRUE", "FALSE")}
_SLIPS = {"==": "=", "&&": "and", "||": "or", "!": "not ", "&": "and", "|": "or", "=<": "<=", "~": "like"}
_SLIP = re.compile(
    r"""'(?:[^']|'')*'|"(?P<a>[^"]*)"|[“„](?P<b>[^“”]*)[“”]|[‘‚](?P<c>[^‘’]*)’|`(?P<d>[^`´]*)[`´]|«(?P<e>[^»]*)»"""
    r"|==|=<|&&?|\|\|?|!(?!=)|~"
)
_QUOTES = '"“”„‘’‚`´«»'

_STATEMENT = "a condition only asks a question: statements are refused"
_QUERY = "queries are refused: write a condition over the facts, such as orders_count >= 2 and tagged('vip')"
_LIKE = "compare text with like, where % is any text and _ any one character"
_BRANCH = "write it with and, or, not"
_REFUSED = {
    "as": "aliases are refused: name the facts as they are",
    "cast": "attributes are compared as numbers beside a number",
    "isnull": "write `is null`",
    "notnull": "write `is not null`",
    "where": "leave out the word `where`",
} | {
    word: advice
    for advice, words in (
        (_STATEMENT, "insert update delete drop alter create truncate grant revoke pragma attach detach set exec"),
        (_STATEMENT, "execute call copy vacuum merge replace begin commit rollback explain"),
        (_QUERY, "select from join union intersect except having group limit exists with by"),
        (_LIKE, "ilike regexp rlike similar glob contains startswith endswith escape"),
        (_BRANCH, "case when then else end if xor any some all"),
    )
    for word in words.split()
}
_WORD = re.compile(r"[^\W\d]\w*")


def tree(text: str) -> Any:
    _check_text(text)
    return _parse(text)


@lru_cache(maxsize=512)
def _parse(text: str) -> Any:
    """The tree of an expression whose every word and sign is one we know; ConditionError otherwise."""
    from sqlglot import exp
    from sqlglot.dialects.dialect import Dialect
    from sqlglot.errors import SqlglotError

    dialect = Dialect.get_or_raise(None)
    try:
        tokens = dialect.tokenize(text)
    except SqlglotError as error:
        raise error_at(text, len(text) - 1, "a quote is not closed") from error
    if not tokens:
        raise ConditionError("the condition is empty: write one, such as orders_count >= 2, or leave it out")
    known = _known_tokens(tokens, text)
    try:
        tree = dialect.parser().parse_into(exp.Condition, known, text)[0]
    except SqlglotError as error:
        raise _unparsed(text, known, error) from error
    if tree is None:
        raise error_at(text, 0, "this is not a condition")
    return tree


def _check_text(text: str) -> None:
    if not isinstance(text, str):
        raise ConditionError("a condition is text, such as orders_count >= 2")
    if len(text) > MAX_LENGTH:
        raise ConditionError(f"the condition is too long: {len(text):,} characters, {MAX_LENGTH:,} are allowed")
    for index, character in enumerate(text):
        if (character < " " and character not in "\t\r\n") or "\ud800" <= character <= "\udfff" or character == "\x7f":
            raise error_at(text, index, "there is a control character")


def _known_tokens(tokens: Sequence[Any], text: str) -> list[Any]:
    """The tokens with dotted names joined and every other word made plain, so that no keyword of SQL remains."""
    known: list[Any] = []
    depth = 0
    for index, token in enumerate(tokens):
        _refuse_comment(token, text)
        kind, source = token.token_type.name, text[token.start : token.end + 1]
        depth += (kind in ("L_PAREN", "L_BRACKET")) - (kind in ("R_PAREN", "R_BRACKET"))
        if depth > MAX_DEPTH:
            raise error_at(text, token.start, f"brackets are nested more than {MAX_DEPTH} deep")
        if _WORD.fullmatch(source):
            before_dot = index + 1 < len(tokens) and tokens[index + 1].token_type.name == "DOT"
            _add_word(known, token, source, text, before_dot=before_dot)
        elif kind in _KEPT and source not in _SLIPS and (kind != "STRING" or source[0] == "'"):
            known.append(token)
        else:
            raise _slip(text, token.start, source)
    return known


def _add_word(known: list[Any], token: Any, source: str, text: str, *, before_dot: bool) -> None:
    from sqlglot import Token, TokenType

    lower = source.lower()
    if len(known) >= 2 and known[-1].token_type == TokenType.DOT and known[-2].token_type == TokenType.VAR:
        known.pop()
        first = known.pop()
        known.append(Token(TokenType.VAR, f"{first.text}.{source}", first.line, token.col, first.start, token.end))
    elif lower in _WORDS:
        known.append(Token(TokenType[_WORDS[lower]], source, token.line, token.col, token.start, token.end))
    elif lower in _REFUSED and not before_dot:
        raise _refused_word(text, token, lower)
    else:
        known.append(Token(TokenType.VAR, source, token.line, token.col, token.start, token.end))


def _refuse_comment(token: Any, text: str) -> None:
    if token.comments:
        start = next((at for mark in ("--", "/*") if (at := text.find(mark)) >= 0), token.start)
        raise error_at(text, start, "comments of SQL are refused: use a YAML comment, `# …`")


def _refused_word(text: str, token: Any, word: str) -> ConditionError:
    advice = _REFUSED[word]
    if word == "where":
        advice += f": {line_of(text[: token.start] + text[token.end + 1 :], text, token.start)}"
    return error_at(text, token.start, f"`{word}` is not part of a condition: {advice}")


def _slip(text: str, start: int, source: str) -> ConditionError:
    corrected = line_of(_SLIP.sub(_mended, text), text, start)
    if source[0] in _QUOTES:
        return error_at(text, start, f"text stands in single quotes: {corrected}")
    if source in _SLIPS:
        return error_at(text, start, f"write `{_SLIPS[source].strip()}` instead of `{source}`: {corrected}")
    if source == ";":
        return error_at(text, start, "`;` is refused: a condition is one expression")
    return error_at(text, start, f"`{source[:20]}` is not part of a condition")


def _mended(match: re.Match[str]) -> str:
    inner = next((group for group in match.groups() if group is not None), None)
    if inner is not None:
        return "'" + inner.replace("'", "''") + "'"
    return _SLIPS.get(match[0], match[0])


def line_of(corrected: str, text: str, offset: int) -> str:
    """The corrected form of the line of the text that holds the offset; never long."""
    lines, number = corrected.split("\n"), text.count("\n", 0, offset)
    line = " ".join(lines[min(number, len(lines) - 1)].split())
    return line if len(line) <= 200 else line[:199] + "…"


def error_at(text: str, offset: int, message: str) -> ConditionError:
    offset = max(offset, 0)
    line_start = text.rfind("\n", 0, offset) + 1
    return ConditionError(message, line=text.count("\n", 0, offset) + 1, column=offset - line_start + 1)


def _unparsed(text: str, tokens: Sequence[Any], error: Any) -> ConditionError:
    detail = error.errors[0] if getattr(error, "errors", None) else {}
    place = (detail.get("line"), detail.get("col"))
    token = next((token for token in tokens if (token.line, token.col) == place), tokens[-1])
    missing = "missing" in str(detail.get("description", "")) or token is tokens[-1]
    what = "something is missing after" if missing else "the condition cannot be read at"
    return error_at(text, token.start, f"{what} `{text[token.start : token.end + 1][:40]}`")
