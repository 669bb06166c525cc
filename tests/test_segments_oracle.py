"""
SMS parts against Twilio's own calculator: the npm package sms-segments-calculator 1.3.0, run once.

Its answers for 1,200 seeded random texts are in `data/segments.json`; `data/make_segments.js` made them.
"""

from __future__ import annotations

import json
from pathlib import Path

from outreach.render import sms_segments

CASES: list[tuple[str, int, str]] = [
    tuple(case) for case in json.loads((Path(__file__).parent / "data" / "segments.json").read_text(encoding="utf-8"))
]


def test_every_text_has_the_parts_that_twilio_s_own_calculator_counts() -> None:
    wrong = [
        (text, (parts, encoding), sms_segments(text))
        for text, parts, encoding in CASES
        if sms_segments(text) != (parts, encoding)
    ]

    assert wrong == []


def test_the_texts_are_many_and_meet_what_is_hard() -> None:
    texts = {text for text, _, _ in CASES}

    assert len(texts) >= 1_000
    for hard in ("ñ", "á", "ã", "ç", "€", "[", "🎉", "👩‍👩‍👧", "🇲🇽", "\r\n", "e\N{COMBINING ACUTE ACCENT}"):
        assert sum(hard in text for text in texts) >= 20, hard
    assert {(parts, encoding) for _, parts, encoding in CASES} >= {
        *((parts, "GSM-7") for parts in (1, 2, 3)),
        *((parts, "UCS-2") for parts in (1, 2, 3, 4, 5)),
    }


def test_texts_end_on_both_sides_of_every_boundary() -> None:
    """Where one character more costs another part, and where it does not yet."""
    costs_more = [text for text, parts, encoding in CASES if sms_segments(text + "a") == (parts + 1, encoding)]
    just_spilt = [
        text for text, parts, encoding in CASES if parts > 1 and sms_segments(text[:-1]) == (parts - 1, encoding)
    ]

    assert len(costs_more) >= 10
    assert len(just_spilt) >= 10
