"""How mistakes are put into words."""

from wscnn.core.errors import listed, merged


def test_a_list_is_as_long_as_one_reads() -> None:
    assert listed([]) == "none"
    assert listed(range(3)) == "0, 1, 2"
    assert listed(range(12)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    assert listed("abc", 2) == "a, b and 1 more"


def test_one_kind_of_mistake_is_one_sentence() -> None:
    found = [("empty", "A01 is empty", "A01"), ("odd", "B01 is odd", "B01"), ("empty", "A02 is empty", "A02")]
    assert merged(found) == ["A01 is empty; the same holds for A02", "B01 is odd"]
