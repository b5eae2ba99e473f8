"""A rebalance callback of the ingest worker is followed by others within the same call of the client."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_ingest import ROOT, Raw, completed, now_us, pipeline, plain, stop

from infra.devstack import Stack

pytestmark = pytest.mark.timeout(120)
TALKATIVE = """
from agents.ingest import IngestWorker
from connectors.settings import Settings

kafka = Settings.kafka
Settings.kafka = lambda self: {**kafka(self), "debug": "cgrp"}  # each line that the client logs is a callback
IngestWorker(Settings()).run()
"""


def test_callbacks_that_follow_an_assignment_find_the_client_alive(stack: Stack, tmp_path: Path) -> None:
    with pipeline(stack, tmp_path) as pipe:
        pipe.send([Raw(completed("e", now_us()))])
        given = {f"FLOWCHAIN_{name.upper()}": plain(getattr(pipe.settings, name)) for name in pipe.settings.model_fields_set}
        with pipe.log(0).open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-c", TALKATIVE], cwd=tmp_path, stdout=log, stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT), **given},
            )  # fmt: skip
        pipe.workers.append(worker)
        pipe.settles_at(1)
        assert stop(worker) == 0
