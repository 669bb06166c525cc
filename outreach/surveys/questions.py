"""The question of a survey in the reader's language: the settings' own, else a built-in one."""

from __future__ import annotations

from outreach.settings import Survey

# By kind of question.
_BUILT_IN = {
    "nps": {
        "es": "¿Qué tan probable es que nos recomiendes a tus amigos o familiares?",
        "pt": "Qual a probabilidade de você nos recomendar a amigos ou familiares?",
        "en": "How likely are you to recommend us to friends or family?",
    },
    "csat": {
        "es": "¿Qué tan satisfecho quedaste con tu compra?",
        "pt": "Quão satisfeito você ficou com a sua compra?",
        "en": "How satisfied are you with your purchase?",
    },
    "yes_no": {
        "es": "¿Quedaste satisfecho con tu compra?",
        "pt": "Você ficou satisfeito com a sua compra?",
        "en": "Are you satisfied with your purchase?",
    },
}


def question(survey: Survey, language: str, fallback: str) -> str:
    """
    What the survey asks a reader of this language (`es` or `es-MX`).

    A shop's own question goes before a built-in one even where it is in another language, since only
    the shop knows what it means: the reader's, then the business's (`fallback`), then the first there is.
    """
    for wanted in (language, language.partition("-")[0], fallback, fallback.partition("-")[0]):
        for locale, text in survey.question.items():
            if locale.lower() == wanted.lower():
                return text
    for wanted in (language, fallback):
        for locale, text in survey.question.items():
            if locale.lower().partition("-")[0] == wanted.lower().partition("-")[0]:
                return text
    if survey.question:
        return next(iter(survey.question.values()))
    by_language = _BUILT_IN["nps" if survey.kind == "nps" else "yes_no" if survey.scale == "yes_no" else "csat"]
    return by_language.get(language.lower().partition("-")[0], by_language["es"])
