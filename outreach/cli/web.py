"""`web`: the web app alone, where the stages run in another process."""

from __future__ import annotations

from typing import Annotated

import typer

from outreach.cli import here

app = typer.Typer(rich_markup_mode=None)


@app.command()
def web(
    ctx: typer.Context,
    host: Annotated[str, typer.Option("--host", help="The address it listens at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Its port; 0: any that is free.")] = 8080,
) -> None:
    """Serve the web app alone, until stopped: webhooks, the shop's events and the pages of links."""
    from outreach import daemon

    here.only_by_the_clock(ctx, "leave it out")
    place = here.here(ctx)
    daemon.serve(place.settings, here.database(place.settings), daemon.Address(host, port, needed=True))
