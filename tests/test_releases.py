from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from outreach import planner, releases
from outreach.errors import NotFound, Problems, ReleaseError
from outreach.models import Message, Release, Status
from outreach.settings import Settings
from outreach.store import Database
from tests.conftest import NOW
from tests.shop import EMAIL, customer, feed, files_of, order, publish, rows_of, shop_settings

DAY = timedelta(days=1)
THANKS = """
    title: Thanks
    purpose: service
    trigger: {event: order.placed}
    steps:
      - {id: thanks, after: 1 day, channel: email, template: m}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return shop_settings(tmp_path)


def test_check_reports_every_problem_of_every_file_with_its_place(settings: Settings) -> None:
    files = files_of(
        {"message_templates/broken.email.j2": "---\nsubject: {{ customer.frist_name }}\n---\nx"},
        one=THANKS.replace("template: m", "template: missing") + "    where: contry = 'MX'\n",
        two=THANKS.replace("purpose: service", "purpose: marketing").replace("template: m", "template: broken"),
    )

    found = [str(problem) for problem in releases.check(files, settings) if not problem.warning]

    assert any(p.startswith("campaigns/one.yaml:6:") and "missing" in p for p in found)
    assert any(p.startswith("campaigns/one.yaml:7:8: ") and "contry" in p and "country" in p for p in found)
    assert any("broken.email.j2:2" in p and "frist_name" in p for p in found)
    assert any("unsubscribe" in p for p in found)


def test_check_warns_of_a_trigger_that_no_record_can_fire(db: Database, settings: Settings) -> None:
    files = files_of(thanks=THANKS.replace("order.placed", "order.delivered"))
    before = releases.check(files, settings, db)
    feed(db, settings, NOW, customers=[customer(1)], orders=[order(1, "c1", NOW - DAY)])

    after = releases.check(files, settings, db)

    assert before == []
    assert [(p.warning, p.text) for p in after] == [
        (True, "order.delivered: 0 of 1 orders have a date, so nothing can start this campaign")
    ]


def test_files_with_errors_are_not_published_and_leave_nothing_behind(db: Database, settings: Settings) -> None:
    with pytest.raises(Problems, match=r"campaigns/bad\.yaml"):
        publish(db, settings, NOW, bad=THANKS.replace("after: 1 day", "after: soon"))

    assert rows_of(db, Release) == []
    assert releases.current(db, settings) is None


def test_publishing_what_is_in_force_is_refused(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=THANKS)

    with pytest.raises(ReleaseError, match="nothing differs"):
        publish(db, settings, NOW + DAY, thanks=THANKS)


def test_diff_says_what_changes_in_terms_of_people(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=THANKS, other=THANKS.replace("Thanks", "Other"))
    feed(db, settings, NOW, customers=[customer(n) for n in (1, 2)], orders=[order(n, f"c{n}", NOW) for n in (1, 2)])
    planner.plan(db, settings, NOW + DAY)
    files = files_of(
        {"message_templates/m.email.j2": EMAIL.replace("<p>Hola</p>", "<p>Buenos dias</p>")},
        thanks=THANKS + "      - {id: more, after: 2 days, channel: email, template: m}\n",
        monthly=THANKS.replace("{event: order.placed}", '{schedule: "0 10 1 * *"}'),
    )

    changes = releases.diff(db, settings, files, NOW + DAY)

    assert changes.new_campaigns == ("monthly",)
    assert changes.gone_campaigns == (("other", 2),)
    assert changes.new_steps == ("thanks/more",)
    assert changes.differently == (("thanks/thanks", 2),)
    assert changes.confirmed == (("monthly", 2),)
    assert changes.example is not None
    assert "Buenos dias" in changes.example[2]
    assert "thanks/thanks: 2 planned messages would read differently" in changes.lines()
    assert json.dumps(changes.as_json())


def test_diff_names_what_is_switched_on_and_off_and_the_steps_whose_rules_differ(
    db: Database, settings: Settings
) -> None:
    off = "    active: no\n"
    publish(db, settings, NOW, one=THANKS, two=THANKS + off, three=THANKS)
    feed(db, settings, NOW, customers=[customer(1)], orders=[order(1, "c1", NOW)])
    planner.plan(db, settings, NOW + DAY)

    later = THANKS.replace("after: 1 day", "after: 2 days")
    changes = releases.diff(db, settings, files_of(one=THANKS + off, two=THANKS, three="\n" + later), NOW + DAY)

    assert changes.lines() == [
        "campaign two is switched on",
        "campaign one is switched off: 1 planned messages end as withdrawn",
        "step three/thanks has other rules",
    ]
    assert changes.as_json()["switched_off"] == {"one": 1}


def test_rolling_back_publishes_the_former_content_under_a_new_number(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=THANKS)
    publish(db, settings, NOW + DAY, thanks=THANKS.replace("Thanks", "Other title"))

    number = releases.rollback(db, settings, 1, NOW + 2 * DAY)

    loaded = releases.current(db, settings)
    assert number == 3
    assert loaded is not None
    assert (loaded.number, loaded.campaigns["thanks"].title) == (3, "Thanks")
    assert [row["note"] for row in releases.listed(db)] == ["release 1 again", "", ""]
    with pytest.raises(NotFound, match="no release 9"):
        releases.rollback(db, settings, 9, NOW)


def test_the_release_in_force_does_not_follow_the_files_on_disk(db: Database, settings: Settings) -> None:
    folder = settings.workspace
    (folder / "campaigns").mkdir(parents=True)
    (folder / "campaigns" / "thanks.yaml").write_text(files_of(thanks=THANKS)["campaigns/thanks.yaml"])
    (folder / "message_templates").mkdir()
    (folder / "message_templates" / "m.email.j2").write_text(EMAIL)
    releases.publish(db, settings, releases.read_files(folder), NOW)

    (folder / "campaigns" / "thanks.yaml").write_text("nonsense: [")

    loaded = releases.current(db, settings)
    assert loaded is not None
    assert list(loaded.campaigns) == ["thanks"]


def test_pausing_all_and_resuming_one(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=THANKS, other=THANKS.replace("Thanks", "Other"))
    feed(db, settings, NOW, customers=[customer(1)], orders=[order(1, "c1", NOW)])

    paused = releases.pause(db, None, "audit", NOW)
    resumed = releases.resume(db, "thanks", NOW)
    planner.plan(db, settings, NOW + DAY)

    assert (paused, resumed) == (["other", "thanks"], ["thanks"])
    assert [(m.campaign, m.status) for m in rows_of(db, Message)] == [("thanks", Status.PLANNED)]
    with pytest.raises(NotFound, match="there are: other, thanks"):
        releases.pause(db, "nobody", "", NOW)
    with pytest.raises(NotFound, match="no step"):
        releases.cancel(db, "thanks", "nothing", NOW)
