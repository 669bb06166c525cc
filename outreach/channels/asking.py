"""
Asking a provider about doubtful messages: each address once, several at a time, and none in vain.

What to ask and how to read it is in each provider's `lookup`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from outreach.channels import Doubtful, Kept, Record
from outreach.errors import ChannelError

ENOUGH = 3  # failures in a row: the provider is out of order, and the others are asked about another time


@dataclass(frozen=True)
class Heard:
    """What asking about one address brought."""

    records: tuple[Record, ...] = ()
    complete: bool = False
    detail: str = ""  # why it is not; never an address or a body
    failed: bool = False  # the provider did not do its part: it was away, or broken
    closed: bool = False  # it would answer nothing else either for now, for the reason in `detail`
    wrong: str = ""  # the configuration is; nothing more is asked


Ask = Callable[[Sequence[Doubtful]], Heard]  # about messages of one address, in any thread


def look_up(doubtful: Sequence[Doubtful], ask: Ask, parallel: int) -> Iterator[Kept]:
    """
    An answer for each message, as they come; at most `parallel` addresses are asked about at a time.

    Nothing is asked twice, and nobody waits: what the provider does not answer now is incomplete.

    Raises:
        ChannelError: the configuration is wrong. What was under way has its answers by then.
    """
    waiting = deque(_by_address(doubtful))
    under_way: dict[Future[Heard], list[Doubtful]] = {}
    failures, closed, wrong = 0, "", ""
    with ThreadPoolExecutor(parallel, "look-up") as pool:
        while True:
            while waiting and len(under_way) < parallel and not (wrong or closed):
                group = waiting.popleft()
                under_way[pool.submit(_safely, ask, group)] = group
            if not under_way:
                break
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                group, heard = under_way.pop(future), future.result()
                failures = failures + 1 if heard.failed else 0
                if heard.closed or failures >= ENOUGH:
                    closed = closed or heard.detail
                wrong = wrong or heard.wrong
                if not heard.wrong:
                    yield from _kept(group, heard)
    if wrong:
        raise ChannelError(wrong)
    for group in waiting:
        yield from _kept(group, Heard(detail=f"not asked, since of others it was said: {closed}"))


def _by_address(doubtful: Sequence[Doubtful]) -> list[list[Doubtful]]:
    groups: dict[str, list[Doubtful]] = {}
    for one in doubtful:
        groups.setdefault(one.address, []).append(one)
    return list(groups.values())


def _safely(ask: Ask, group: Sequence[Doubtful]) -> Heard:
    try:
        return ask(group)
    except Exception as error:  # an answer that nobody foresaw says nothing, and must not take the others along
        return Heard(detail=f"an answer that cannot be read ({type(error).__name__})", failed=True)


def _kept(group: Sequence[Doubtful], heard: Heard) -> Iterator[Kept]:
    for one in group:
        yield Kept(one.public_id, heard.records, heard.complete, heard.detail)
