"""One layer of R1's true size, from disk: bounded memory, and only the chosen experts' bytes. Needs 12 GB of disk: `make test-all`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = """
import json, resource, sys, time
from backends.checkpoint import Checkpoint
from backends.reference.model import Model, Record
read = []
real = Checkpoint.read
Checkpoint.read = lambda self, name: (read.append(name), real(self, name))[1]
model, record = Model.open(sys.argv[1], sys.argv[2]), Record()
cache, seconds = model.new_cache(), []
read.clear()
for token in (5, 5, 5):
    began = time.perf_counter()
    model.forward([token], cache, record)
    seconds.append(time.perf_counter() - began)
experts = sorted({int(n.split(".")[5]) for n in read if ".experts." in n})
chosen = sorted({int(e) for e in record.routing[0].experts.ravel()})
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"seconds": min(seconds), "peak": peak, "experts": experts, "chosen": chosen}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["off", "weights", "full"])
def test_one_token_through_one_layer(mode, tmp_path_factory, request):
    folder = Path(os.environ.get("R1_LAYER") or tmp_path_factory.getbasetemp() / "r1-layer")
    if not folder.exists():
        if shutil.disk_usage(tmp_path_factory.getbasetemp()).free < 13e9:
            pytest.skip("needs 13 GB of disk")
        script = Path(__file__).resolve().parents[2] / "make_r1_layer.py"
        subprocess.run([sys.executable, str(script), str(folder)], check=True)
    done = subprocess.run([sys.executable, "-c", MEASURE, str(folder), mode], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    print(found)
    assert found["peak"] < 2 << 30
    assert found["experts"] == found["chosen"] and len(found["chosen"]) <= 24
