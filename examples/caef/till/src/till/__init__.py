"""What a till has to know."""
