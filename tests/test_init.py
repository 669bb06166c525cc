"""`outreach init`: what it asks, what it writes, and that the new workspace can be used as it is."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from outreach import settings
from outreach.cli.homes import HOMES, Home, home_of
from outreach.setting_keys import currency, locale, time_zone
from tests import test_cli
from tests.test_cli import Run

run = test_cli.run


def campaign(folder: Path, name: str) -> Any:
    return YAML(typ="safe").load(folder / "campaigns" / f"{name}.yaml")


def answered(folder: Path, *answers: str) -> str:
    """What `outreach init` in a terminal shows, when these lines are typed into it."""
    ours, theirs = pty.openpty()
    script = "import sys; sys.argv = ['outreach', 'init', 'shop']; from outreach.cli import main; main()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs) as started:
        os.close(theirs)
        os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
        shown = b""
        while True:
            try:
                read = os.read(ours, 4096)
            except OSError:  # the program is gone
                break
            shown += read
    os.close(ours)
    assert started.returncode == 0, shown.decode()
    return shown.decode()


def test_in_a_terminal_it_asks_and_asks_again_after_a_slip(tmp_path: Path) -> None:
    shown = answered(tmp_path, "Loja Luna", "Brazil", "BR", "", "", "", "email, sns", "email, sms")
    made = settings.load(tmp_path / "shop", {})

    assert "`Brazil` is no country" in shown
    assert "[America/Sao_Paulo]" in shown
    assert "`sns` is no channel: did you mean `sms`?" in shown
    assert (made.business.name, made.business.country) == ("Loja Luna", "BR")
    assert (made.business.timezone, made.business.currency) == ("America/Sao_Paulo", "BRL")
    assert made.business.locale == "pt-BR"
    assert set(made.channels) == {"email", "sms"}


def test_without_a_terminal_it_asks_nothing(run: Run, tmp_path: Path) -> None:
    done = run("init", "shop")
    made = settings.load(tmp_path / "shop", {})

    assert done.code == 0
    assert (made.business.name, made.business.country) == ("shop", "MX")
    assert set(made.channels) == {"email", "sms", "whatsapp", "call"}


def test_only_post_sale_is_on(run: Run, tmp_path: Path) -> None:
    assert run("init", "shop", "--yes").code == 0

    names = {path.stem for path in (tmp_path / "shop" / "campaigns").glob("*.yaml")}
    assert {name for name in names if campaign(tmp_path / "shop", name)["active"] == "yes"} == {"post_sale"}
    assert len(names) >= 14


@pytest.mark.parametrize("channels", ["email", "sms,whatsapp", "email,sms,whatsapp,messenger,call,visit", "call"])
def test_the_check_is_clean_whatever_channels_the_shop_has(run: Run, tmp_path: Path, channels: str) -> None:
    assert run("init", "shop", "--channels", channels).code == 0

    assert run("check", "--workspace", "shop", "--json").json == {"problems": []}
    assert set(settings.load(tmp_path / "shop", {}).channels) == set(channels.split(","))


def test_an_unknown_channel_is_one_line_and_nothing_is_written(run: Run, tmp_path: Path) -> None:
    done = run("init", "shop", "--channels", "email,fax")

    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert "`fax` is no channel" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_country_that_is_none_is_one_line_and_nothing_is_written(run: Run, tmp_path: Path) -> None:
    done = run("init", "shop", "--country", "Brazil")

    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_country_with_one_zone_one_currency_and_one_language_needs_no_more(run: Run, tmp_path: Path) -> None:
    assert home_of("CU") == Home("America/Havana", "CUP", "es-CU")
    assert home_of("NZ") == Home("", "NZD", "")  # two zones, two languages
    done = run("init", "shop", "--country", "NZ")

    assert done.code == 1
    assert "--timezone and --locale" in done.err


@pytest.mark.parametrize("country", sorted(HOMES))
def test_every_country_we_list_has_a_known_zone_currency_and_language(country: str) -> None:
    home = HOMES[country]

    assert (time_zone(home.timezone), currency(home.currency), locale(home.locale)) == (
        home.timezone,
        home.currency,
        home.locale,
    )


@pytest.mark.parametrize(
    ("country", "file"),
    [
        ("AR", "thanks.email.es-AR.j2"),
        ("MX", "thanks.email.es.j2"),
        ("BR", "thanks.email.pt.j2"),
        ("US", "thanks.email.j2"),
    ],
)
def test_customers_of_no_known_language_are_written_to_in_the_shop_s(
    run: Run, tmp_path: Path, country: str, file: str
) -> None:
    from outreach import releases
    from outreach.render import Templates

    assert run("init", "shop", "--country", country).code == 0
    written = settings.load(tmp_path / "shop", {})
    templates = Templates(releases.read_files(tmp_path / "shop"), written.business)

    assert templates.path("post_sale/thanks", "email", None) == f"message_templates/post_sale/{file}"
