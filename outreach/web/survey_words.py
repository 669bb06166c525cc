"""What the pages of surveys say, in Spanish, Portuguese and English."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SurveyWords:
    """One language. `{low}` and `{high}` are the ends of a scale."""

    ask_title: str
    ends: str
    likely_ends: str  # of the question how likely somebody is to recommend the shop
    yes: str
    no: str
    why: str
    send: str
    choose_one: str
    thanks_title: str
    thanks_text: str
    review_text: str
    review_link: str
    change: str
    closed_title: str
    closed_text: str


ES = SurveyWords(
    ask_title="Tu opinión",
    ends="{low} es lo más bajo y {high} lo más alto",
    likely_ends="{low} es nada probable y {high} es muy probable",
    yes="Sí",
    no="No",
    why="¿Por qué? (opcional)",
    send="Enviar",
    choose_one="Elige una respuesta antes de enviar.",
    thanks_title="¡Gracias por tu respuesta!",
    thanks_text="La guardamos. Leemos cada una para mejorar.",
    review_text="Si quieres, cuéntaselo también a otras personas:",
    review_link="Escribir una reseña",
    change="Cambiar mi respuesta",
    closed_title="Ya tenemos tu respuesta",
    closed_text="¡Gracias! Una respuesta solo se puede cambiar durante el primer día. Si quieres contarnos algo más, responde al mensaje que te enviamos.",
)

PT = SurveyWords(
    ask_title="Sua opinião",
    ends="{low} é o mais baixo e {high} o mais alto",
    likely_ends="{low} é nada provável e {high} é muito provável",
    yes="Sim",
    no="Não",
    why="Por quê? (opcional)",
    send="Enviar",
    choose_one="Escolha uma resposta antes de enviar.",
    thanks_title="Obrigado pela sua resposta!",
    thanks_text="Ela foi salva. Lemos cada uma para melhorar.",
    review_text="Se quiser, conte também a outras pessoas:",
    review_link="Escrever uma avaliação",
    change="Mudar minha resposta",
    closed_title="Já temos a sua resposta",
    closed_text="Obrigado! Uma resposta só pode ser mudada durante o primeiro dia. Se quiser nos contar mais alguma coisa, responda à mensagem que enviamos.",
)

EN = SurveyWords(
    ask_title="Your opinion",
    ends="{low} is the lowest and {high} the highest",
    likely_ends="{low} is not at all likely and {high} is very likely",
    yes="Yes",
    no="No",
    why="Why? (optional)",
    send="Send",
    choose_one="Choose an answer before you send.",
    thanks_title="Thank you for your answer!",
    thanks_text="It is saved. We read each one to do better.",
    review_text="If you like, tell others, too:",
    review_link="Write a review",
    change="Change my answer",
    closed_title="We have your answer",
    closed_text="Thank you! An answer can only be changed during the first day. To tell us something else, reply to the message we sent you.",
)

SURVEY_LANGUAGES = {"es": ES, "pt": PT, "en": EN}
