"""
How fast messages leave, end to end: claim, gates, render, send, record, on SQLite, in one process.

    python benchmarks/dispatch.py [MESSAGES] [PLANNED]

Prints, in the same run:
- the disk's fsync latency;
- over SMTP to a local sink: messages a second, and as a share of a bare loop that only renders the
  same template and sends it by the same channel;
- through a local stand-in for SendGrid, 100 messages a request;
- the most memory that a dispatch of MESSAGES out of PLANNED messages takes.

Sinks run as processes of their own, on another core where there is one.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from outreach import collect_less_often, dispatcher, releases, store
from outreach.channels import Channels, Outcome, Outgoing, open_channel
from outreach.models import to_micros
from outreach.settings import Business, ChannelSettings, Settings
from outreach.store import Database

NOW = datetime(2026, 6, 15, 18, 0, tzinfo=UTC)
ROOT = Path(__file__).parents[1]
TURNS = 10
TEMPLATE = """---
subject: "{{ customer.first_name }}, gracias por tu compra en {{ business.name }} 🎁"
preheader: Si algo no va bien, respóndenos y lo resolvemos.
---
{% extends "layout.email.es.j2" %}
{% block content %}
<p style="margin:0 0 16px 0;">¡{{ customer | greeting }}!</p>
<p style="margin:0 0 16px 0;">Gracias por comprar en {{ business.name }}. Llevas {{ customer.orders_count }} pedidos
con nosotros, y esperamos que los estés disfrutando. ¿Algo no llegó como esperabas? Responde a este correo: lo lee
una persona y lo resuelve contigo.</p>
<p style="margin:0;">Un saludo,<br>el equipo de {{ business.name }}</p>
{% endblock %}
"""
CAMPAIGN = """title: Benchmark
trigger: {event: customer.created}
steps: [{id: one, after: 0 days, channel: email, template: m}]
"""
ROWS = (
    "INSERT INTO contacts (id, kind, address, address_hash) SELECT i, 'email', 'c' || i || '@example.com', printf('%032x', i) FROM n",
    (
        "INSERT INTO customers (id, external_id, email_id, first_name, locale, country, zones, tags, attributes, row_hash)"
        " SELECT i, 'c' || i, i, 'María José', 'es-MX', 'MX', 'America/Mexico_City', '[]', '{}', x'' FROM n"
    ),
    "INSERT INTO customer_stats (customer_id, orders_count, total_spent) SELECT i, 3, 1000 FROM n",
    (
        'INSERT INTO consents (contact_id, channel, status, at, "by", basis, source, words, recorded_at)'
        " SELECT i, 'email', 'granted', 1, 'shop', 'consent', '', '', 1 FROM n"
    ),
    (
        "INSERT INTO messages (id, public_id, campaign, step, customer_id, occasion, occasion_at, record_id, enrolment_id,"
        " arm, purpose, priority, status, detail, due_at, expires_at, ready_at, channel, refused, attempts, release, created_at)"
        " SELECT i, printf('%032x', i), 'bench', 'one', i, 'customer.created:' || i, :now, i, i, 'contact', 'marketing', 0,"
        " 'planned', '', :now, :later, :now + i, 'email', '', 0, 1, :now FROM n"
    ),
)


def the_settings(folder: Path, **channel: Any) -> Settings:
    business = Business("Tienda Luna", "America/Mexico_City", "MXN", "es-MX", "MX", "Av. Reforma 1, Ciudad de México")
    made = ChannelSettings(channel.pop("provider"), "Tienda Luna <hola@tiendaluna.example>", channel)
    return Settings(
        workspace=folder,
        business=business,
        channels={"email": made},
        secrets={"SENDGRID_API_KEY": "SG.benchmark"},
        public_url="https://luna.example",
        clock={},
    )


def planned(folder: Path, settings: Settings, count: int) -> Database:
    """A database with so many planned messages, one for each customer, written without import and plan."""
    db = store.open_database(f"sqlite:///{folder / f'{count}.db'}", secret="benchmark")
    files = {"campaigns/bench.yaml": CAMPAIGN, "message_templates/m.email.es.j2": TEMPLATE, releases.CATALOGUE: "{}"}
    for name in ("layout.email.j2", "layout.email.es.j2"):
        files[f"message_templates/{name}"] = (ROOT / "message_templates" / name).read_text()
    releases.publish(db, settings, files, NOW - timedelta(days=1))
    values = {"count": count, "now": to_micros(NOW - timedelta(hours=1)), "later": to_micros(NOW + timedelta(days=3))}
    each = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "
    with db.engine.connect() as connection:
        raw: Any = connection.connection.dbapi_connection
        raw.execute("BEGIN IMMEDIATE")
        for text in ROWS:
            into, select = text.split(" SELECT ", 1)
            raw.execute(f"{into} {each}SELECT {select}", values)
        raw.execute("COMMIT")
    return db


# --- sinks ------------------------------------------------------------------------------------------


class SmtpSink(asyncio.Protocol):
    """Takes everything, keeps nothing, and is no faster than a reply for each command."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.rest, self.data = transport, b"", False
        transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self.rest += data
        answers = []
        while True:
            if self.data:
                end = self.rest.find(b"\r\n.\r\n")
                if end < 0:
                    break
                self.rest, self.data = self.rest[end + 5 :], False
                answers.append(b"250 2.0.0 taken\r\n")
                continue
            line, found, rest = self.rest.partition(b"\r\n")
            if not found:
                break
            self.rest = rest
            verb = line[:4].upper()
            self.data = verb == b"DATA"
            answers.append(ANSWERS.get(verb, b"250 2.0.0 fine\r\n"))
        if answers:
            self.transport.write(b"".join(answers))


ANSWERS = {
    b"EHLO": b"250-sink\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
    b"DATA": b"354 go on\r\n",
    b"QUIT": b"221 2.0.0 bye\r\n",
}


def serve_smtp(ports: Any) -> None:
    pin(1)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(SmtpSink, "127.0.0.1", 0)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def serve_sendgrid(ports: Any) -> None:
    from outreach.testing.sendgrid import FakeSendGrid

    pin(1)
    with FakeSendGrid(api_key="SG.benchmark") as fake:
        ports.put(fake.port)
        while True:
            time.sleep(3600)


@contextmanager
def running(serve: Callable[[Any], None]) -> Iterator[int]:
    """A sink in a process of its own; gives its port."""
    ports: Any = multiprocessing.Queue()
    process = multiprocessing.Process(target=serve, args=(ports,), daemon=True)
    process.start()
    try:
        yield ports.get(timeout=20)
    finally:
        process.terminate()
        process.join()


def pin(core: int) -> None:
    """Stay on one core, where there are several and the system can be told."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


# --- measuring --------------------------------------------------------------------------------------


def fsync_time(folder: Path) -> float:
    """Seconds of an fsync after a small write, median."""
    file = os.open(folder / "fsync", os.O_RDWR | os.O_CREAT)
    times = []
    for _ in range(50):
        os.write(file, b"x" * 4096)
        begun = time.perf_counter()
        os.fsync(file)
        times.append(time.perf_counter() - begun)
    os.close(file)
    return statistics.median(times)


Loop = Callable[[int], tuple[float, float]]  # so many messages → seconds, and processor seconds


@contextmanager
def end_to_end(db: Database, settings: Settings) -> Iterator[Loop]:
    """Dispatching out of the database."""
    channels = Channels()

    def dispatch(count: int) -> None:
        counts = dispatcher.dispatch(db, settings, NOW, limit=count, channels=channels)
        assert counts.sent == count, counts

    dispatch(dispatcher.CHUNK)  # opens what stays open
    yield timed(dispatch)
    channels.close()


@contextmanager
def bare_loop(db: Database, settings: Settings) -> Iterator[Loop]:
    """Rendering and sending as many, chunk by chunk, without a database."""
    loaded = releases.current(db, settings)
    assert loaded is not None
    channel = open_channel("email", settings)
    customer = {"first_name": "María José", "locale": "es-MX", "country": "MX", "orders_count": 3}
    context = {"customer": customer, "business": settings.business}
    link = dispatcher.link_maker(db, settings, "0" * 32)

    def outgoing(number: int) -> Outgoing:
        content = loaded.templates.render("m", "email", "es-MX", context, link=link)
        sender = settings.channels["email"].sender
        address = f"c{number}@example.com"
        return Outgoing(
            f"{number:032x}", "email", address, sender, content, "marketing", "https://luna.example/l/x", NOW
        )

    def chunk(start: int) -> None:
        receipts = list(channel.send(outgoing(number) for number in range(start, start + dispatcher.CHUNK)))
        assert {receipt.outcome for receipt in receipts} == {Outcome.ACCEPTED}

    def send(count: int) -> None:
        for start in range(0, count, dispatcher.CHUNK):
            chunk(start)

    send(dispatcher.CHUNK)
    yield timed(send)
    channel.close()


def timed(run: Callable[[int], None]) -> Loop:
    def loop(count: int) -> tuple[float, float]:
        begun, used = time.perf_counter(), time.process_time()
        run(count)
        return time.perf_counter() - begun, time.process_time() - used

    return loop


def measure(name: str, folder: Path, settings: Settings, count: int) -> None:
    """Both loops in turns, so that a machine that slows down for a while slows both."""
    folder.mkdir()
    db = planned(folder, settings, count + dispatcher.CHUNK)
    each = count // TURNS
    count, seconds, processor, bare = each * TURNS, 0.0, 0.0, 0.0
    with end_to_end(db, settings) as whole, bare_loop(db, settings) as plain:
        for _ in range(TURNS):
            took, used = whole(each)
            seconds, processor = seconds + took, processor + used
            bare += plain(each)[0]
    db.engine.dispose()
    print(
        f"{name:>22}: {count / seconds:8,.0f} messages/s, {processor / count * 1e6:5.0f} µs of processor each;"
        f" bare loop {count / bare:8,.0f}/s; share {bare / seconds:.2f}"
    )


def memory(count: int, backlog: int) -> None:
    """Run in a process of its own: the most memory that a dispatch out of a long queue takes."""
    with tempfile.TemporaryDirectory() as name, running(serve_smtp) as port:
        settings = the_settings(Path(name), provider="smtp", host="127.0.0.1", port=port, security="none")
        filling = multiprocessing.Process(target=planned, args=(Path(name), settings, backlog))
        filling.start()  # what it takes to fill the database is not what is measured
        filling.join()
        db = store.open_database(f"sqlite:///{Path(name) / f'{backlog}.db'}", secret="benchmark")
        with end_to_end(db, settings) as whole:
            seconds, _ = whole(count)
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{f'{count:,} of {backlog:,}':>22}: {count / seconds:8,.0f} messages/s, {used:,.0f} MB at most")


def main() -> None:
    sizes = [int(argument) for argument in sys.argv[1:] if argument.isdigit()]
    count, backlog = (*sizes, 20_000, 1_000_000)[:2] if len(sizes) != 1 else (sizes[0], 1_000_000)
    collect_less_often()
    pin(0)
    if "--memory" in sys.argv:
        memory(count, backlog)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{'fsync':>22}: {fsync_time(folder) * 1000:8.2f} ms")
        with running(serve_smtp) as port:
            smtp = the_settings(folder, provider="smtp", host="127.0.0.1", port=port, security="none")
            measure("SMTP", folder / "smtp", smtp, count)
        with running(serve_sendgrid) as port:
            base = f"http://127.0.0.1:{port}"
            sendgrid = the_settings(folder, provider="sendgrid", base_url=base, batch=100)
            measure("SendGrid, batch: 100", folder / "sendgrid", sendgrid, count)
    subprocess.run([sys.executable, __file__, str(count), str(backlog), "--memory"], check=True)


if __name__ == "__main__":
    main()
