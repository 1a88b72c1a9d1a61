"""What prices must be."""

from till.price import total


def test_a_discount_is_a_share_of_the_sum() -> None:
    assert total([100, 100], 0.1) == 180


def test_without_a_discount_it_is_the_sum() -> None:
    assert total([100, 150]) == 250
