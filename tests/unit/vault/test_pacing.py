"""A rate limit holds to the slice, is shared by all uploads, and follows a change at once."""

from __future__ import annotations

from common.vault.stores.pacing import SLICE, PacedBody, Pacer

MIB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def send(body: PacedBody) -> int:
    total = 0
    while part := body.read(1 << 18):
        total += len(part)
    return total


def test_two_uploads_share_one_rate() -> None:
    clock = Clock()
    pacer = Pacer(lambda: MIB, monotonic=lambda: clock.now, sleep=clock.sleep)
    begun = clock.now
    first, second = PacedBody(bytes(5 * MIB), pacer), PacedBody(bytes(5 * MIB), pacer)
    sent = 0
    while part := first.read(SLICE):
        sent += len(part) + len(second.read(SLICE))
    assert sent == 10 * MIB
    assert abs((clock.now - begun) - 10) < 0.2


def test_a_change_takes_effect_at_the_next_slice() -> None:
    clock = Clock()
    limit: list[int | None] = [MIB]
    pacer = Pacer(lambda: limit[0], monotonic=lambda: clock.now, sleep=clock.sleep)
    body = PacedBody(bytes(8 * MIB), pacer)
    begun = clock.now
    for _ in range(2 * MIB // SLICE):
        body.read(SLICE)
    assert abs((clock.now - begun) - 2) < 0.2
    limit[0] = None
    now = clock.now
    assert send(body) == 6 * MIB
    assert clock.now == now


def test_an_idle_time_earns_no_burst() -> None:
    clock = Clock()
    pacer = Pacer(lambda: MIB, monotonic=lambda: clock.now, sleep=clock.sleep)
    clock.now += 3600
    begun = clock.now
    assert send(PacedBody(bytes(4 * MIB), pacer)) == 4 * MIB
    assert clock.now - begun > 3.8
