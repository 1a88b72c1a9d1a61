"""Two stories of a small till, worked on until their tests pass.

    cp -r examples/caef/till /tmp/till && cd /tmp/till
    git init -q && git add -A && git commit -qm "A till"
    callboard caef plan docs/stories
    callboard caef run docs/stories/1.1.story.md
    callboard up &
    callboard caef run docs/stories --apply --no-lint-gate \
        --command "python .../examples/caef/author.py"

The edits of story 1.1 lie beside it. For story 1.2 this program is asked, which stands in for a
model: its first answer is wrong, and by the test that fails it knows better. Each story ends on a
branch of its own, `git branch --list 'callboard/*'`; the checkout stays as it is.
"""

from __future__ import annotations

import json
import sys

FIRST = 'f"{name} {cents / 100}"'
SECOND = 'f"{name} {cents / 100:.2f}"'


def main() -> None:
    prompt = sys.stdin.read()
    now = next(found for found in (FIRST, 'f"{name} {cents}"') if found in prompt)
    edit = {
        "file": "src/till/receipt.py",
        "original_snippet": f"    return {now}\n",
        "replacement_snippet": f"    return {SECOND if 'passes: ' in prompt else FIRST}\n",
    }
    print(f"Here you are:\n```json\n{json.dumps([edit], indent=2)}\n```")


if __name__ == "__main__":
    main()
