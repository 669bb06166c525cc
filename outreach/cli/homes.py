"""What a shop of a country usually has: its time zone, its currency, its language."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Home:
    """What a country usually has; every one of it may be given instead."""

    timezone: str
    currency: str
    locale: str


HOMES = {
    "AR": Home("America/Argentina/Buenos_Aires", "ARS", "es-AR"),
    "BO": Home("America/La_Paz", "BOB", "es-BO"),
    "BR": Home("America/Sao_Paulo", "BRL", "pt-BR"),
    "CL": Home("America/Santiago", "CLP", "es-CL"),
    "CO": Home("America/Bogota", "COP", "es-CO"),
    "CR": Home("America/Costa_Rica", "CRC", "es-CR"),
    "DO": Home("America/Santo_Domingo", "DOP", "es-DO"),
    "EC": Home("America/Guayaquil", "USD", "es-EC"),
    "ES": Home("Europe/Madrid", "EUR", "es-ES"),
    "GB": Home("Europe/London", "GBP", "en-GB"),
    "GT": Home("America/Guatemala", "GTQ", "es-GT"),
    "HN": Home("America/Tegucigalpa", "HNL", "es-HN"),
    "MX": Home("America/Mexico_City", "MXN", "es-MX"),
    "NI": Home("America/Managua", "NIO", "es-NI"),
    "PA": Home("America/Panama", "USD", "es-PA"),
    "PE": Home("America/Lima", "PEN", "es-PE"),
    "PR": Home("America/Puerto_Rico", "USD", "es-PR"),
    "PT": Home("Europe/Lisbon", "EUR", "pt-PT"),
    "PY": Home("America/Asuncion", "PYG", "es-PY"),
    "SV": Home("America/El_Salvador", "USD", "es-SV"),
    "US": Home("America/New_York", "USD", "en-US"),
    "UY": Home("America/Montevideo", "UYU", "es-UY"),
    "VE": Home("America/Caracas", "VES", "es-VE"),
}


def home_of(country: str) -> Home:
    """
    What shops there usually have, by our own list or else by CLDR's; an empty text where it cannot be told.

    CLDR (through babel) lists every zone and tender of a country: only a lone one is taken.
    """
    if country in HOMES:
        return HOMES[country]
    from babel.core import get_global
    from babel.languages import get_official_languages
    from babel.numbers import get_territory_currencies

    zones = [zone for zone, of in get_global("zone_territories").items() if of == country]
    money, languages = get_territory_currencies(country, tender=True), get_official_languages(country, de_facto=True)
    return Home(
        zones[0] if len(zones) == 1 else "",
        str(money[0]) if len(money) == 1 else "",
        f"{languages[0]}-{country}" if len(languages) == 1 else "",
    )
