"""
The forms in which a shop's cart takes codes in.

None of the three carts reads a file of codes by itself in all its plans, so each form is that of the tool or the
interface that its shops use:

- `shopify`: columns of the "Discounts" sheet of Matrixify, the import tool of Shopify's app store
  (matrixify.app/documentation/discounts). "You can have several discount codes for one Discount. To create several
  discount codes, duplicate the row with the same ID or Title": so the discount itself (value, minimum, limits) is
  made once in Shopify's admin, with the offer's name as its title, and the file adds codes to it (`MERGE`).
- `woocommerce`: columns of WooCommerce's coupon fields as its import plugins take them
  (webtoffee.com/bulk-import-coupons-using-csv-file-coupon-data: post_title is the code; discount_type is `percent`
  or `fixed_cart`; individual_use and free_shipping are `yes` or `no`).
- `tiendanube`: the fields of the coupon resource (tiendanube.github.io/api-documentation/resources/coupon: type is
  `percentage`, `absolute` or `shipping`; max_uses, min_price), which its import apps and scripts post one by one.
- `plain`: the codes alone, under the heading `code`.

No expiry stands in them: it is counted from each customer's own message. Codes begin with a letter or a digit, so
that no spreadsheet takes one for a formula.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from outreach.errors import OutreachError
from outreach.settings import Offer


@dataclass(frozen=True)
class Form:
    """A file's heading, and the row of one code."""

    columns: tuple[str, ...]
    row: Callable[[Offer, str], tuple[str, ...]]
    kinds: frozenset[str] = frozenset({"percent", "amount", "free_shipping", "gift"})  # that the cart has


def rows(offer: Offer, form: str, codes: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """
    The heading and a row for each code.

    Raises:
        OutreachError: the cart has no discount of the offer's kind.
    """
    of = FORMS[form]
    if offer.kind not in of.kinds:
        raise OutreachError(
            f"the offer {offer.name} is a {offer.kind}, which {form} has no coupon for: export it as plain"
        )
    yield of.columns
    for code in codes:
        yield of.row(offer, code)


def _shopify(offer: Offer, code: str) -> tuple[str, ...]:
    return offer.name, "MERGE", code


def _woocommerce(offer: Offer, code: str) -> tuple[str, ...]:
    free = offer.kind == "free_shipping"
    kind = "percent" if offer.kind == "percent" else "fixed_cart"
    uses = str(offer.most_uses or "")
    return (
        code,
        offer.name,
        "publish",
        kind,
        "0" if free else offer.value,
        "yes",
        "yes" if free else "no",
        offer.minimum or "",
        uses,
    )


def _tiendanube(offer: Offer, code: str) -> tuple[str, ...]:
    kind = {"percent": "percentage", "amount": "absolute", "free_shipping": "shipping"}[offer.kind]
    return code, kind, "" if kind == "shipping" else offer.value, offer.minimum or "", str(offer.most_uses or "")


_MONEY = frozenset({"percent", "amount", "free_shipping"})
FORMS = {
    "plain": Form(("code",), lambda _, code: (code,)),
    "shopify": Form(("Title", "Command", "Code"), _shopify),
    "woocommerce": Form(
        (
            "post_title",
            "post_excerpt",
            "post_status",
            "discount_type",
            "coupon_amount",
            "individual_use",
            "free_shipping",
            "minimum_amount",
            "usage_limit",
        ),
        _woocommerce,
        _MONEY,
    ),
    "tiendanube": Form(("code", "type", "value", "min_price", "max_uses"), _tiendanube, _MONEY),
}
