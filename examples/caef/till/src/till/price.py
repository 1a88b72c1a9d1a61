"""Prices in cents."""


def total(prices: list[int], discount: float = 0.0) -> int:
    """The sum of all prices. discount: a share of it, such as 0.1."""
    return sum(prices) - int(discount)
