"""
Recorded requests against the providers' own OpenAPI descriptions, read where they lie.

`problems("twilio_messages.json", …)` says what a request of ours does that the provider's description
does not allow: wrong path, method, login, type or length, a required parameter that is missing, and
(which OpenAPI itself lets pass) a parameter that the description does not know.
A test that asks skips where the folder of descriptions is missing, and fails there when CI=true.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from openapi_core import Config, OpenAPI
from openapi_core.datatypes import RequestParameters
from werkzeug.datastructures import Headers, ImmutableMultiDict

SPECS = Path(__file__).parents[2] / "shared" / "specs"
FORM, JSON = "application/x-www-form-urlencoded", "application/json"


def problems(spec: str, method: str, path: str, headers: Mapping[str, str], body: bytes) -> list[str]:
    """What the description has against this request; `path` has its query, header names have any case."""
    description = described(spec)
    request = _Request(description.host, method.lower(), path, headers, body)
    found = [_text(error) for error in description.api.iter_request_errors(request)]
    operation = description.operation(request.path, request.method)
    if operation is None:
        return found
    return found + [f"unknown parameter: {name}" for name in _unknown(description, operation, request)]


@dataclass
class _Request:
    """A recorded request as `openapi_core` wants to see it."""

    host_url: str
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None
    path: str = ""
    parameters: RequestParameters = field(default_factory=RequestParameters)

    def __post_init__(self) -> None:
        self.path = urlsplit(self.target).path
        self.parameters = RequestParameters(
            query=ImmutableMultiDict(self.query), header=Headers(dict(self.headers)), path={}
        )

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def content_type(self) -> str:
        return next((value for name, value in self.headers.items() if name.lower() == "content-type"), "").lower()


@dataclass(frozen=True)
class _Description:
    raw: Mapping[str, Any]
    api: OpenAPI
    host: str

    def operation(self, path: str, method: str) -> Mapping[str, Any] | None:
        """The operation that a path meets, with the path's own parameters; a pattern without braces goes first."""
        patterns = sorted(self.raw["paths"], key=lambda pattern: pattern.count("{"))
        whole: Mapping[str, Any] = next(
            (self.raw["paths"][pattern] for pattern in patterns if _meets(pattern, path)), {}
        )
        if method not in whole:
            return None
        operation: Mapping[str, Any] = whole[method]
        return {**operation, "parameters": [*whole.get("parameters", ()), *operation.get("parameters", ())]}

    def resolved(self, node: Any) -> Any:
        while isinstance(node, Mapping) and "$ref" in node:
            reference = node["$ref"]
            node = self.raw
            for name in reference.removeprefix("#/").split("/"):
                node = node[name.replace("~1", "/").replace("~0", "~")]
        return node


def _meets(pattern: str, path: str) -> bool:
    names = re.split(r"(\{\w+\})", pattern)
    return re.fullmatch("".join("[^/]+" if name[:1] == "{" else re.escape(name) for name in names), path) is not None


@cache
def _read(path: Path) -> _Description:
    raw = json.loads(path.read_text(encoding="utf-8"))
    # SendGrid's description of its logs breaks OpenAPI's own rules in an example; it is good enough for requests.
    config = Config(spec_validator_cls=None, extra_format_validators={"uri": _is_uri, "email": _is_email})
    return _Description(raw, OpenAPI.from_dict(raw, config), raw["servers"][0]["url"])


def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or re.fullmatch(r"https?://[^\s/?#_]+([/?#]\S*)?", value) is not None


def _is_email(value: object) -> bool:
    return not isinstance(value, str) or re.fullmatch(r"[^\s@<>]+@[^\s@<>]+", value) is not None


def described(spec: str) -> _Description:
    """A provider's description; skips the test where there is none, and fails it in CI."""
    path = SPECS / spec
    if not path.is_file():
        reason = f"the providers' descriptions are not here: {spec} belongs in ../shared/specs"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return _read(path)


def is_here(spec: str) -> bool:
    """Whether requests can be checked at all; CI always must."""
    return (SPECS / spec).is_file() or os.environ.get("CI") == "true"


def _text(error: BaseException) -> str:
    """The innermost cause, with the place of each breach of a schema."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    breaches = [f"{one.json_path}: {one.message}" for one in getattr(error, "schema_errors", ())]
    return "; ".join(breaches) or str(error) or type(error).__name__


def _unknown(description: _Description, operation: Mapping[str, Any], request: _Request) -> Iterator[str]:
    parameters = [description.resolved(one) for one in operation["parameters"]]
    known = {one["name"] for one in parameters if one["in"] == "query"}
    yield from (f"query {name}" for name, _ in request.query if name not in known)
    if not request.body or "requestBody" not in operation:
        yield from ["body"] if request.body else []
        return
    kind = request.content_type.partition(";")[0].strip()
    media = description.resolved(operation["requestBody"])["content"].get(kind)
    if media is None:
        return  # the validator has said so
    schema = description.resolved(media["schema"])
    if kind == FORM:
        names = [name for name, _ in parse_qsl(request.body.decode(), keep_blank_values=True)]
        yield from (name for name in names if name not in schema["properties"])
    elif kind == JSON:
        yield from _unknown_keys(description, schema, json.loads(request.body), "$")


def _unknown_keys(description: _Description, schema: Any, value: Any, at: str) -> Iterator[str]:
    """The keys of a JSON value that its schema does not name, at any depth."""
    schema = description.resolved(schema)
    if isinstance(value, list):
        for index, one in enumerate(value):
            yield from _unknown_keys(description, schema.get("items", {}), one, f"{at}[{index}]")
    if not isinstance(value, dict) or "properties" not in schema:
        return  # a free mapping: its keys are ours to choose
    for name, one in value.items():
        if name in schema["properties"]:
            yield from _unknown_keys(description, schema["properties"][name], one, f"{at}.{name}")
        elif not schema.get("additionalProperties"):
            yield f"{at}.{name}"
