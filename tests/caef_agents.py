"""The stages of stories for a host of its own: of the project that the environment names."""

from __future__ import annotations

import os
from pathlib import Path

from callboard_integrations.bmad import CommandRunner, by_name
from callboard_integrations.caef import StoryShop, agents_of

SHOP = StoryShop(Path(os.environ["CAEF_PROJECT"]), CommandRunner(os.environ["CAEF_AUTHOR"]))

globals().update(by_name(agents_of(SHOP)))
