"""What is printed."""


def line(name: str, cents: int) -> str:
    """One line of a receipt."""
    return f"{name} {cents}"
