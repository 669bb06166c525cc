"""What replies mean: the development set, the grammar of opt-outs, the lists' own form, and hostile texts."""

from __future__ import annotations

import csv
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outreach import intents
from outreach.intents import Certainty, Intent
from outreach.intents.normal import HEAD, TAIL, words
from outreach.intents.phrases import book, make

REPLIES = Path(__file__).parent / "data" / "replies_development.csv"


def replies() -> list[tuple[str, frozenset[str]]]:
    """Text and meanings; the rules were written with these in sight, so they measure nothing."""
    with REPLIES.open(encoding="utf-8", newline="") as file:
        return [(row["text"], frozenset(row["intents"].split(";"))) for row in csv.DictReader(file)]


# --- the development set -----------------------------------------------------------------------------


def test_the_set_is_large_and_mixed() -> None:
    found = replies()
    meant = Counter(one for _, meanings in found for one in meanings)

    assert len(found) >= 1_000
    assert len({text for text, _ in found}) == len(found)
    assert set(meant) == set(Intent)
    assert meant["opt_out"] >= 400


def test_no_opt_out_of_the_set_is_missed() -> None:
    missed = [text for text, meant in replies() if "opt_out" in meant and intents.read(text).opt_out is Certainty.NONE]
    assert missed == []


def test_nothing_else_of_the_set_is_a_final_opt_out() -> None:
    wrong = [
        text for text, meant in replies() if "opt_out" not in meant and intents.read(text).opt_out is Certainty.FINAL
    ]
    assert wrong == []


def test_most_of_the_set_is_read_exactly() -> None:
    found = [(set(intents.read(text).intents), meant) for text, meant in replies()]
    assert sum(got == meant for got, meant in found) >= 0.9 * len(found)


@pytest.mark.parametrize(
    "polite",
    ["{} por favor", "{}, porfa.", "Hola, {}", "{} gracias", "{} 🙏", "{} obrigado", "Boa tarde! {}", "{} please"],
)
def test_no_courtesy_makes_an_opt_out_less_certain(polite: str) -> None:
    final = [text.rstrip(".! ") for text, _ in replies() if intents.read(text).opt_out is Certainty.FINAL]
    doubted = [text for text in final if intents.read(polite.format(text)).opt_out is not Certainty.FINAL]
    assert len(final) >= 400
    assert doubted == []


@pytest.mark.parametrize(
    "text",
    ["me dan de baja porfa", "¿me podrían dar de baja, por favor?", "Señores: pido que me den de baja por favor"],
)
def test_who_asks_politely_is_heard(text: str) -> None:
    assert intents.read(text).opt_out is Certainty.FINAL


@pytest.mark.parametrize(
    "text",
    [
        "no quiero que me den de baja", "no quiero que me quiten de la lista", "no quiero que borren mi número",
        "me equivoqué, no quería la baja", "no pedí darme de baja", "quiero seguir recibiendo", "Obrigada, tchau!",
        "quiero cancelar mi suscripción al club del café", "quiero cancelar la suscripción a la caja mensual",
    ],
)  # fmt: skip
def test_who_says_the_contrary_or_something_else_is_not_opted_out(text: str) -> None:
    assert intents.read(text).opt_out is Certainty.NONE


@pytest.mark.parametrize(
    "text", ["quiero cancelar mi suscripción mensual", "Cancelar la suscripción mensual de café, ya no me alcanza"]
)
def test_what_is_paid_for_is_cancelled_and_not_the_messages(text: str) -> None:
    assert intents.read(text).intents == (Intent.CANCELLATION,)


def test_who_closes_their_account_is_heard() -> None:
    assert intents.read("quiero dar de baja mi cuenta").opt_out is Certainty.FINAL


# --- the grammar -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "BAJA", "baaaaasta!!!", "B A J A", "s.t.o.p", "st0p", "unsubcribe", "desinscrever", "stop stop", "🛑",
        "no quiero recibir más", "sáquenme de la lista", "deja de mandarme mensajes", "q no m escriban + ps",
        "para de me mandar", "take me off", "remove my number", "lose my number", "pare de encher", "kitenme d la lista",
        "ya no soy cliente, no me escriban", "los voy a denunciar si siguen escribiendo", "no more msgs porfa",
        "Con base en la ley de habeas data supriman mis datos", "vou acionar o Procon se continuarem", "nomolesten",
    ],
)  # fmt: skip
def test_what_leaves_no_doubt_is_final(text: str) -> None:
    assert intents.read(text).opt_out is Certainty.FINAL, intents.explain(text)


@pytest.mark.parametrize(
    "text",
    [
        "cancelar mi pedido", "no quiero cancelar", "¿cómo puedo parar la lavadora?", "baja la talla",
        "alto rendimiento", "bajar el precio", "sair para entrega", "cancel my order", "stop by the store",
        "no dejen de avisarme", "no me saquen de la lista", "don't stop sending these", "não parem de mandar",
        "número equivocado", "no me llamen hoy", "quiero cancelar", "para que llegue antes", "I'll stop by tomorrow",
        "Para darte de baja responde BAJA", "If you no longer wish to receive these emails click here to unsubscribe",
    ],
)  # fmt: skip
def test_a_stop_word_in_another_sense_is_never_final(text: str) -> None:
    assert intents.read(text).opt_out is not Certainty.FINAL, intents.explain(text)


@pytest.mark.parametrize(
    "text", ["número equivocado", "wrong number", "engano", "yo no los conozco", "no me interesa", "esto es spam"]
)
def test_what_may_be_an_opt_out_is_doubtful(text: str) -> None:
    assert intents.read(text).opt_out is Certainty.DOUBTFUL, intents.explain(text)


@pytest.mark.parametrize(
    "text", ["gracias", "sí", "5", "ok 👍", "mi dirección es Calle 5", "¿cuándo llega?", "", "???"]
)
def test_ordinary_replies_raise_no_doubt(text: str) -> None:
    assert intents.read(text).opt_out is Certainty.NONE, intents.explain(text)


@pytest.mark.parametrize(
    "text",
    [
        "¿cómo quito la mancha del mantel?", "borren la dirección vieja", "quita la blusa del carrito", "no abre la tapa",
        "la radio para de sonar sola", "como removo a capa do banco?", "tira a etiqueta", "when does the sale end?",
        "remove the scarf from my order", "my card was blocked", "no se preocupen", "não precisa trocar", "no need to call",
        "sigan mandando ofertas", "continuem mandando as ofertas", "keep sending the deals", "no paren de traer modelos",
    ],
)  # fmt: skip
def test_a_stop_word_about_a_thing_raises_no_doubt(text: str) -> None:
    assert intents.read(text).opt_out is Certainty.NONE, intents.explain(text)


@pytest.mark.parametrize(
    "text",
    [
        "ya compré el vestido, basta", "no paran de escribirme", "no me envíen ofertas de zapatos", "tira meu nome daí",
        "não me manda mais oferta de tênis", "pedí que me eliminaran", "I asked to be removed", "cancela o envio disso",
        "take my cell off this thing", "les pedí que no me escribieran", "dejen de ofrecerme la tarjeta",
    ],
)  # fmt: skip
def test_a_thing_beside_it_hides_no_opt_out(text: str) -> None:
    assert intents.read(text).opt_out is not Certainty.NONE, intents.explain(text)


def test_a_comma_parts_what_a_slip_joins() -> None:
    assert intents.read("no, quiero recibir más promociones").opt_out is not Certainty.FINAL
    assert intents.read("por favor, ya, no, me manden, más").opt_out is not Certainty.NONE


def test_several_meanings_are_told_apart() -> None:
    assert intents.read("Cancelen mi pedido y no me manden más mensajes").intents == ("opt_out", "cancellation")
    assert intents.read("vino defectuoso, exijo mi reembolso").intents == ("complaint", "refund")
    assert intents.read("10, muchas gracias") == intents.Reading((Intent.SCORE, Intent.THANKS), 10)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("5", 5), ("un 9", 9), ("9/10", 9), ("10 de 10", 10), ("cinco", 5), ("sete", 7), ("three", 3), ("⭐⭐⭐", 3),
        ("le doy 4 estrellas", 4), ("nota 8", 8), ("2, llegó roto", 2), ("0", 0), ("llego en 5 dias", None),
        ("11", None), ("pedido 5", None), ("5 productos llegaron rotos", None), ("calle 5 número 10", None), ("$5", None),
        ("un 7 porque tardó", 7), ("cinco estrellas ⭐", 5), ("dou 2, atrasou", 2), ("6 because it is slow", 6),
        ("1 llegó roto, el otro bien", None),
    ],
)  # fmt: skip
def test_scores_are_what_can_be_nothing_else(text: str, score: int | None) -> None:
    assert intents.read(text).score == score


def test_only_a_whole_message_signs_anybody_up() -> None:
    assert intents.read("ALTA").whole
    assert not intents.read("no quiero darme de alta").whole
    assert not intents.read("quiero recibir promociones").whole


# --- the lists ---------------------------------------------------------------------------------------


def test_what_is_wrong_in_a_list_is_named_with_its_line() -> None:
    with pytest.raises(ValueError, match=r"x\.txt:2: there is no list of words called nope"):
        make({"x": "[thanks]\n<nope> a"})
    with pytest.raises(ValueError, match=r"x\.txt:2: a phrase begins with a word"):
        make({"x": "[thanks]\nmaybe? a"})
    with pytest.raises(ValueError, match=r"x\.txt:1: it stands in no section"):
        make({"x": "word"})


def test_every_meaning_in_the_lists_is_one_that_is_read() -> None:
    levels = {f"opt_out {level}" for level in ("sure", "final", "probable", "suspected", "possible", "hint")}
    known = {*Intent, *levels, "complaint fit", "cancellation unwanted", "thanks praise", "opt_out doubt", "topic"}
    meanings = {phrase.meaning.removeprefix("not ") for phrases in book().by_word.values() for phrase in phrases}

    assert meanings <= known
    assert set(book().whole.values()) <= set(Intent)


def test_phrases_are_what_the_lists_say() -> None:
    small = make({"x": "[word verb]\n{send,writ}{e,es}\n[not thanks]\nno ~2 thanks\n[thanks]\n^<verb> a|b? ~1 $\n"})

    def found(text: str) -> list[str]:
        return [one.phrase.meaning for one in small.find(small.read(text))]

    assert found("sende a") == found("write b x") == found("ok, writes") == ["thanks"]
    assert found("x sende a") == found("sende a uno dos tres") == []
    assert found("no uno dos thanks") == ["not thanks"]
    other = make({"x": "[yes]\nsend the !cat|dog*\n[no]\nstop . now\n"})
    assert [len(list(other.find(other.read(text)))) for text in ("send the rat", "send the cat", "send the dog")] == [
        1,
        0,
        0,
    ]
    assert [len(list(other.find(other.read(text)))) for text in ("send the", "stop! now", "stop now")] == [0, 1, 0]
    assert found("no uno. thanks") == found("no uno dos tres thanks") == []


# --- hostile texts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit",
    [
        "no quiero ",
        "a",
        "no ,",
        "s t o p ",
        "no me ",
        "😡",
        "1/",
        "nota ",
        "nonono",
        "á",
        "​",
        ". ",
        "\n",
        "para de ",
        "ñ́",
    ],
)
def test_the_longest_text_costs_little(unit: str) -> None:
    text = (unit * 100_000)[:100_000]
    intents.read("warm")
    begun = time.process_time()
    intents.read(text)
    assert time.process_time() - begun < 10  # exploding, it would never end


def test_of_a_very_long_text_the_beginning_and_the_end_are_read() -> None:
    filler = "bla " * 10_000
    assert intents.read(f"No me escriban más. {filler}").opt_out is Certainty.FINAL
    assert intents.read(f"{filler}. No me escriban más").opt_out is Certainty.FINAL
    assert len(words("x" * 1_000_000)) <= 3
    assert HEAD + TAIL < 10_000


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=300))
def test_any_text_is_read_the_same_twice(text: str) -> None:
    first = intents.read(text)

    assert first == intents.read(text)
    assert first.intents
    assert list(first.intents) == sorted(first.intents, key=list(Intent).index)
    assert (first.score is not None) == (Intent.SCORE in first.intents) or first.whole or Intent.OPT_OUT in first
