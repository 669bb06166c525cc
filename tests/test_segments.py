"""SMS parts, against Twilio's published cases and a naive oracle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outreach.render.segments import GSM_7, UCS_2, outside_gsm, sms_segments

# The GSM 7-bit table of 3GPP TS 23.038, row by row of sixteen, written apart from the module under test.
ROWS = (
    "@£$¥èéùìòÇ\nØø\rÅå",
    "Δ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ",
    " !\"#¤%&'()*+,-./",
    "0123456789:;<=>?",
    "¡ABCDEFGHIJKLMNO",
    "PQRSTUVWXYZÄÖÑÜ§",
    "¿abcdefghijklmno",
    "pqrstuvwxyzäöñüà",
)
TABLE = {character for row in ROWS for character in row} - {"\x1b"}
ESCAPED = set("\f^{}\\[~]|€")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, GSM_7)),
        ("a" * 160, (1, GSM_7)),
        ("a" * 161, (2, GSM_7)),
        ("a" * 306, (2, GSM_7)),
        ("a" * 307, (3, GSM_7)),
        ("€" * 80, (1, GSM_7)),
        ("€" * 81, (2, GSM_7)),
        ("a" * 152 + "€" + "a" * 152, (3, GSM_7)),  # the pair may not straddle parts
        ("á" * 70, (1, UCS_2)),
        ("á" * 71, (2, UCS_2)),
        ("á" * 134, (2, UCS_2)),
        ("á" * 135, (3, UCS_2)),
        ("🎉" * 35, (1, UCS_2)),
        ("🎉" * 36, (2, UCS_2)),
        ("á" * 66 + "🎉" + "á" * 66, (3, UCS_2)),  # nor may a surrogate pair
        ("¡Hola, Ana! ¿Qué tal? Año ñ ü É Ç à", (1, GSM_7)),
        ("ç", (1, UCS_2)),
        ("ã", (1, UCS_2)),
        ("“comillas”", (1, UCS_2)),
    ],
)
def test_a_text_has_the_parts_and_the_encoding_that_twilio_bills(text: str, expected: tuple[int, str]) -> None:
    assert sms_segments(text) == expected


@pytest.mark.parametrize("character", list("áíóúÁÍÓÚãõçº°ª`"))
def test_one_accented_vowel_turns_the_whole_text_into_ucs_2(character: str) -> None:
    assert sms_segments("a" * 69 + character) == (1, UCS_2)
    assert sms_segments("a" * 70 + character) == (2, UCS_2)
    assert outside_gsm(f"a{character}b{character}") == character


def fewest_parts(sizes: list[int], room: int) -> int:
    """By trying every cut: best[i] is the fewest parts that the first i characters fit in."""
    best = [0] + [10**9] * len(sizes)
    for end in range(1, len(sizes) + 1):
        used = 0
        for start in range(end - 1, -1, -1):
            used += sizes[start]
            if used > room:
                break
            best[end] = min(best[end], best[start] + 1)
    return best[-1]


def oracle(text: str) -> tuple[int, str]:
    if set(text) <= TABLE | ESCAPED:
        sizes, alone, room, encoding = [2 if c in ESCAPED else 1 for c in text], 160, 153, GSM_7
    else:
        sizes, alone, room, encoding = [len(c.encode("utf-16-be")) // 2 for c in text], 70, 67, UCS_2
    return (min(len(sizes), 1) if sum(sizes) <= alone else fewest_parts(sizes, room)), encoding


@given(
    st.one_of(
        st.text(st.sampled_from(sorted(TABLE | ESCAPED)), max_size=700),
        st.text(st.sampled_from("aé€^\\[]{}"), min_size=140, max_size=700),
        st.text(st.sampled_from("aá🎉👩"), min_size=60, max_size=400),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    )
)
def test_any_text_is_counted_like_the_naive_oracle(text: str) -> None:
    assert sms_segments(text) == oracle(text)
