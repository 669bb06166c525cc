"""What the public pages say, in Spanish, Portuguese and English."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from outreach.values import CONTACT_KIND


@dataclass(frozen=True)
class Words:
    """One language. `{business}` is the shop's name, `{here}` where its messages arrive, as `here` says it."""

    lang: str
    here: dict[str, str]  # by kind of contact
    channels: dict[str, str]
    stop_title: str
    stop_text: str
    stop_button: str
    choose_instead: str
    stopped_title: str
    stopped_text: str
    by_mistake: str
    choose_title: str
    choose_legend: str
    choose_button: str
    only_from_there: str
    nothing_to_choose: str
    chosen_title: str
    stop_all_title: str
    missing_title: str
    missing_text: str
    busy_title: str
    busy_text: str

    def place(self, channel: str) -> str:
        """Where messages on a channel arrive: an opt-out there holds for all of it."""
        return self.here[CONTACT_KIND.get(channel, "phone")]


ES = Words(
    lang="es",
    here={"email": "a este correo", "phone": "a este número", "messenger": "por Messenger"},
    channels={
        "email": "Correo electrónico",
        "sms": "SMS",
        "whatsapp": "WhatsApp",
        "messenger": "Messenger",
        "call": "Llamadas",
        "visit": "Visitas",
    },
    stop_title="¿Ya no quieres recibir mensajes?",
    stop_text="Si confirmas, {business} dejará de escribirte {here} y no te enviará promociones ni seguimientos por ningún otro medio.",
    stop_button="Darme de baja",
    choose_instead="Prefiero elegir qué recibir",
    stopped_title="Listo: te dimos de baja",
    stopped_text="{business} deja de escribirte {here} y no te enviará promociones ni seguimientos por ningún otro medio. Ya puedes cerrar esta página.",
    by_mistake="¿Fue sin querer? Elegir qué recibir",
    choose_title="Elige qué recibir",
    choose_legend="Promociones y novedades de {business}",
    choose_button="Guardar",
    only_from_there="solo se vuelve a activar desde ahí: escríbenos por ese medio",
    nothing_to_choose="No tenemos ningún medio por el que enviarte promociones.",
    chosen_title="Guardamos lo que elegiste",
    stop_all_title="O no recibir nada más",
    missing_title="Este enlace no lleva a ninguna parte",
    missing_text="Puede que esté incompleto. Ábrelo otra vez desde el mensaje que recibiste.",
    busy_title="Inténtalo en un momento",
    busy_text="Ahora mismo no podemos atenderte y no se cambió nada. Vuelve a intentarlo en unos minutos.",
)

PT = Words(
    lang="pt",
    here={"email": "para este e-mail", "phone": "para este número", "messenger": "pelo Messenger"},
    channels={
        "email": "E-mail",
        "sms": "SMS",
        "whatsapp": "WhatsApp",
        "messenger": "Messenger",
        "call": "Ligações",
        "visit": "Visitas",
    },
    stop_title="Não quer mais receber mensagens?",
    stop_text="Se você confirmar, {business} deixará de escrever {here} e não enviará promoções nem acompanhamentos por nenhum outro meio.",
    stop_button="Cancelar o recebimento",
    choose_instead="Prefiro escolher o que receber",
    stopped_title="Pronto: recebimento cancelado",
    stopped_text="{business} deixa de escrever {here} e não enviará promoções nem acompanhamentos por nenhum outro meio. Você já pode fechar esta página.",
    by_mistake="Foi sem querer? Escolher o que receber",
    choose_title="Escolha o que receber",
    choose_legend="Promoções e novidades de {business}",
    choose_button="Salvar",
    only_from_there="só volta a ser ativado por lá: escreva para nós por esse meio",
    nothing_to_choose="Não temos nenhum meio pelo qual enviar promoções a você.",
    chosen_title="Sua escolha foi salva",
    stop_all_title="Ou não receber mais nada",
    missing_title="Este link não leva a lugar nenhum",
    missing_text="Talvez esteja incompleto. Abra-o de novo na mensagem que você recebeu.",
    busy_title="Tente daqui a pouco",
    busy_text="No momento não conseguimos atender, e nada foi alterado. Tente de novo em alguns minutos.",
)

EN = Words(
    lang="en",
    here={"email": "at this e-mail address", "phone": "at this number", "messenger": "on Messenger"},
    channels={
        "email": "E-mail",
        "sms": "SMS",
        "whatsapp": "WhatsApp",
        "messenger": "Messenger",
        "call": "Phone calls",
        "visit": "Visits",
    },
    stop_title="Stop receiving messages?",
    stop_text="If you confirm, {business} will stop writing to you {here} and will send you no offers or follow-ups anywhere else.",
    stop_button="Unsubscribe",
    choose_instead="Choose what to receive instead",
    stopped_title="Done: you are unsubscribed",
    stopped_text="{business} stops writing to you {here} and will send you no offers or follow-ups anywhere else. You can close this page.",
    by_mistake="Was it a mistake? Choose what to receive",
    choose_title="Choose what to receive",
    choose_legend="Offers and news from {business}",
    choose_button="Save",
    only_from_there="can only be switched on again from there: write to us on it",
    nothing_to_choose="There is no channel on which we could send you offers.",
    chosen_title="Your choice is saved",
    stop_all_title="Or receive nothing more",
    missing_title="This link leads nowhere",
    missing_text="It may be incomplete. Open it once more from the message you received.",
    busy_title="Try again in a moment",
    busy_text="We cannot do this right now, and nothing was changed. Try again in a few minutes.",
)

LANGUAGES = {words.lang: words for words in (ES, PT, EN)}


def words_for(locale: str | None, accepted: str, fallback: str) -> Words:
    """The first of these that we speak: the customer's locale, what the browser accepts, the business's; else Spanish."""
    for language in (locale or "", *_preferred(accepted), fallback):
        if (found := LANGUAGES.get(language.replace("_", "-").partition("-")[0].strip().lower())) is not None:
            return found
    return ES


def _preferred(accepted: str) -> Iterable[str]:
    """The languages of an Accept-Language header, best first (RFC 9110, 12.5.4); nonsense counts as nothing."""
    found: list[tuple[float, int, str]] = []
    for place, part in enumerate(accepted[:500].split(",")):
        language, _, weight = part.partition(";")
        try:
            quality = float(weight.strip().removeprefix("q=")) if weight.strip() else 1.0
        except ValueError:
            continue
        if quality > 0:
            found.append((-quality, place, language.strip()))
    return [language for _, _, language in sorted(found)]
