"""`outreach coupons`, from outside: from the first code that is made to its redemption."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from pathlib import Path

import pytest

from outreach import manual, releases
from outreach.store import Database
from tests import test_cli
from tests.conftest import NOW
from tests.coupon_shop import EMAIL, GREET, CouponShop
from tests.shop import files_of, shop_settings
from tests.test_cli import MORNING, NOON, Result, Run

run, shop = test_cli.run, test_cli.shop
LATER = "2026-06-16T09:00"
SETTINGS = """\
business: {name: Luna, timezone: America/Mexico_City, currency: MXN, locale: es-MX, country: MX}
channels: {email: {provider: outbox, from: "Luna <hola@luna.example>"}}
sending_hours: {default: {mon-sun: "00:00-24:00"}}
sources: [{kind: csv, customers: data/customers.csv, orders: data/orders.csv}]
offers:
  back15: {kind: percent, value: 15, expires: 14 days, minimum: 300, prefix: V15-}
  gift: {kind: gift, value: una taza}
  listed: {kind: amount, value: 50, codes: data/codes.csv}
  all: {kind: percent, value: 5, codes: {shared: TODOS5}}
"""
CAMPAIGN = """\
title: Back
trigger: {event: order.delivered}
steps:
  - {id: offer, after: 1 hour, channel: email, template: back/offer, offer: back15, expires: 20 days}
"""


def done(result: Result) -> Result:
    assert result.code == 0, result.err
    return result


@pytest.fixture
def here(shop: Run, tmp_path: Path) -> Run:
    """A published campaign with an offer, its records imported, and nothing sent yet."""
    (tmp_path / "outreach.yaml").write_text(SETTINGS, encoding="utf-8")
    (tmp_path / "campaigns" / "thanks.yaml").unlink()
    (tmp_path / "campaigns" / "back.yaml").write_text(CAMPAIGN, encoding="utf-8")
    (tmp_path / "message_templates" / "back").mkdir()
    (tmp_path / "message_templates" / "back" / "offer.email.j2").write_text(EMAIL, encoding="utf-8")
    customers = tmp_path / "data" / "customers.csv"
    rows = customers.read_text(encoding="utf-8").splitlines()
    columns = rows[0].split(",")
    if "email_consent" not in columns:
        customers.write_text(
            "\n".join([f"{rows[0]},email_consent,consent_at", *(f"{row},yes,2020-01-01" for row in rows[1:])]) + "\n",
            encoding="utf-8",
        )
    done(shop("publish", "--yes", "--now", MORNING))
    done(shop("import", "--now", NOON))
    return shop


def test_codes_are_made_loaded_into_the_cart_and_only_then_given_out(here: Run, tmp_path: Path) -> None:
    made = done(here("coupons", "make", "back15", "3", "--now", NOON))
    codes = made.out.split()
    assert (codes[0], len(codes), {code[:4] for code in codes[1:]}) == ("code", 4, {"V15-"})
    assert made.err.startswith("3 codes of back15 are made. Load them into the shop's cart, then: outreach coupons")
    (tmp_path / "codes.csv").write_text(made.out, encoding="utf-8")

    done(here("tick", "plan", "--now", NOON))
    done(here("tick", "dispatch", "--now", NOON))
    status = done(here("status", "--now", NOON)).out
    assert "Offer back15: 0 codes left. Its campaigns pause before they send without a code" in status
    assert "Paused since 2026-06-15 12:00: back (offer back15: no live code is left)." in status
    assert done(here("coupons", "activate", "codes.csv", "--now", NOON)).out == "3 codes are live.\n"
    done(here("resume", "back", "--now", NOON))
    assert done(here("tick", "dispatch", "--now", NOON, "--json")).json["sent"] >= 1

    listed = done(here("coupons", "list", "--status", "issued", "--now", NOON, "--json")).json["coupons"]
    names = ["code", "offer", "customer", "message", "status", "issued_at", "expires_at", "redeemed_at", "order"]
    assert list(listed[0]) == names
    assert {one["code"] for one in listed} <= set(codes[1:])
    assert {
        (one["offer"], one["status"], one["issued_at"], one["expires_at"], one["redeemed_at"]) for one in listed
    } == {("back15", "issued", "2026-06-15T18:00:00+00:00", "2026-06-29T18:00:00+00:00", None)}
    assert all(len(one["message"]) == 32 for one in listed)


def test_a_code_is_redeemed_made_void_and_shown(here: Run) -> None:
    done(here("coupons", "make", "back15", "9", "--now", NOON))
    done(here("coupons", "activate", "--all", "back15", "--now", NOON))
    done(here("tick", "plan", "--now", NOON))
    done(here("tick", "dispatch", "--now", NOON))
    one, *_ = done(here("coupons", "list", "--status", "issued", "--json", "--now", NOON)).json["coupons"]
    spare = done(here("coupons", "list", "--status", "live", "--json", "--now", NOON)).json["coupons"][0]["code"]

    told = done(here("coupons", "redeem", one["code"], "--customer", one["customer"], "--now", LATER))
    assert told.out == f"Recorded: {one['code']}, redeemed.\n"
    again = done(here("coupons", "redeem", one["code"], "--now", "2026-06-17", "--json"))
    assert again.json == {"code": one["code"], "verdict": "over_used"}
    assert done(here("coupons", "void", spare, "--reason", "printed wrongly", "--now", NOON)).out == f"Void: {spare}.\n"

    shown = done(here("coupons", "list", "--now", LATER)).out
    assert "void: printed wrongly" in shown
    assert "1 over_used, 1 valid" in shown
    uses = done(here("coupons", "list", "--redeemed", "--json", "--now", LATER)).json["redemptions"]
    assert [(use["code"], use["verdict"]) for use in uses] == [(one["code"], "over_used"), (one["code"], "valid")]


def test_the_reports_show_what_the_codes_brought_in(here: Run, tmp_path: Path) -> None:
    done(here("coupons", "make", "back15", "9", "--now", NOON))
    done(here("coupons", "activate", "--all", "back15", "--now", NOON))
    done(here("tick", "plan", "--now", NOON))
    done(here("tick", "dispatch", "--now", NOON))
    one, *_ = done(here("coupons", "list", "--status", "issued", "--json", "--now", NOON)).json["coupons"]
    (tmp_path / "more.csv").write_text(
        "order_id,customer_id,placed_at,currency,total,coupon_code\n"
        f"more,{one['customer']},2026-06-15 20:00,MXN,1020.00,{one['code']}\n",
        encoding="utf-8",
    )
    done(here("import", "--orders", "more.csv", "--now", LATER))

    table = done(here("report", "coupons", "--now", LATER)).out
    (row,) = [row for row in done(here("report", "coupons", "--json", "--now", LATER)).json["rows"] if row["issued"]]
    done(here("report", "coupons", "--csv", "out.csv", "--now", LATER))
    campaigns = done(here("report", "campaigns", "--now", LATER)).out

    assert (row["offer"], row["redeemed"], row["revenue"], row["discount"]) == (
        "back15", 1, {"MXN": 102000}, {"MXN": 18000},
    )  # fmt: skip
    assert all(shown in table for shown in ("back15", "1,020.00 MXN", "180.00 MXN", "gift"))
    assert '"1,020.00 MXN",180.00 MXN' in (tmp_path / "out.csv").read_text(encoding="utf-8")
    assert "Coupons that their messages brought, and the orders that used them" in campaigns
    assert "1,020.00 MXN" in campaigns


def test_codes_of_a_file_are_taken_and_what_is_wrong_is_said_by_line(here: Run, tmp_path: Path) -> None:
    (tmp_path / "data" / "codes.csv").write_text("code\nUNO\nDOS\nuno\n", encoding="utf-8")

    taken = here("coupons", "make", "listed", "--now", NOON)

    assert (taken.code, taken.out) == (1, "2 codes are taken, and live.\n")
    assert taken.err == f"{Path('.') / 'data' / 'codes.csv'}:4: refused: line 2 has the same code\n"


def test_no_codes_are_made_where_the_file_for_them_cannot_be_written(here: Run, tmp_path: Path) -> None:
    result = here("coupons", "make", "back15", "5", "--output", "nowhere/codes.csv", "--now", NOON)

    assert (result.code, result.out) == (1, "")
    assert result.err == f"{Path('nowhere') / 'codes.csv'} cannot be written: No such file or directory\n"
    assert done(here("coupons", "list", "--offer", "back15", "--json", "--now", NOON)).json["coupons"] == []
    (tmp_path / "codes.csv").write_text("code\nOLD\n", encoding="utf-8")
    assert here("coupons", "make", "back15", "9000000", "-o", "codes.csv", "--now", NOON).code == 1
    assert (tmp_path / "codes.csv").read_text(encoding="utf-8") == "code\nOLD\n"


@pytest.mark.parametrize(
    ("form", "heading", "cells"),
    [
        ("plain", ["code"], []),
        ("shopify", ["Title", "Command", "Code"], ["back15", "MERGE"]),
        (
            "woocommerce",
            ["post_title", "post_excerpt", "post_status", "discount_type", "coupon_amount", "individual_use",
             "free_shipping", "minimum_amount", "usage_limit"],
            ["back15", "publish", "percent", "15", "yes", "no", "300", "1"],
        ),
        ("tiendanube", ["code", "type", "value", "min_price", "max_uses"], ["percentage", "15", "300", "1"]),
    ],
)  # fmt: skip
def test_an_export_is_what_the_cart_takes_in_and_comes_back_as_activate_reads_it(
    here: Run, tmp_path: Path, form: str, heading: list[str], cells: list[str]
) -> None:
    made = done(here("coupons", "make", "back15", "2", "--now", NOON)).out.split()[1:]

    done(here("coupons", "export", "back15", "--format", form, "--output", "out.csv", "--now", NOON))

    first, *rows = list(csv.reader(io.StringIO((tmp_path / "out.csv").read_text(encoding="utf-8"))))
    assert first == heading
    assert sorted(cell for row in rows for cell in row if cell in made) == sorted(made)
    assert all([cell for cell in row if cell not in made] == cells for row in rows)
    assert done(here("coupons", "activate", "out.csv", "--now", NOON)).out == "2 codes are live.\n"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("make", "back51", "5"), 1, "there is no offer 'back51': outreach.yaml has back15, gift, listed, all (did you mean `back15`?)"),
        (("make", "all", "5"), 1, "the offer all has no generated codes: everybody has the same code"),
        (("make", "back15"), 2, "say how many codes to make"),
        (("activate",), 2, "name the file of codes that the cart knows now, or --all OFFER"),
        (("activate", "nowhere.csv"), 1, "nowhere.csv: it cannot be read: No such file or directory"),
        (("redeem", "NOBODYS"), 1, "there is no code 'NOBODYS'"),
        (("redeem", "todos5"), 1, "everybody has the code todos5: say who used it, with --customer"),
        (("void", "NOBODYS"), 1, "there is no code 'NOBODYS'"),
        (("list", "--customer", "nobody"), 1, "there is no customer 'nobody': give the shop's own id"),
        (("export", "all"), 1, "the offer all has one code for everybody: enter TODOS5 in the shop's cart"),
        (("export", "gift", "--format", "tiendanube"), 1, "the offer gift is a gift, which tiendanube has no coupon for"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(here: Run, arguments: tuple[str, ...], code: int, says: str) -> None:
    result = here("coupons", *arguments, "--now", NOON)

    assert result.code == code
    assert says in " ".join(result.err.replace("│", " ").split())
    if code == 1:
        assert len(result.err.splitlines()) == 1


def test_a_preview_shows_the_coupon_and_gives_none_out(db: Database, tmp_path: Path) -> None:
    shop = CouponShop(db, shop_settings(tmp_path))
    shop.offer()
    shop.publish(greet=GREET)
    (name,) = shop.arrive()
    files = files_of({"message_templates/c.email.j2": EMAIL}, greet=GREET)
    files[releases.CATALOGUE] = json.dumps(shop.catalogue)

    def preview() -> manual.Preview:
        return manual.preview(db, shop.settings, files, NOW, "greet", "one", name)

    without = preview()
    assert "offer back: no live code is left: the campaign would pause before this message" in without.notes[0]
    assert without.coupon is not None
    codes = shop.live(2)
    first, second = preview(), preview()

    assert first.coupon is not None
    assert (first.coupon.code, first.coupon.expires_at) == (first.outgoing.content.subject, NOW + timedelta(days=14))
    assert second.coupon is not None
    assert (first.coupon.code in codes, second.coupon.code) == (True, first.coupon.code)
    assert {row.status for row in shop.coupons()} == {"live"}
    shop.run()
    kept = preview()
    assert kept.coupon is not None
    assert (kept.coupon.code, kept.coupon.is_kept) == (shop.provider.codes[0], True)
