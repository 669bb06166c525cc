"""`coupons`: codes of offers, whose each is, and what was redeemed."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from outreach.cli import here, show
from outreach.errors import OutreachError

if TYPE_CHECKING:
    from outreach.coupons import Refused

app = typer.Typer(rich_markup_mode=None)
coupons = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Codes of offers: whose each is, and what was redeemed."
)
app.add_typer(coupons, name="coupons")

MOST_SHOWN = 20  # refused lines
OfferName = Annotated[str, typer.Argument(metavar="OFFER", help="An offer of outreach.yaml.")]


class Status(StrEnum):
    MADE = "made"
    LIVE = "live"
    ISSUED = "issued"
    EXPIRED = "expired"
    REDEEMED = "redeemed"
    VOID = "void"


class Form(StrEnum):
    PLAIN = "plain"
    SHOPIFY = "shopify"
    WOOCOMMERCE = "woocommerce"
    TIENDANUBE = "tiendanube"


@coupons.command("list")
def list_(
    ctx: typer.Context,
    offer: Annotated[str | None, typer.Option(help="Only those of this offer.")] = None,
    status: Annotated[
        Status | None, typer.Option(help="Only those that stand so; `expired`: issued, and their time is over.")
    ] = None,
    customer: Annotated[str | None, typer.Option(help="Only those of this customer: the shop's own id.")] = None,
    code: Annotated[str | None, typer.Option(help="Only this code.")] = None,
    used: Annotated[
        bool, typer.Option("--redeemed", help="What was redeemed instead, with the verdict on it.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    as_json: show.Json = False,
) -> None:
    """List coupons, the latest issued first; then the sums of each offer."""
    from outreach import coupons as work

    place = here.here(ctx)
    db = here.database(place.settings)
    if offer is not None:
        work.check_offer(db, place.settings, offer)
    if used:
        _print_uses(work.uses(db, offer=offer, limit=limit), place, as_json=as_json)
        return
    found = work.listed(
        db, place.now, offer=offer, status=str(status) if status else None, customer=customer, code=code, limit=limit
    )
    if as_json:
        names = ("code", "offer", "customer", "message", "status", "issued_at", "expires_at", "redeemed_at", "order")
        show.as_json({"coupons": [{name: getattr(one, name) for name in names} for one in found]})
        return
    rows = [
        (
            one.code,
            one.offer,
            one.customer,
            one.message[:12] if one.message else None,
            one.status + (f": {one.reason}" if one.reason else ""),
            show.when(one.issued_at, place.zone),
            show.when(one.expires_at, place.zone),
            show.when(one.redeemed_at, place.zone),
            one.order,
        )
        for one in found
    ]
    heads = ("Code", "Offer", "Customer", "Message", "Status", "Issued", "Good until", "Redeemed", "Order")
    show.table(f"{show.number(len(found))} coupon{'s' * (len(found) != 1)}" if found else "Coupons", heads, rows)
    if not (customer or code or status):
        _print_books(work.books(db, place.now, offer))


def _print_uses(found: Sequence[Any], place: here.Here, *, as_json: bool) -> None:
    if as_json:
        show.as_json({"redemptions": found})
        return
    rows = [
        (one.code, one.offer, one.customer, one.order, show.when(one.at, place.zone), one.source, one.verdict)
        for one in found
    ]
    show.table("Redeemed", ("Code", "Offer", "Customer", "Order", "At", "Told by", "Verdict"), rows)


def _print_books(books: Sequence[Any]) -> None:
    rows = [
        (one.offer, *(one.by_status.get(status.value, 0) for status in Status), one.issued, _counted(one.redemptions))
        for one in books
    ]
    heads = ("Offer", *(f">{status.value.capitalize()}" for status in Status), ">Given out", "Uses")
    if rows:
        show.table("By offer", heads, rows)


def _counted(verdicts: dict[str, int]) -> str:
    return ", ".join(f"{show.number(many)} {verdict}" for verdict, many in verdicts.items())


@coupons.command("make")
def make(
    ctx: typer.Context,
    offer: OfferName,
    count: Annotated[
        int | None, typer.Argument(metavar="[COUNT]", min=1, help="How many, where codes are generated.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Take them from a file of the shop's cart instead: live at once."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the new codes there; else they are printed.")
    ] = None,
    as_json: show.Json = False,
) -> None:
    """
    Make codes for the shop's cart; or take them from the file that the offer names.

    Example: outreach coupons make sorry10 500 --output codes.csv
    """
    from outreach import coupons as work

    place = here.here(ctx)
    of = work.offer_of(place.settings, offer)
    path = file or (None if of.is_generated or of.shared_code else place.folder / of.codes)
    if path is not None and count is not None:
        raise typer.BadParameter("a count is for generated codes: those of a file are as many as there are")
    if path is None and count is None and of.is_generated:
        raise typer.BadParameter(f"say how many codes to make, such as `outreach coupons make {offer} 500`")
    db = here.database(place.settings)
    if path is not None:
        taken = work.take(db, of, path, place.now)
        _say(taken.codes, taken.unchanged, taken.refused, "taken, and live", path, as_json=as_json)
        return
    if output is not None and not as_json:
        _check_writable(output)  # before codes are made that nobody would see
    made = work.make(db, of, count or 1, place.now)
    if as_json:
        show.as_json({"offer": offer, "codes": made})
        return
    with _opened(output) as out:
        _write(out, [("code",), *((code,) for code in made)])
    what = f"{show.number(len(made))} codes of {offer} are made."
    then = (
        "Each is good at once." if of.trust else "Load them into the shop's cart, then: outreach coupons activate FILE"
    )
    typer.echo(f"{what} {then}", err=True)


@coupons.command("activate")
def activate(
    ctx: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="The codes that the cart knows now.")] = None,
    offer: Annotated[str | None, typer.Option("--all", metavar="OFFER", help="All codes that were made of it.")] = None,
    as_json: show.Json = False,
) -> None:
    """Mark codes live: the shop's cart knows them, and customers may get them."""
    from outreach import coupons as work

    if (file is None) == (offer is None):
        raise typer.BadParameter("name the file of codes that the cart knows now, or --all OFFER")
    place = here.here(ctx)
    db = here.database(place.settings)
    if file is not None:
        taken = work.activate(db, file)
        _say(taken.codes, taken.unchanged, taken.refused, "live", file, as_json=as_json)
        return
    done = work.activate_all(db, work.offer_of(place.settings, offer or "").name)
    if as_json:
        show.as_json({"live": done, "unchanged": 0, "refused": []})
    else:
        show.line(f"{show.number(done)} codes of {offer} are live.")


def _say(codes: list[str], unchanged: int, refused: Sequence[Refused], what: str, path: Path, *, as_json: bool) -> None:
    if as_json:
        show.as_json({"live": len(codes), "unchanged": unchanged, "refused": refused})
    else:
        before = f", {show.number(unchanged)} were so already" if unchanged else ""
        show.line(f"{show.number(len(codes))} codes are {what}{before}.")
    for one in refused[:MOST_SHOWN]:
        typer.echo(f"{path}:{one.line}: refused: {one.reason}", err=True)
    if len(refused) > MOST_SHOWN:
        typer.echo(f"{path}: and {show.number(len(refused) - MOST_SHOWN)} more lines (--json lists all)", err=True)
    if refused:
        raise typer.Exit(1)


@coupons.command("redeem")
def redeem(
    ctx: typer.Context,
    code: Annotated[str, typer.Argument(metavar="CODE", help="The code that was used.")],
    customer: Annotated[
        str | None, typer.Option(help="Who used it: the shop's own id; else the order's customer, or the code's owner.")
    ] = None,
    order: Annotated[str | None, typer.Option(help="The order it was used for: the shop's own id.")] = None,
    as_json: show.Json = False,
) -> None:
    """Record that a code was used, at the counter for instance."""
    from outreach import coupons as work

    place = here.here(ctx)
    verdict = work.redeem(
        here.database(place.settings), place.settings, code, place.now, customer=customer, order=order
    )
    if as_json:
        show.as_json({"code": code, "verdict": verdict.value})
    else:
        show.line(f"Recorded: {show.cell(code)}, {_MEANS[verdict.value]}.")


_MEANS = {
    "valid": "redeemed",
    "wrong_customer": "used by somebody whose it is not",
    "expired": "used after it had expired",
    "over_used": "used more often than the offer allows",
    "void": "used after it had been made void",
    "not_issued": "used although it had been sent to nobody",
}


@coupons.command("void")
def void(
    ctx: typer.Context,
    codes: Annotated[list[str], typer.Argument(metavar="CODE…", help="The codes.")],
    reason: Annotated[str, typer.Option(help="Why; `coupons list` shows it.")] = "made void by hand",
    as_json: show.Json = False,
) -> None:
    """Make codes void: nobody gets them any more. Take them out of the shop's cart, too."""
    from outreach import coupons as work

    place = here.here(ctx)
    done = work.void(here.database(place.settings), codes, reason, place.now)
    if as_json:
        show.as_json({"void": done})
    else:
        show.line(f"Void: {', '.join(show.cell(code) for code in done) or 'nothing that was not void before'}.")


@coupons.command("export")
def export(
    ctx: typer.Context,
    offer: OfferName,
    form: Annotated[Form, typer.Option("--format", help="The shop whose cart reads it.")] = Form.PLAIN,
    status: Annotated[list[Status] | None, typer.Option(help="Which codes; those that were made and are live.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it there; else it is printed.")] = None,
) -> None:
    """Print an offer's codes as a CSV file that the shop's cart takes in."""
    from outreach import coupons as work

    place = here.here(ctx)
    of = work.offer_of(place.settings, offer)
    if of.shared_code:
        raise OutreachError(f"the offer {offer} has one code for everybody: enter {of.shared_code} in the shop's cart")
    wanted = [one.value for one in status or (Status.MADE, Status.LIVE)]
    if Status.EXPIRED.value in wanted:
        raise typer.BadParameter("expired codes are issued ones: write --status issued")
    lines = work.rows(of, form.value, work.codes(here.database(place.settings), offer, wanted))
    with _opened(output) as out:
        _write(out, lines)


def _check_writable(path: Path) -> None:
    with _opened(path, "a"):
        pass


@contextmanager
def _opened(path: Path | None, mode: Literal["w", "a"] = "w") -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        with path.open(mode, encoding="utf-8", newline="") as out:
            yield out
    except OSError as error:
        raise OutreachError(f"{path} cannot be written: {error.strerror or type(error).__name__}") from error


def _write(out: TextIO, lines: Any) -> None:
    csv.writer(out, lineterminator="\n").writerows(lines)
