"""Places for clients are shared out by account."""

from hypothesis import given
from hypothesis import strategies as st

from server.login.places import Crowded, Places
from server.login.roles import Login, Role


def login(account: str, role: Role = Role.READ) -> Login:
    return Login(account, role, 1, None, None)


def fill(places: Places, account: str) -> int:
    """How many places it gets."""
    taken = 0
    while True:
        try:
            places.take(login(account))
        except Crowded:
            return taken
        taken += 1


def test_whoever_comes_first_leaves_room_for_others() -> None:
    places = Places(lambda: 60)
    assert [fill(places, name) for name in "abcd"] == [27, 14, 7, 3]
    # The tenth that is kept, and what nobody of these could take any more.
    for _ in range(9):
        places.take(login("admin", Role.FULL))
    assert places.are_taken


def test_a_single_place_is_for_anybody() -> None:
    places = Places(lambda: 1)
    places.take(login("a"))
    assert places.are_taken
    places.give_back(login("a"))
    places.take(login("b", Role.FULL))
    assert places.are_taken


@given(
    st.integers(2, 50),
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(Role), st.booleans())),
)
def test_a_place_is_always_free_for_full_as_long_as_full_leaves_one(
    most: int, moves: list[tuple[str, Role, bool]]
) -> None:
    places, there = Places(lambda: most), list[Login]()
    for account, role, enters in moves * 5:
        one = login(account, role)
        if enters:
            try:
                places.take(one)
            except Crowded:
                continue
            there.append(one)
        elif one in there:
            there.remove(one)
            places.give_back(one)
        others = sum(one.role is not Role.FULL for one in there)
        assert len(there) <= most
        assert others <= most - max(1, most // 10)
        assert places.are_taken == (len(there) == most)
    for one in there:
        places.give_back(one)
    assert fill(places, "a") >= (most - max(1, most // 10)) // 2
