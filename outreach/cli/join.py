"""`join`: where people agree to receive offers and news, and its QR code for the shop's counter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from outreach.cli import here, show
from outreach.errors import OutreachError

app = typer.Typer(rich_markup_mode=None)
KINDS = (".svg", ".png")


@app.command()
def join(
    ctx: typer.Context,
    channel: Annotated[
        str | None, typer.Option(help="Let the QR code open the message on this channel, whatsapp or sms, at once.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the QR code there, as .svg or .png, to print.")
    ] = None,
    as_json: show.Json = False,
) -> None:
    """Show where people agree to receive offers and news, and draw its QR code."""
    from outreach.web import joining
    from outreach.web.words import words_for

    place = here.here(ctx)
    settings = place.settings
    ways = joining.ways(settings, words_for(settings.business.locale, "", "").lang)
    if not ways:
        raise OutreachError("nobody can write to the shop: no channel whatsapp or sms has a number under `from`")
    address = joining.page(settings)
    if channel is not None:
        address = next((way.link for way in ways if way.channel == channel), "")
        if not address:
            have = " and ".join(way.channel for way in ways)
            raise OutreachError(f"there is no number to write to on {channel}: there is on {have}")
    if output is not None:
        if output.suffix.lower() not in KINDS:
            raise OutreachError(f"{output.name}: the picture is written as .svg or .png")
        try:
            output.write_bytes(joining.picture(address, output.suffix.lower().removeprefix(".")))
        except OSError as error:
            raise OutreachError(f"{output} cannot be written: {error.strerror or type(error).__name__}") from error
    if as_json:
        listed = [{"channel": one.channel, "number": one.number, "word": one.word, "link": one.link} for one in ways]
        show.as_json({"page": joining.page(settings), "ways": listed, "picture": address if output else None})
        return
    rows = [(one.channel, one.number, one.word) for one in ways]
    show.table(f"People join at {joining.page(settings)}", ("Channel", "Write to", "The word"), rows)
    if output is not None:
        typer.echo(f"The QR code in {output} leads to {address}")
