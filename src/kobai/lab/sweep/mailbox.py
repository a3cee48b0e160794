"""News from runs in other processes: how far they are."""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from kobai.core.untrusted import from_json
from kobai.lab.training.curves import Curves


@dataclass(frozen=True)
class Mailbox:
    """Where runs in other processes tell how far they are: datagrams to this machine itself, some of which may be lost."""

    port: int
    token: str

    def tell(self, key: Any, run: Curves) -> None:
        """Send where a run is; never waits, never fails."""
        news = {
            "token": self.token,
            "key": key,
            "epoch": run.epoch[-1],
            "loss": run.train_loss[-1],
            "held_accuracy": [round(a, 4) for a in run.held_accuracy],
        }
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.sendto(json.dumps(news).encode(), ("127.0.0.1", self.port))


def _opened(datagram: bytes, token: str) -> dict[str, Any] | None:
    """What :meth:`Mailbox.tell` sent; None for anything else, as any program of the machine can send to a port."""
    try:
        letter = from_json(datagram)
        if letter["token"] != token:
            return None
        c, r = letter["key"]
        opened = {"key": (int(c), int(r)), "epoch": float(letter["epoch"]), "loss": float(letter["loss"])}
        curve = [float(a) for a in letter["held_accuracy"]]
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    return {**opened, "held_accuracy": curve} if curve else None


@contextmanager
def mailbox(news: Callable[[dict[str, Any]], None] | None) -> Iterator[Mailbox | None]:
    """A mailbox whose letters ``news`` is given while the block runs; None where nobody listens, or nothing can be sent."""
    try:
        box = socket.socket(socket.AF_INET, socket.SOCK_DGRAM) if news is not None else None
        if box is not None:
            box.bind(("127.0.0.1", 0))
            box.settimeout(0.1)
    except OSError:
        box = None
    if box is None or news is None:
        yield None
        return
    token, over = secrets.token_hex(8), threading.Event()

    def listen() -> None:
        while not over.is_set():
            with suppress(OSError):
                letter = _opened(box.recv(1 << 16), token)
                if letter is not None:
                    news(letter)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield Mailbox(box.getsockname()[1], token)
    finally:
        over.set()
        thread.join()
        box.close()
