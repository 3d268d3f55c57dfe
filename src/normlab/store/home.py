"""Where things lie: NORMLAB_HOME, else the platform's folders for data and for caches."""

import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """The folder of the runs store and of checkpoints left by an interruption."""
    named = os.environ.get("NORMLAB_HOME")
    return Path(named).expanduser() if named else platformdirs.user_data_path("normlab", appauthor=False)


def cache() -> Path:
    """The folder of data sets, which can be fetched again."""
    named = os.environ.get("NORMLAB_HOME")
    return Path(named).expanduser() / "cache" if named else platformdirs.user_cache_path("normlab", appauthor=False)
