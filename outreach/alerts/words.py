"""
What alerts say, to a person: Spanish, Portuguese and English, as data.

Names of campaigns and stages and the reasons that programs give are all that is filled in: never an
address, a name or a text of a customer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from outreach.settings import Business


@dataclass(frozen=True)
class Words:
    """An alarm in one language."""

    title: str
    text: str
    over: str  # when it is over


@dataclass(frozen=True)
class Letter:
    """What every e-mail has around it, in one language."""

    begun: str
    over: str


TODO: dict[str, str] = {
    "paused": "outreach status\n    outreach resume {what}",
    "restored": "outreach db opt-outs\n    outreach messages --status unknown\n    outreach resume",
    "channel": "outreach doctor",
    "unknown": "outreach messages --status unknown\n    outreach resolve --help",
    "import": "outreach import",
    "failing": "outreach status",
    "stopped": "outreach status",
    "untold": "outreach doctor",
    "tasks": "outreach tasks list",
    "cases": "outreach cases list --open",
    "coupons": "outreach coupons list --offer {what}\n    outreach coupons make {what} 500",
}
LETTERS: dict[str, Letter] = {
    "es": Letter(
        begun="Hola:\n\n{text}\nDesde: {since}\n\nPara ver qué pasa y seguir, escribe:\n\n    {todo}\n\n"
        "Este aviso llega una sola vez; te escribiremos de nuevo si empeora mucho, y cuando haya pasado.\n\noutreach, en {business}\n",
        over="Hola:\n\n{text}\n\nNo hace falta que hagas nada.\n\noutreach, en {business}\n",
    ),
    "pt": Letter(
        begun="Olá,\n\n{text}\nDesde: {since}\n\nPara ver o que acontece e continuar, digite:\n\n    {todo}\n\n"
        "Este aviso chega uma única vez; escreveremos de novo se piorar muito, e quando tiver passado.\n\noutreach, em {business}\n",
        over="Olá,\n\n{text}\n\nVocê não precisa fazer nada.\n\noutreach, em {business}\n",
    ),
    "en": Letter(
        begun="Hello,\n\n{text}\nSince: {since}\n\nTo see what happens and go on, type:\n\n    {todo}\n\n"
        "You are told this once; we write again if it gets much worse, and when it is over.\n\noutreach, at {business}\n",
        over="Hello,\n\n{text}\n\nThere is nothing for you to do.\n\noutreach, at {business}\n",
    ),
}
WORDS: dict[str, dict[str, Words]] = {
    "es": {
        "paused": Words(
            "la campaña {what} se detuvo",
            "La campaña {what} se detuvo sola: {why}. Sus mensajes esperan.",
            "La campaña {what} sigue adelante.",
        ),
        "restored": Words(
            "todo en pausa tras una restauración",
            "La base de datos se restauró de una copia, y todo quedó en pausa: lo que pudo salir después de la copia está en duda. Campañas que esperan: {count}.",
            "Lo que la restauración dejó en pausa sigue adelante.",
        ),
        "channel": Words(
            "nada sale por {what}",
            "Nada sale por {what}: {why}. Lo que vence espera y se intenta de nuevo, cada vez con menos frecuencia; lo que caduque no se envía.",
            "Los mensajes salen otra vez por {what}.",
        ),
        "unknown": Words(
            "mensajes en duda",
            "Mensajes en duda: {count}. No se sabe si salieron, así que no se repiten. Lo que el proveedor pueda aclarar se aclara solo; lo demás lo decides tú.",
            "Ya no hay mensajes en duda.",
        ),
        "import": Words(
            "no llegan registros de la tienda",
            "No llegan registros nuevos de la tienda: sus archivos no han cambiado.",
            "Llegan otra vez registros de la tienda.",
        ),
        "failing": Words(
            "la etapa {what} falla",
            "La etapa {what} falla en cada intento.",
            "La etapa {what} funciona otra vez.",
        ),
        "stopped": Words(
            "nada se planea ni se envía",
            "Nada se planea ni se envía: las etapas plan y dispatch ya no terminan.",
            "Nada funcionó desde {since} hasta {until}. Ya funciona otra vez: lo pendiente que aún vale la pena sale ahora.",
        ),
        "stopped:plan": Words(
            "la etapa plan ya no termina",
            "La etapa plan ya no termina: nada nuevo se planea. Lo ya planeado se envía.",
            "La etapa plan termina otra vez.",
        ),
        "stopped:dispatch": Words(
            "la etapa dispatch ya no termina",
            "La etapa dispatch ya no termina: lo planeado no se envía.",
            "La etapa dispatch termina otra vez.",
        ),
        "untold": Words(
            "los avisos no llegan por {what}",
            "Los avisos no llegan por {what}: {why}.",
            "Los avisos llegan otra vez por {what}.",
        ),
        "tasks": Words(
            "llamadas y visitas que esperan",
            "Llamadas y visitas que ya esperaron más de la mitad de su plazo: {count}.",
            "Ninguna llamada ni visita está atrasada.",
        ),
        "cases": Words(
            "casos atrasados",
            "Casos abiertos más allá de su plazo: {count}.",
            "Ningún caso está atrasado.",
        ),
        "coupons": Words(
            "se acaban los códigos de la oferta {what}",
            "Códigos de la oferta {what} que quedan: {count}. Al ritmo actual no alcanzan para una semana; antes de enviar sin código, sus campañas se detienen.",
            "Hay otra vez códigos de la oferta {what}.",
        ),
    },
    "pt": {
        "paused": Words(
            "a campanha {what} parou",
            "A campanha {what} parou sozinha: {why}. Suas mensagens esperam.",
            "A campanha {what} continua.",
        ),
        "restored": Words(
            "tudo em pausa após uma restauração",
            "O banco de dados foi restaurado de uma cópia, e tudo ficou em pausa: o que pode ter saído depois da cópia está em dúvida. Campanhas que esperam: {count}.",
            "O que a restauração deixou em pausa continua.",
        ),
        "channel": Words(
            "nada sai por {what}",
            "Nada sai por {what}: {why}. O que está pendente espera e é tentado de novo, cada vez com menos frequência; o que perder a validade não é enviado.",
            "As mensagens saem de novo por {what}.",
        ),
        "unknown": Words(
            "mensagens em dúvida",
            "Mensagens em dúvida: {count}. Não se sabe se saíram, por isso não se repetem. O que o provedor puder esclarecer se esclarece sozinho; o resto você decide.",
            "Não há mais mensagens em dúvida.",
        ),
        "import": Words(
            "não chegam registros da loja",
            "Não chegam registros novos da loja: seus arquivos não mudaram.",
            "Chegam de novo registros da loja.",
        ),
        "failing": Words(
            "a etapa {what} falha",
            "A etapa {what} falha a cada tentativa.",
            "A etapa {what} funciona de novo.",
        ),
        "stopped": Words(
            "nada é planejado nem enviado",
            "Nada é planejado nem enviado: as etapas plan e dispatch já não terminam.",
            "Nada funcionou de {since} até {until}. Já funciona de novo: o que ainda vale a pena sai agora.",
        ),
        "stopped:plan": Words(
            "a etapa plan já não termina",
            "A etapa plan já não termina: nada de novo é planejado. O que já foi planejado é enviado.",
            "A etapa plan termina de novo.",
        ),
        "stopped:dispatch": Words(
            "a etapa dispatch já não termina",
            "A etapa dispatch já não termina: o que foi planejado não é enviado.",
            "A etapa dispatch termina de novo.",
        ),
        "untold": Words(
            "os avisos não chegam por {what}",
            "Os avisos não chegam por {what}: {why}.",
            "Os avisos chegam de novo por {what}.",
        ),
        "tasks": Words(
            "ligações e visitas que esperam",
            "Ligações e visitas que já esperaram mais da metade do prazo: {count}.",
            "Nenhuma ligação nem visita está atrasada.",
        ),
        "cases": Words(
            "casos atrasados",
            "Casos abertos além do seu prazo: {count}.",
            "Nenhum caso está atrasado.",
        ),
        "coupons": Words(
            "os códigos da oferta {what} estão acabando",
            "Códigos da oferta {what} que restam: {count}. No ritmo atual não bastam para uma semana; antes de enviar sem código, suas campanhas param.",
            "Há de novo códigos da oferta {what}.",
        ),
    },
    "en": {
        "paused": Words(
            "campaign {what} has paused",
            "Campaign {what} has paused itself: {why}. Its messages wait.",
            "Campaign {what} goes on again.",
        ),
        "restored": Words(
            "everything is paused after a restore",
            "The database was restored from a backup, and everything was paused: what may have left after the backup is in doubt. Campaigns that wait: {count}.",
            "What the restore paused goes on again.",
        ),
        "channel": Words(
            "nothing gets through by {what}",
            "Nothing gets through by {what}: {why}. What is due waits, and is tried less and less often; what expires meanwhile is not sent.",
            "Messages get through by {what} again.",
        ),
        "unknown": Words(
            "messages in doubt",
            "Messages in doubt: {count}. Nobody can say whether they left, so they are not repeated. What the provider can clear up clears up by itself; the rest you decide.",
            "No message is in doubt any more.",
        ),
        "import": Words(
            "no records come from the shop",
            "No new records come from the shop: its files have not changed.",
            "Records come from the shop again.",
        ),
        "failing": Words(
            "the stage {what} fails",
            "The stage {what} fails at every try.",
            "The stage {what} works again.",
        ),
        "stopped": Words(
            "nothing is planned or sent",
            "Nothing is planned or sent: the stages plan and dispatch no longer finish.",
            "Nothing ran from {since} to {until}. It runs again: what is due and still worth sending goes out now.",
        ),
        "stopped:plan": Words(
            "the stage plan no longer finishes",
            "The stage plan no longer finishes: nothing new is planned. What was planned before is sent.",
            "The stage plan finishes again.",
        ),
        "stopped:dispatch": Words(
            "the stage dispatch no longer finishes",
            "The stage dispatch no longer finishes: what is planned is not sent.",
            "The stage dispatch finishes again.",
        ),
        "untold": Words(
            "alerts do not get through by {what}",
            "Alerts do not get through by {what}: {why}.",
            "Alerts get through by {what} again.",
        ),
        "tasks": Words(
            "calls and visits that wait",
            "Calls and visits that have waited for more than half of their time: {count}.",
            "No call or visit is late.",
        ),
        "cases": Words(
            "overdue cases",
            "Cases open beyond their target time: {count}.",
            "No case is overdue.",
        ),
        "coupons": Words(
            "the codes of the offer {what} run out",
            "Codes of the offer {what} that are left: {count}. At the current rate they do not last a week; before anything is sent without a code, its campaigns pause.",
            "There are codes of the offer {what} again.",
        ),
    },
}


def is_known(name: str) -> bool:
    """Whether it is an alarm of ours: notes of the watch, and what others may keep beside them, are not."""
    return _parts(name)[0] in TODO


def text(business: Business, name: str, **values: object) -> str:
    """The sentence for an alarm that holds, such as `paused:win_back`."""
    return _words(business, name).text.format(what=_parts(name)[1], **values)


def over(business: Business, name: str, since: datetime, until: datetime) -> str:
    """The sentence for an alarm that is over."""
    times = {"since": written(business, since), "until": written(business, until)}
    return _words(business, name).over.format(what=_parts(name)[1], **times)


def subject(business: Business, name: str, said: str, *, is_over: bool) -> str:
    """The subject of an e-mail about it: what is over is said whole, up to its first full stop."""
    title = _words(business, name).title.format(what=_parts(name)[1])
    if is_over:
        title = said.partition(". ")[0].rstrip(".")
    return f"{business.name}: {title}"


def letter(business: Business, name: str, said: str, since: datetime, *, is_over: bool) -> str:
    """The text of an e-mail about it, which names the command to type next."""
    kind, what = _parts(name)
    around = LETTERS[_language(business)]
    if is_over:
        return around.over.format(text=said, business=business.name)
    todo = TODO[kind].format(what=what)
    return around.begun.format(text=said, since=written(business, since), todo=todo, business=business.name)


def written(business: Business, at: datetime) -> str:
    """A time on the business's clock, as its people write it."""
    from babel import Locale, UnknownLocaleError
    from babel.dates import format_date, format_time, get_timezone

    try:
        locale = Locale.parse(business.locale, sep="-")
    except (UnknownLocaleError, ValueError):
        locale = Locale("en")
    local = at.astimezone(get_timezone(business.timezone))
    return f"{format_date(local, 'full', locale=locale)}, {format_time(local, 'HH:mm', locale=locale)}"


def _language(business: Business) -> str:
    language = business.locale.partition("-")[0].lower()
    return language if language in WORDS else "en"


def _words(business: Business, name: str) -> Words:
    """Of the very alarm if it has words of its own, as `stopped:plan` has; else of its kind."""
    known = WORDS[_language(business)]
    return known.get(name) or known[_parts(name)[0]]


def _parts(name: str) -> tuple[str, str]:
    kind, _, what = name.partition(":")
    return kind, what
