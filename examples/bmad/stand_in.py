"""Stands in for a model, so that the example runs anywhere: the prompt comes on standard input.

    callboard up
    callboard bmad plan examples/bmad/teashop
    callboard bmad run examples/bmad/teashop --command "python $PWD/examples/bmad/stand_in.py" \
        --others yes --at-once 2

Replace it by --endpoint and --model, or by a command line of your own.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

STORIES = ["1.1: The list of teas", "1.2: Opening hours", "2.1: A basket", "2.2: The bill"]


def main() -> None:
    persona = Path(os.environ["CALLBOARD_SYSTEM_PROMPT"]).read_text(encoding="utf-8")
    prompt = sys.stdin.read()
    title = re.search(r"^ {2}title: (.*)$", persona, re.MULTILINE)
    step = prompt.partition("\n")[0].removeprefix("Step: ")
    about = re.search(r'"title":"([^"]*)"', prompt)
    if step == "cut_into_stories":
        print("\n".join(f"### Story {story}\n" for story in STORIES))
    elif step == "build_story" and about:
        name = re.sub(r"\W+", "-", about[1].lower())
        print(f"The page is built.\n=== site/{name}.html ===\n<h1>{about[1]}</h1>")
    else:
        print(f"{title[1] if title else 'Somebody'}: {step}{f', {about[1]}' if about else ''}")


if __name__ == "__main__":
    main()
