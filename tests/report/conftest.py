"""A real browser, for pages from the disk."""

import os
import shutil
import subprocess

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
]


@pytest.fixture(scope="session")
def open_page(tmp_path_factory):
    """Opens a page and gives its DOM and what its console said; CI must have a browser."""
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        missing = f"needs one of {', '.join(NAMES)} on the path: apt install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)

    def dump(page, fragment="", width=1280):
        profile = tmp_path_factory.mktemp("profile")
        done = subprocess.run(
            [
                browser,
                *OPTIONS,
                f"--user-data-dir={profile}",
                f"--window-size={width},900",
                "--dump-dom",
                page.as_uri() + fragment,
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return dump
