from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outreach import yamlfile
from outreach.yamlfile import Node


def problems_of(text: str) -> list[str]:
    return [str(problem) for problem in yamlfile.read("f.yaml", text)[1]]


def tree(text: str) -> Node:
    node, found = yamlfile.read("f.yaml", text)
    assert node is not None
    assert not found
    return node


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- b", "f.yaml:1:1: holds a list where `key: value` lines are expected"),
        ("just words", "f.yaml:1:1: holds plain text where `key: value` lines are expected"),
        ("", "f.yaml: is empty"),
        ("# only a comment\n", "f.yaml: is empty"),
        ("~", "f.yaml: is empty"),
        ("a: 1\n\tb: 2", "f.yaml:2:1: a tab: YAML is indented with spaces only"),
        ("\ta: 1", "f.yaml:1:1: a tab: YAML is indented with spaces only"),
        ("a:\n  - b\n  \t- c: d", "f.yaml:3:3: a tab: YAML is indented with spaces only"),
        ("a: {b: 1,\n\t\tc 2", "f.yaml:2:1: a tab: YAML is indented with spaces only"),
        ("a: 1\nb: 2\n'a': 3", "f.yaml:3:1: `a` is written twice: line 1 has it, too (keep one of them)"),
        ("x:\n  - {k: 1, k: 2}", "f.yaml:2:12: `k` is written twice: line 2 has it, too (keep one of them)"),
        (
            "a: b: c",
            'f.yaml:1:5: not valid YAML: mapping values are not allowed here (a value that holds ": " needs quotes; if not, the indentation is off)',
        ),
        (
            "a: @shop",
            "f.yaml:1:4: not valid YAML: found character '@' that cannot start any token (put the value in quotes)",
        ),
        (
            "a: 'open",
            "f.yaml:1:9: not valid YAML: found unexpected end of stream (a quote is not closed)",
        ),
        ("a: x\n---\nb: y", "f.yaml:2:1: a second document (`---`): write one a file"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "f.yaml:1:4: tags (`!…`) are not read (write the value without one)",
        ),
        ("<<: {a: 1}", "f.yaml:1:1: merge keys (`<<`) are not read (write the keys out)"),
        ("[a, b]: c", "f.yaml:1:1: a list or mapping cannot be a key (put the key in quotes)"),
        ("a: *nobody", "f.yaml:1:4: the alias *nobody has no `&` of that name before it"),
        ("a: &x [1, *x]", "f.yaml:1:11: the alias *x stands inside itself"),
        ("a: b\x07", "f.yaml:1:5: holds a control character (code 7) (remove it)"),
        ("x" * 1_000_001, "f.yaml: is over 1 MB, too large for a file written by hand"),
        ("é" * 600_000, "f.yaml: is over 1 MB, too large for a file written by hand"),
        ("a: " + "[" * 5000, "f.yaml:1:24: nested more than 20 levels deep"),
        ("- x\n" * 30_000, "f.yaml:20000:3: the file holds over 20,000 values"),
    ],
)
def test_broken_text_is_one_problem_at_its_place(text: str, expected: str) -> None:
    assert problems_of(text) == [expected]


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert problems_of("\n".join(lines)) == ["f.yaml:4:15: aliases repeat more than 2,000 values"]


def test_a_few_aliases_are_read() -> None:
    node = tree("a: &words [ordered, replied]\nb: *words")
    assert yamlfile.plain(node) == {"a": ["ordered", "replied"], "b": ["ordered", "replied"]}


def test_a_list_longer_than_its_limit_ends_the_reading() -> None:
    text = "steps:\n" + "- {id: a}\n" * 10_000
    node, found = yamlfile.read("f.yaml", text, longest={"steps": 100})
    assert node is None
    assert [str(one) for one in found] == ["f.yaml:102:3: `steps` has over 100 entries, more than outreach takes"]


def test_values_stay_the_text_that_was_written() -> None:
    node = tree("time: 10:00\ncountry: no\ncode: 0012\nday: 2026-11-13\nnull_: ~\nempty:\nquoted: '~'\nbig: 1_000")
    assert yamlfile.plain(node) == {
        "time": "10:00",
        "country": "no",
        "code": "0012",
        "day": "2026-11-13",
        "null_": None,
        "empty": None,
        "quoted": "~",
        "big": "1_000",
    }


def test_every_key_and_value_knows_its_place() -> None:
    node = tree("a: 1\nsteps:\n  - id: x\n    where: 'y'\n  - {id: z}\nlong: |\n\n   text\n")
    second = node.get("steps", 1, "id")
    assert second is not None
    assert (second.line, second.column) == (5, 10)
    assert (node.keys["steps"].line, node.keys["steps"].column) == (2, 1)
    where, long = node.nearest("steps", 0, "where"), node.nearest("long")
    assert where.content == (4, 13)
    assert long.content == (8, 4)
    assert (node.nearest("steps", 7, "id").line, node.get("steps", 7)) == (3, None)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes("\ufeffa: é".encode())
    text, found = yamlfile.read_text(path, "f.yaml")
    assert (text, found) == ("a: é", [])
    assert yamlfile.plain(tree("\ufeffa: b")) == {"a": "b"}


def test_a_file_that_is_no_text_says_why(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("a: 1\nb: caf\u00e9".encode("latin-1"))
    assert [str(one) for one in yamlfile.read_text(tmp_path / "latin.yaml", "latin.yaml")[1]] == [
        "latin.yaml:2:7: is not UTF-8 text (save the file as UTF-8)"
    ]
    assert [str(one) for one in yamlfile.read_text(tmp_path, "here")[1]] == ["here: is a folder, not a file"]
    assert [str(one) for one in yamlfile.read_text(tmp_path / "no", "no")[1]] == ["no: does not exist"]


def test_plain_data_comes_back_as_the_same_tree() -> None:
    data = {"a": ["x", None, {"b": "1"}], "c": True, "d": 2}
    node = yamlfile.from_plain("f", data)
    assert yamlfile.plain(node) == {"a": ["x", None, {"b": "1"}], "c": "yes", "d": "2"}


YAMLISH = st.text(st.sampled_from(list("ab:-[]{}&*!|>'\"%@`#,? \n\t~<0\x00\ufeff\u2028é")), max_size=60)


@given(YAMLISH)
def test_any_text_gives_a_mapping_or_problems_and_never_raises(text: str) -> None:
    node, found = yamlfile.read("f.yaml", text)
    if node is None:
        assert found
    else:
        assert node.entries is not None
        json.dumps(yamlfile.plain(node))
