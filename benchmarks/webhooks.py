"""
How many of SendGrid's events a second are on disk, posted in signed arrays of 100, on SQLite.

    python benchmarks/webhooks.py [ARRAYS] [MESSAGES]

The goal is 1,000 a second on two cores while messages are sent. Prints events a second, and the share
of what the same server takes in when it reads the body and stores nothing:
- alone;
- while another process hands over MESSAGES by the outbox, and how many of them it does meanwhile.

The web app is a process of its own; two connections post at once.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from dispatch import NOW, planned, the_settings
from sqlalchemy import text

from outreach import dispatcher, store
from outreach.channels import Channels
from outreach.settings import Settings
from outreach.testing.sendgrid import FakeSendGrid

SIZE, CONNECTIONS = 100, 2
Request = tuple[bytes, dict[str, str]]


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and stores nothing."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


def serve(settings: Settings, port: Any, ended: Event, *, stores: bool) -> None:
    """A server until it is told to end; its port goes into `port`."""
    import uvicorn

    from outreach.web import create_app
    from outreach.web.serving import listen, serving

    db = store.open_database(settings.database, secret="benchmark")
    listening = listen("127.0.0.1", 0)
    port.value = listening.getsockname()[1]
    if stores:
        with serving(create_app(settings, db), listening):
            ended.wait()
        return
    server = uvicorn.Server(uvicorn.Config(bare, log_config=None, access_log=False, lifespan="off"))
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    ended.wait()


def keep_sending(settings: Settings, started: Event, ended: Event) -> None:
    """Hand over what is due, a hundred at a time, until nothing is or it is told to end."""
    db, opened = store.open_database(settings.database, secret="benchmark"), Channels()
    while not ended.is_set():
        counts = dispatcher.dispatch(db, settings, NOW, limit=100, channels=opened)
        started.set()
        if not counts.claimed:
            return


def arrays(fake: FakeSendGrid, count: int, name: str) -> list[Request]:
    """Signed requests, made beforehand."""
    made = []
    for number in range(count):
        events = [
            {
                "email": f"c{n}@example.com",
                "event": "delivered",
                "timestamp": int(time.time()),
                "sg_event_id": f"{name}-{number}-{n}",
                "sg_message_id": f"{name}{number}{n}.recvd-0",
                "response": "250 OK",
                "outreach": f"{number * SIZE + n + 1:032x}",
            }
            for n in range(SIZE)
        ]
        body = json.dumps(events).encode()
        made.append((body, fake.signed(body)))
    return made


def post(port: int, requests: Sequence[Request]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for body, headers in requests:
        connection.request("POST", "/webhooks/sendgrid/events", body, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 204, answer.status
    connection.close()


def measure(settings: Settings, requests: Sequence[Request], *, stores: bool = True) -> float:
    """Events a second."""
    context = multiprocessing.get_context("spawn")
    port, ended = context.Value("i", 0), context.Event()
    process = context.Process(target=serve, args=(settings, port, ended), kwargs={"stores": stores})
    process.start()
    while not port.value:
        time.sleep(0.01)
    with suppress(AssertionError):  # a body that is none; but now everything is imported
        post(port.value, [(b"[", requests[0][1])])
    posting = [threading.Thread(target=post, args=(port.value, requests[n::CONNECTIONS])) for n in range(CONNECTIONS)]
    start = time.perf_counter()
    for thread in posting:
        thread.start()
    for thread in posting:
        thread.join()
    seconds = time.perf_counter() - start
    ended.set()
    process.join()
    return len(requests) * SIZE / seconds


def sent(db: store.Database) -> int:
    with store.read(db) as connection:
        return int(connection.execute(text("SELECT count(*) FROM messages WHERE status = 'sent'")).scalar_one())


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    messages = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    with tempfile.TemporaryDirectory() as folder, FakeSendGrid() as fake:
        sending = the_settings(Path(folder), provider="outbox")
        db = planned(Path(folder), sending, messages)
        sending = replace(sending, database=f"sqlite:///{Path(folder) / f'{messages}.db'}")
        taking = replace(
            the_settings(Path(folder), provider="sendgrid"), database=sending.database, secrets=fake.environment
        )
        nothing = measure(taking, arrays(fake, 4 * count, "bare"), stores=False)
        print(f"stored nothing: {nothing:,.0f} events a second")
        alone = measure(taking, arrays(fake, count, "alone"))
        print(f"alone: {alone:,.0f} events a second, {alone / nothing:.1%} of that")
        context = multiprocessing.get_context("spawn")
        started, ended = context.Event(), context.Event()
        sender = context.Process(target=keep_sending, args=(sending, started, ended))
        sender.start()
        started.wait()
        before, begun = sent(db), time.perf_counter()
        beside = measure(taking, arrays(fake, count, "beside"))
        done, seconds = sent(db) - before, time.perf_counter() - begun
        ended.set()
        sender.join()
        print(f"while sending: {beside:,.0f} events a second, {beside / nothing:.1%} of that")
        print(f"    meanwhile {done / seconds:,.0f} messages a second left")
        with store.read(db) as connection:
            kept = connection.execute(text("SELECT count(*) FROM inbox")).scalar_one()
        assert kept == 2 * count * SIZE, f"{kept} events on disk"
        db.engine.dispose()


if __name__ == "__main__":
    main()
