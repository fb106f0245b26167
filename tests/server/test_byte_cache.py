"""A cache that is bounded in bytes."""

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from server.delivery.byte_cache import ByteCache

MOST = 100
STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 130) | st.none()), max_size=60)


@given(STEPS)
def test_it_has_what_was_used_last_and_no_more_than_its_bytes(
    steps: list[tuple[int, int | None]],
) -> None:
    cache: ByteCache[int, str] = ByteCache(MOST)
    model: OrderedDict[int, int] = OrderedDict()
    for key, size in steps:
        if size is None:
            assert cache.get(key) == (f"{key} {model[key]}" if key in model else None)
            if key in model:
                model.move_to_end(key)
        else:
            cache.put(key, f"{key} {size}", size)
            model.pop(key, None)
            model[key] = size
            while sum(model.values()) > MOST:
                model.popitem(last=False)
    for key in range(10):
        assert cache.get(key) == (f"{key} {model[key]}" if key in model else None)
