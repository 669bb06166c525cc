"""
The pages of survey links: the questions, with the score chosen that the link names, and the thanks.

A score in an e-mail is a link; following it shows its score chosen, and it counts when the reader
confirms it, since mail scanners follow links, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import HTMLResponse, Response

from outreach import surveys
from outreach.surveys import Asking
from outreach.web.drawing import draw, notice
from outreach.web.intake import Site
from outreach.web.survey_words import SURVEY_LANGUAGES, SurveyWords
from outreach.web.words import Words, words_for

KINDS = ("survey", "survey_score")  # of links
SCORE, WHY = "score-", "why-"  # what the fields' names begin with; the survey's name follows


@dataclass(frozen=True)
class Tile:
    """One answer that can be chosen."""

    value: int
    label: str
    chosen: bool


@dataclass(frozen=True)
class Question:
    """One question as the page draws it."""

    name: str
    text: str
    ends: str  # what the scale's ends mean; empty where the answers say it themselves
    tiles: Sequence[Tile]
    why: bool
    comment: str = ""  # what was written before the page was shown again


def show(
    site: Site, request: Request, token: str, *, incomplete: bool = False, comments: Mapping[str, str] | None = None
) -> Response | None:
    """The questions that may still be answered, or that all are; None: the link leads nowhere."""
    found = surveys.asked(site.db, site.settings, site.clock(), token)
    if found is None:
        return None
    words, own = _words(site, request, found.locale)
    open_ = [one for one in found.questions if one.open]
    business = site.settings.business
    if not open_:
        return HTMLResponse(notice(words, business.name, own.closed_title, own.closed_text))
    language = found.locale if found.locale and found.locale.lower().startswith(words.lang) else words.lang
    drawn = [_question(one, own, language, business.locale, comments or {}) for one in open_]
    values = {"business": business.name, "title": own.ask_title, "asks": own, "questions": drawn}
    most = {"incomplete": incomplete, "longest": surveys.LONGEST_COMMENT}
    return HTMLResponse(draw("ask.html", words, values | most))


def take(site: Site, request: Request, token: str, form: Sequence[tuple[str, str]]) -> Response | None:
    """Record what was answered, and say thank you; the questions again where nothing was, or nothing can be."""
    scores, comments = _answers(form)
    heard = surveys.answer(site.db, site.settings, site.clock(), token, scores, comments)
    if heard is None:
        return None
    if not heard.taken:
        return show(site, request, token, incomplete=True, comments=comments)
    words, own = _words(site, request, heard.locale)
    business = site.settings.business
    values = {
        "business": business.name,
        "title": own.thanks_title,
        "asks": own,
        "review": _review(business.links) if heard.satisfied else "",
        "again": request.url.path.rpartition("/")[2],
    }
    return HTMLResponse(draw("thanks.html", words, values))


def _words(site: Site, request: Request, locale: str | None) -> tuple[Words, SurveyWords]:
    words = words_for(locale, request.headers.get("accept-language", ""), site.settings.business.locale)
    return words, SURVEY_LANGUAGES[words.lang]


def _question(one: Asking, own: SurveyWords, language: str, fallback: str, comments: Mapping[str, str]) -> Question:
    survey = one.survey
    low, high = surveys.ends(survey.scale)
    yes_no = survey.scale == "yes_no"
    ends = own.likely_ends if survey.kind == "nps" else own.ends
    labels = {1: own.yes, 0: own.no} if yes_no else {}
    return Question(
        name=survey.name,
        text=surveys.question(survey, language, fallback),
        ends="" if yes_no else ends.format(low=low, high=high),
        tiles=[Tile(score, labels.get(score, str(score)), score == one.score) for score in surveys.scores(survey)],
        why=survey.why,
        comment=comments.get(survey.name, ""),
    )


def _answers(form: Sequence[tuple[str, str]]) -> tuple[dict[str, int], dict[str, str]]:
    """The scores and the comments of a form, by survey; what is neither is passed over."""
    scores, comments = {}, {}
    for name, value in form:
        if name.startswith(SCORE) and value.isascii() and value.isdigit() and len(value) <= 2:
            scores[name.removeprefix(SCORE)] = int(value)
        elif name.startswith(WHY):
            comments[name.removeprefix(WHY)] = value
    return scores, comments


def _review(links: Mapping[str, str]) -> str:
    """Where the shop is reviewed, if its settings say so."""
    address = links.get("review", "")
    return address if urlsplit(address).scheme in ("https", "http") else ""
