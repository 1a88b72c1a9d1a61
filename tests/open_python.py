"""An environment that every user may run, with pytest and ruff: that of the tests may be closed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sysconfig
from pathlib import Path

from tests.open_folders import PYTHON

__all__ = ["make_environment"]

_PACKAGES = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments")


def make_environment(folder: Path) -> Path:
    """Make it in `folder`, as `python -m venv` does; its interpreter."""
    environment = folder / "venv"
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", str(environment)], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations
        shutil.copytree(spec.submodule_search_locations[0], site / name)
    shim = importlib.util.find_spec("py")  # pytest's own, for old plugins
    assert shim is not None
    assert shim.origin is not None
    shutil.copy(shim.origin, site)
    ruff = shutil.copy(Path(sysconfig.get_path("scripts")) / "ruff", environment / "bin")
    Path(ruff).chmod(0o755)
    return environment / "bin" / "python"
