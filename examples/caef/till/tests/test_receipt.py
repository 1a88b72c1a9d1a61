"""What receipts must look like."""

from till.receipt import line


def test_cents_are_shown_as_an_amount() -> None:
    assert line("tea", 250) == "tea 2.50"
