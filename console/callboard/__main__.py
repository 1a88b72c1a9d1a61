"""`python -m callboard`: the `callboard` command, as `up` starts its parts."""

from __future__ import annotations

from callboard.cli import main

if __name__ == "__main__":
    main()
