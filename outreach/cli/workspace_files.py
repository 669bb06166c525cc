"""The files of a new workspace: outreach.yaml with every setting explained, and the README of data/."""

from __future__ import annotations

import json
from collections.abc import Sequence

from outreach import starter_kit
from outreach.cli.homes import Home

DATA_README = """\
Put the shop's files here, and read them with

    outreach import --customers data/customers.csv --orders data/orders.csv

CSV in UTF-8, `.gz` too. A column marked * is required; any further column is kept with its record.

customers.csv    customer_id*, email, phone, first_name, last_name, locale, country, region, city, postal_code,
                 timezone, birthday, created_at, tags, messenger_id, email_consent, sms_consent, whatsapp_consent,
                 messenger_consent, call_consent, visit_consent
                 (yes, no or empty), consent_at, consent_source
orders.csv       order_id*, customer_id*, placed_at*, status, paid_at, shipped_at, delivered_at, cancelled_at,
                 refunded_at, currency, total, coupon_code; and per line sku, product, category, quantity, unit_price
                 (rows with one order_id are the lines of one order)
cases.csv        case_id*, customer_id*, kind* (complaint, cancellation, return, refund, question), category, sku,
                 opened_at*, answered_at, closed_at, outcome (resolved, unresolved, kept, lost), order_id, note
events.csv       event_id*, customer_id*, name*, at*
suppressions     one address or number a line: people who must not be contacted

A time without an offset is in the business's time zone. An empty consent is not consent.
"""

CHANNELS = {
    "email": "email: {provider: outbox, from: %s}",
    "sms": 'sms: {provider: outbox, from: "+10000000000"}',
    "whatsapp": 'whatsapp: {provider: outbox, from: "+10000000000"}',
    "messenger": 'messenger: {provider: outbox, from: "10000000000"}',
    "call": "call: {provider: staff}",
    "visit": "visit: {provider: staff}",
}

NO_ADDRESS = "Street and number, postal code and city"
SETTINGS = """\
# The settings of this workspace. Only `business` is needed; each line below it shows a default or an example.
# Secrets never stand here: they come from the environment (OUTREACH_SECRET, SMTP_PASSWORD, ...).
business:
  name: %(name)s
  timezone: %(timezone)s
  currency: %(currency)s
  locale: %(locale)s                # the language of customers whose own is not known
  country: %(country)s
  postal_address: Street and number, postal code and city    # marketing e-mails show it
  # Your pages that messages lead to. Without one, a message asks for a reply instead.
  # links: {help: https://shop.example/help, review: https://shop.example/review}

database: sqlite:///outreach.db       # or postgresql://user@host/name
public_url: http://localhost:8080     # what links in messages point to

# How messages leave. `outbox` writes them into the folder outbox/ instead of sending them. What really sends:
# smtp or sendgrid (email), twilio (sms, whatsapp, messenger). `staff` makes tasks for a person (`outreach tasks`).
# `outreach doctor` says what they still need.
channels:
%(channels)s

# A rehearsal: while addresses stand here, everybody else's messages end as skipped.
only_to: []

# When sending is allowed, in the customer's own time.
sending_hours:
  default: {mon-fri: "09:00-20:00", sat: "10:00-14:00"}
  email: {mon-sun: "07:00-22:00"}

# Whose time that is where nobody knows the customer's (no country, no phone number): the business's. `hold` waits.
unknown_zone: business

# How often a person may be contacted.
caps:
  - {purpose: marketing, messages: 1, per: 1 day}
  - {purpose: marketing, messages: 3, per: 7 days}
  - {purpose: service, messages: 3, per: 1 day}

# Who is told when something is wrong: alerts: {email: you@shop.example, webhook: https://…}

# The share of customers who never get marketing, so that the reports can say what marketing changed.
holdout: 0%%

# Where `outreach import` and the daemon read the shop's records.
sources:
  - {kind: csv, customers: data/customers.csv, orders: data/orders.csv}

# Exports often lack delivery dates: how to estimate them.
orders: {delivered: {else: shipped + 5 days}}

# Names for conditions, usable as segment('vip').
segments:
  vip: "orders_count >= 5"
  unhappy: "last_csat <= 2"           # left out of requests and offers, until a better score

# What the campaigns ask. Without a `question`, the usual one is asked in the customer's language.
surveys:
  csat:                               # post_sale asks it; low_score and high_score follow
    question: {es: "¿Quedaste contento con tu compra?", pt: "Você ficou satisfeito com a compra?", en: "Are you happy with what you bought?"}
    scale: 1-5
    satisfied: 4-5
    why: yes
  support:                            # support_survey asks it
    question: {es: "¿Qué tan bien te atendimos?", pt: "Como foi nosso atendimento?", en: "How well did we look after you?"}
    scale: 1-5
    satisfied: 4-5
    why: yes
  nps: {scale: 0-10, kind: nps, why: yes}    # nps asks it; ambassador follows

# What the campaigns give away. Each customer gets a code of their own. Before you switch on a campaign with an offer:
# make its codes (outreach coupons make), load them into the shop's cart, and mark them live (outreach coupons activate).
# Or let everybody have one code: codes: {shared: VUELVE10}.
%(offers)s"""


def settings_text(name: str, country: str, home: Home, channels: Sequence[str]) -> str:
    """outreach.yaml of a new workspace, every setting explained."""
    sender = "".join(letter for letter in name if letter.isalnum() or letter in " &.'-").strip() or "Shop"
    given = {
        "name": name,
        "timezone": home.timezone,
        "currency": home.currency,
        "locale": home.locale,
        "country": country,
    }
    written = {key: json.dumps(value, ensure_ascii=False) for key, value in given.items()}
    address = json.dumps(f"{sender} <hello@shop.example>", ensure_ascii=False)
    lines = (CHANNELS[channel].replace("%s", address) for channel in CHANNELS if channel in channels)
    return SETTINGS % {**written, "offers": starter_kit.OFFERS, "channels": "\n".join(f"  {line}" for line in lines)}
