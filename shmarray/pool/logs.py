"""How do log records of workers reach the caller's loggers?

A worker's root logger has one handler, which sends each record as a packet; the caller hands it to its own logger of
that name, so that its handlers, filters and levels apply. What a record refers to stays behind: its arguments are
already in the text, its exception is text too.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logging import Logger

__all__ = ["MAX_PACKET_NBYTES", "apply_levels", "forward_to", "hand_on", "levels", "logger"]

#: A record is one datagram; a longer one loses the end of its texts.
MAX_PACKET_NBYTES = 128 * 1024
_CUT = 8192


def logger() -> Logger:
    """The logger that tells what the pool does. `logging` is loaded here, not when the package is imported."""
    import logging

    return logging.getLogger("shmarray.pool")


def levels() -> dict[str, int]:
    """The levels that this program has set, by name of the logger; the root's is ''."""
    import logging

    root = logging.getLogger()
    # dict() of a dict is one step: other threads may make loggers meanwhile.
    known = dict(root.manager.loggerDict)
    found = {name: one.level for name, one in known.items() if isinstance(one, logging.Logger) and one.level}
    return {**found, "": root.level}


def apply_levels(told: Mapping[str, int]) -> None:
    """Set levels as the caller has them, so that what it would drop is not sent."""
    import logging

    for name, level in told.items():
        logging.getLogger(name).setLevel(level)


def forward_to(packets: socket.socket, note: Callable[[], None]) -> None:
    """In a worker: send every record; `note` is called after each."""
    import logging

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with contextlib.suppress(Exception):  # the caller is gone, and this process will be soon
                packets.send(_packet(record))
                note()

    logging.getLogger().addHandler(Forward())


def _packet(record: Any) -> bytes:
    import logging

    try:
        message = record.getMessage()
    except Exception as error:  # the arguments do not fit: logging would print this to standard error
        message = f"{record.msg!r} with arguments {record.args!r}: {error!r}"
    facts = {**record.__dict__, "msg": message, "args": None}
    if record.exc_info:
        facts["exc_text"] = logging.Formatter().formatException(record.exc_info)
        facts["exc_info"] = None
    try:
        packet = pickle.dumps(facts)
        pickle.loads(packet)
    except Exception:  # something in `extra=`
        packet = pickle.dumps({name: _plain(value) for name, value in facts.items()})
    if len(packet) > MAX_PACKET_NBYTES:
        packet = pickle.dumps({name: _cut(_plain(value)) for name, value in facts.items()})
    return packet


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _cut(value: Any) -> Any:
    return value if not isinstance(value, str) or len(value) <= _CUT else value[:_CUT] + "... (cut)"


def hand_on(packet: bytes) -> None:
    """In the caller: give a record to the logger it was meant for."""
    import logging

    with contextlib.suppress(Exception):  # a record that cannot be rebuilt here is not worth a failed call
        record = logging.makeLogRecord(pickle.loads(packet))
        target = logging.getLogger(record.name)
        if target.isEnabledFor(record.levelno):
            target.handle(record)
