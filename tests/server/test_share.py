"""What the connections of one account hold together, and who waits for it."""

import asyncio

from server.wire.share import Part, Share


def test_who_waits_is_called_in_turn_as_long_as_there_is_room() -> None:
    async def run() -> None:
        share, called = Share(10), list[str]()

        def take(name: str) -> None:
            called.append(name)
            share.add(6)

        waits = {name: lambda name=name: take(name) for name in "abcd"}
        share.add(12)
        for wait in waits.values():
            share.wait(wait)
        share.forget(waits["b"])
        await asyncio.sleep(0)
        assert called == []
        share.add(-12)
        for _ in range(10):
            await asyncio.sleep(0)
        # Two of them fill it.
        assert called == ["a", "c"]
        share.add(-6)
        for _ in range(10):
            await asyncio.sleep(0)
        assert called == ["a", "c", "d"]

    asyncio.run(run())


def test_one_that_fails_keeps_nobody_waiting() -> None:
    async def run() -> None:
        share, called, failed = Share(1), list[str](), list[object]()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failed.append(context["exception"]))
        share.add(1)
        share.wait(lambda: 1 // 0)
        share.wait(lambda: called.append("b"))
        share.add(-1)
        for _ in range(10):
            await asyncio.sleep(0)
        assert called == ["b"]
        assert len(failed) == 1

    asyncio.run(run())


def test_without_a_limit_it_is_never_full() -> None:
    share = Share(None)
    share.add(10**12)
    assert not share.is_full


def test_a_part_counts_where_it_is() -> None:
    first, second = Share(10), Share(10)
    part = Part()
    part.move_to(first)
    part.weigh(7)
    part.weigh(9)
    assert (first.held, first.is_full) == (9, False)
    part.move_to(second)
    assert first.held == 0
    part.weigh(12)
    assert second.is_full
    part.weigh(0)
    assert second.held == 0
