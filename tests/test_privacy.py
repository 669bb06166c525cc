"""
DESIGN section 9, point 8: no address, name or body in logs, error texts, file names or links.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from email import message_from_bytes, policy
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from outreach import dispatcher, planner, store
from outreach.errors import OutreachError
from outreach.models import Message, MessageLink, Status
from tests.conftest import NOW, SECRET
from tests.shop import ALWAYS, customer, feed, order, publish, rows_of, shop_settings

CAMPAIGN = """
    title: Thanks
    purpose: service
    trigger: {event: order.placed}
    steps:
      - {id: mail, after: 0 days, channel: email, template: m}
      - {id: text, after: 0 days, channel: sms, template: m}
"""


def no_placeholder(digits: int) -> bool:
    """A number such as 49999999 is taken for one that a cashier makes up."""
    return len(set(str(digits)[1:])) > 2


letters = st.text("abcdefghjkmnpqrstuvwxyz", min_size=8, max_size=12)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=letters, last=letters, local=letters, digits=st.integers(41_000_000, 49_999_999).filter(no_placeholder))
def test_no_name_or_address_leaves_by_a_log_an_error_a_file_name_or_a_link(
    kind: str,
    new_database: Callable[[str], str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    first: str,
    last: str,
    local: str,
    digits: int,
) -> None:
    shop = shop_settings(tmp_path / uuid4().hex, sending_hours={"default": ALWAYS})
    db = store.open_database(new_database(kind), secret=SECRET)
    private = [f"q{first}", f"q{last}", f"q{local}", f"55{digits}"]
    person = customer(
        1, first_name=private[0], last_name=private[1], email=f"{private[2]}@example.com", phone=f"+52{private[3]}"
    )
    nameless = customer(2, first_name="", email="two@example.com", phone=f"+5255{digits // 10}0")
    errors: list[str] = []
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("sqlalchemy.engine").setLevel(logging.INFO)
        publish(db, shop, NOW, thanks=CAMPAIGN)
        feed(db, shop, NOW, customers=[person, nameless], orders=[order(1, "c1", NOW), order(2, "c2", NOW)])
        planner.plan(db, shop, NOW)
        dispatcher.dispatch(db, shop, NOW)
        with store.write(db) as connection:
            connection.execute(text("DROP TABLE contacts"))
        for again in (lambda: feed(db, shop, NOW, customers=[person]), lambda: dispatcher.dispatch(db, shop, NOW)):
            try:
                again()
            except (OutreachError, SQLAlchemyError) as error:
                errors.append(f"{error} {error.__cause__}")

    sent = [m for m in rows_of(db, Message) if m.status == Status.SENT]
    links = [(link.token, link.target) for link in rows_of(db, MessageLink)]
    outside = [
        *errors,
        caplog.text,
        *(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")),
        json.dumps(links),
    ]
    outside += [*(m.detail for m in rows_of(db, Message)), *re.findall(r"https?://\S+", mails(tmp_path))]
    assert len(sent) >= 2
    assert errors
    assert [word for word in private for where in outside if word in where] == []
    db.engine.dispose()


def mails(folder: Path) -> str:
    """Everything in the letters, headers and decoded parts."""
    letters = [message_from_bytes(path.read_bytes(), policy=policy.default) for path in folder.rglob("*.eml")]
    parts = [part.get_content() for letter in letters for part in letter.walk() if not part.is_multipart()]
    return "\n".join([*(f"{name}: {value}" for letter in letters for name, value in letter.items()), *parts])
