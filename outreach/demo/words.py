"""Channels, purposes and reasons as the story calls them, in plain English."""

from __future__ import annotations

from outreach.models import Reason

PURPOSES = {
    "transactional": "about their order",
    "service": "thanks, questions (service)",
    "marketing": "offers, reminders (marketing)",
}
CHANNELS = {"email": "e-mail", "sms": "SMS", "whatsapp": "WhatsApp", "call": "call"}
WORDS = {
    Reason.SUPPRESSED: "the number or address is on a do-not-contact list",
    Reason.NO_CONSENT: "never agreed to such messages on any channel of the step, or took it back",
    Reason.UNREACHABLE: "no usable address for any channel of the step",
    Reason.CASE_OPEN: "has an open complaint, return or question: that comes first",
    Reason.GLOBAL_HOLDOUT: "belongs to the customers who never get marketing, to measure against",
    Reason.AT_MOST: "got this campaign not long ago",
    Reason.HOLDOUT: "left alone on purpose, to compare with those who were contacted",
    Reason.UNLESS: "had become pointless",
    Reason.STOPPED: "had become pointless",
    Reason.LATE_DATA: "the shop told of it too late",
    Reason.MISSED: "nothing was running when it was due",
    Reason.EXPIRED: "could not leave in time",
    Reason.WITHDRAWN: "its step is not in the current release any more",
    Reason.CANCELLED: "cancelled by a person",
    Reason.NO_COUPON: "they have had the offer already",
    Reason.RECORD_CLEARED: "what it was about was taken back by the shop",
    Reason.CUSTOMER_GONE: "the customer is gone",
    Reason.ENDED: "the campaign has ended",
    Reason.ONLY_TO: "a rehearsal is on, for other addresses only",
    Reason.REFUSED: "the address was refused for good",
    Reason.TEXT_REFUSED: "the provider refused its text",
    Reason.DROPPED: "was in doubt, and a person decided that it should not go",
    Reason.GAVE_UP: "was tried several times, and never got through",
    Reason.NOT_RENDERED: "the message lacked something it needs",
    Reason.HOURS: "outside sending hours where the customer lives",
    Reason.NO_ZONE: "nobody knows where the customer lives, so which hours are decent",
    Reason.CAP: "has had enough messages lately",
    Reason.PAUSED: "the campaign is paused",
    Reason.CHANNEL: "the channel cannot send now",
    Reason.UNDEFINED: "the message lacks something it needs",
    Reason.RATE: "waits its turn: its sender may not send faster",
    Reason.PERSON: "waits for somebody to call or visit",
    Reason.RETRY: "to be tried again",
}
SINCE = {  # what came true since, in the words of `unless` and `stop_when`
    "ordered": "the customer ordered by themselves",
    "ordered_same": "the customer ordered the same again",
    "case_open": "a complaint, return or question came in",
    "case_closed": "the case was closed",
    "refunded": "the order was refunded",
    "cancelled": "the order was cancelled",
    "replied": "the customer wrote back",
    "answered": "the customer answered the question",
    "coupon_redeemed": "the customer used the code",
}
