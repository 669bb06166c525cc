"""
`outreach demo`: the whole story on sample data, in a fresh folder.

`shop` invents the shop and writes its files; `replay` lets the real stages live through its last months under a
moving `now`; `story` tells what happened.
"""

from outreach.demo.shop import Shop, write_shop
from outreach.demo.story import run

__all__ = ["Shop", "run", "write_shop"]
