"""What the tests share: models, ids, child processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import carat

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests" / "data"
TINY = DATA / "tiny-gemma3.gguf"


@pytest.fixture(scope="session")
def tiny():
    """The tiny model, shared: models are immutable."""
    return carat.Model(TINY, threads=2)


@pytest.fixture
def session(tiny):
    """A session of 256 tokens on the tiny model."""
    with carat.Session(tiny, context=256, batch=16) as session:
        yield session


@pytest.fixture(scope="session")
def ids():
    """Ids of the tiny models' golden values."""
    return json.loads((DATA / "tiny-ids.json").read_text())


@pytest.fixture(scope="session")
def real():
    """The path of the real model."""
    path = os.environ.get("CARAT_TEST_MODEL")
    if not path:
        pytest.skip("CARAT_TEST_MODEL is not set")
    return path


def start(code: str, *args: object) -> subprocess.Popen:
    """A child process that runs Python code with arguments; give its output by pipes."""
    command = [sys.executable, "-u", "-c", textwrap.dedent(code), *map(str, args)]

    def heed_ctrl_c() -> None:
        # A shell starts what runs in the background with SIGINT ignored, and Python would leave it so.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c if os.name == "posix" else None,
    )


def child(code: str, *args: object, timeout: float = 60) -> str:
    """What a child process prints; it must end well, and print nothing to stderr."""
    process = start(code, *args)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"it hung: {out}{err}")
    assert (process.returncode, err) == (0, ""), out
    return out
