"""
Coupons: whose each code is, from the moment it is made to the moment it is used.

    codes       how codes are made, and read from a file
    making      `coupons make`, `activate`, `void`
    desk        who gets which code, in the transaction that starts the sending
    settling    what certainly never left goes back to the pool; doubt leaves it with the customer
    redeeming   what orders, events and people say was used, and the verdict on it
    supply      which offers run out
    listing     what there is
    forms       the CSV files that the shop's cart takes

The ledger is the tables `coupons` (whose a code is), `coupon_messages` (which message carries it),
`coupon_redemptions` (every use) and `offers` (how many are given out). Whoever changes a coupon holds the lock of
its offer.
"""

from __future__ import annotations

from outreach.coupons.codes import Refused, checked, key_of
from outreach.coupons.desk import Denied, Desk, Given, RunOut, Wanted, open_desk, sample, variables, would_give
from outreach.coupons.forms import FORMS, rows
from outreach.coupons.holding import State
from outreach.coupons.listing import STATUSES, Books, Coupon, Redeemed, books, check_offer, codes, listed, uses
from outreach.coupons.making import Taken, activate, activate_all, make, offer_of, take, void
from outreach.coupons.redeeming import Bought, Use, Verdict, from_orders, join, order_key, record, redeem, take_back
from outreach.coupons.settling import doubted, settle
from outreach.coupons.supply import Low, running_out

__all__ = [
    "FORMS",
    "STATUSES",
    "Books",
    "Bought",
    "Coupon",
    "Denied",
    "Desk",
    "Given",
    "Low",
    "Redeemed",
    "Refused",
    "RunOut",
    "State",
    "Taken",
    "Use",
    "Verdict",
    "Wanted",
    "activate",
    "activate_all",
    "books",
    "check_offer",
    "checked",
    "codes",
    "doubted",
    "from_orders",
    "join",
    "key_of",
    "listed",
    "make",
    "offer_of",
    "open_desk",
    "order_key",
    "record",
    "redeem",
    "rows",
    "running_out",
    "sample",
    "settle",
    "take",
    "take_back",
    "uses",
    "variables",
    "void",
    "would_give",
]
