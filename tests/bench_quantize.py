"""`localr1 quantize` beside llama.cpp's and mlx_lm's own tools: the same checkpoint, whole processes, taking turns.

    python tests/bench_quantize.py CHECKPOINT [--converter convert_hf_to_gguf.py --quantizer llama-quantize] [--peer-python PYTHON]
        [--only Q4_K_M|Q8_0|mlx-4bit] [--repeat N] [--folder FOLDER] [--json]

The wanted figures are meant for the shape of DeepSeek-R1-Distill-Qwen-1.5B. A peer that is not there is left out: llama.cpp's tools
are given (--peer-python: one that has what its converter requires), mlx-lm is that of this Python. For Linux, and other POSIX systems
roughly. --folder (default: where temporary files go) needs room for the result and an unquantized file.

What is measured, of a command and all processes it starts; of two commands, the sum (of memory: the larger):
  seconds    from start to exit, with the start of the interpreter; `cpu` is what the processors spent on it
  memory     the largest resident set, which counts the checkpoint's mapped pages too: this is held against the wanted figures.
             `anonymous` is without them. Sampled every 50 ms; one process's own high-water mark where that is higher
  written    what the kernel counted on its way to the disk (write_bytes of /proc/PID/io: temporary files too), or the size of the
             files that are left, intermediates too, if that is more: on another system, in a file system in memory
The checkpoint is read once before; what waits for the disk is written between the runs, not in them. Other work on the machine
changes the seconds more than their ratio; the load is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter

import psutil

SAMPLE_S, FAMILY_EVERY = 0.05, 10
SLACK_BYTES = 1 << 20  # written beside a result: whole pages, messages
HEAD = ("work", "measure", "ours", "peer", "ratio", "wanted", "holds")
Command = Sequence[str | Path]


@dataclass(frozen=True, slots=True)
class Cost:
    seconds: float
    cpu: float
    memory: float  # bytes, as the rest
    anonymous: float
    written: float
    result: float  # the file or folder that was asked for

    def __str__(self) -> str:
        sizes = [f"{name} {getattr(self, name) / 1e9:.2f} GB" for name in ("memory", "anonymous", "written", "result")]
        return f"{self.seconds:.1f} s (cpu {self.cpu:.1f} s), {', '.join(sizes)}"


@dataclass(frozen=True, slots=True)
class Work:
    """`peer`: its commands; none if it is not there. Wanted at most: of the peer's time and memory, or memory in GB."""

    name: str
    to: str
    peer: Sequence[Command]
    time: float
    memory: float | None = None
    memory_gb: float | None = None


def main() -> None:
    args = arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    say(f"{args.checkpoint.name}: {warm(args.checkpoint) / 1e9:.2f} GB; {os.cpu_count()} processors")
    runs: dict[str, dict[str, list[Cost]]] = {}
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory(prefix="bench-quantize-", dir=args.folder) as made:
        ours, theirs = Path(made, "ours"), Path(made, "peer")
        for work in works(args, theirs):
            command = (Path(sys.executable).with_name("localr1"), "quantize", args.checkpoint, ours / "out", "--to", work.to, "--no-eval")
            if not work.peer:
                say(f"{work.name}: no peer (give --converter and --quantizer; install mlx-lm)")
            costs = runs[work.to] = {"ours": [], "peer": []}
            for _ in range(args.repeat):
                for name, folder, commands in (("ours", ours, (command,)), ("peer", theirs, work.peer)):
                    if commands:
                        costs[name].append(cost := measure(commands, folder))
                        say(f"{work.name}, {name}: {cost}; load {os.getloadavg()[0]:.1f}")
            rows += judged(work, **costs)
    if args.json:
        raw = {to: {name: [asdict(cost) for cost in each] for name, each in costs.items()} for to, costs in runs.items()}
        print(json.dumps({"runs": raw, "rows": [dict(zip(HEAD, row, strict=True)) for row in rows]}, indent=1))
        return
    widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]
    for row in (HEAD, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--converter", type=Path)
    parser.add_argument("--quantizer", type=Path)
    parser.add_argument("--peer-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--only", action="append", choices=("Q4_K_M", "Q8_0", "mlx-4bit"))
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def works(args: argparse.Namespace, folder: Path) -> list[Work]:
    full, out = folder / "full.gguf", folder / "out"
    convert = (args.peer_python, args.converter, args.checkpoint)
    both = ((*convert, "--outfile", full, "--outtype", "auto"), (args.quantizer, full, out, "Q4_K_M"))
    alone = ((*convert, "--outfile", out, "--outtype", "q8_0"),)
    mlx = ((sys.executable, "-m", "mlx_lm", "convert", "--hf-path", args.checkpoint, "--mlx-path", out, "-q", "--q-bits", "4"),)
    found = [
        Work("safetensors -> Q4_K_M", "Q4_K_M", both if args.converter and args.quantizer else (), time=0.6, memory_gb=0.9),
        Work("safetensors -> Q8_0", "Q8_0", alone if args.converter else (), time=0.4),
        Work("safetensors -> MLX 4-bit", "mlx-4bit", mlx if find_spec("mlx_lm") else (), time=1.0, memory=0.5),
    ]
    return [work for work in found if args.only is None or work.to in args.only]


def measure(commands: Sequence[Command], folder: Path) -> Cost:
    """Of commands that leave their result in FOLDER/out; the folder is made for them, and removed."""
    folder.mkdir()
    os.sync()
    costs = [_run([str(word) for word in command]) for command in commands]
    left, result = size(folder), size(folder / "out")
    shutil.rmtree(folder)
    seconds, cpu, memory, anonymous, written = zip(*costs, strict=True)
    return Cost(sum(seconds), sum(cpu), max(memory), max(anonymous), max(sum(written), left), result)


def _run(command: list[str]) -> tuple[float, float, float, float, float]:
    """Seconds, processor seconds, peak resident set, peak anonymous memory, bytes written."""
    samples, ended, written = [(0, 0)], threading.Event(), 0
    with tempfile.TemporaryFile() as log:
        began = perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        watch = threading.Thread(target=_watch, args=(process.pid, samples, ended))
        watch.start()
        try:
            if (io := Path(f"/proc/{process.pid}/io")).exists():  # of one that has exited too, with its children's, until it is waited for
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
                written = int(next(line.split()[1] for line in io.read_text().splitlines() if line.startswith("write_bytes")))
            _, status, used = os.wait4(process.pid, 0)
            seconds = perf_counter() - began
        except BaseException:  # interrupted
            process.kill()
            raise
        finally:
            ended.set()
            watch.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            sys.exit(f"{log.read().decode(errors='replace')[-2000:]}\n{' '.join(command)}: exit code {process.returncode}")
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return seconds, used.ru_utime + used.ru_stime, max(peak, *(s[0] for s in samples)), max(s[1] for s in samples), written


def _watch(pid: int, samples: list[tuple[int, int]], ended: threading.Event) -> None:
    """Resident and anonymous bytes of a process and all it started. Elsewhere than on Linux, all that is resident counts as anonymous."""
    processes: list[psutil.Process] = []
    for tick in count():
        try:
            if tick % FAMILY_EVERY == 0:  # to look for children takes more time than to look at them
                root = psutil.Process(pid)
                processes = [root, *root.children(recursive=True)]
            infos = [process.memory_info() for process in processes if process.is_running()]
            samples.append((sum(i.rss for i in infos), sum(i.rss - getattr(i, "shared", 0) for i in infos)))
        except psutil.Error:  # one has just ended
            pass
        if ended.wait(SAMPLE_S):
            return


def judged(work: Work, ours: list[Cost], peer: list[Cost]) -> Iterator[tuple[str, ...]]:
    """Rows below HEAD, of medians."""
    a, b = middle(ours), middle(peer) if peer else None

    def row(name: str, unit: str, most: float | None = None, kind: str = "of the peer's") -> tuple[str, ...]:
        scale = 1 if unit == "s" else 1e9
        mine, its = getattr(a, name) / scale, getattr(b, name) / scale if b else 0
        value = mine if kind.startswith("GB") else mine / its if its else None
        holds = "" if most is None else "not measured" if value is None else "yes" if value <= most else "NO"
        told = (f"{its:.2f} {unit}", f"{mine / its:.2f}") if its else ("-", "-")
        return (work.name, name, f"{mine:.2f} {unit}", *told, "" if most is None else f"<= {most:.2f} {kind}", holds)

    yield from (row("seconds", "s", work.time), row("cpu", "s"))
    yield row("memory", "GB", work.memory) if work.memory_gb is None else row("memory", "GB", work.memory_gb, "GB")
    yield from (row("anonymous", "GB"), row("written", "GB", (a.result + SLACK_BYTES) / 1e9, "GB: the result"))


def middle(costs: list[Cost]) -> Cost:
    return Cost(**{field.name: median(getattr(cost, field.name) for cost in costs) for field in fields(Cost)})


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def warm(folder: Path) -> int:
    """Read a folder's files once: bytes."""
    for path in filter(Path.is_file, folder.iterdir()):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 24):
                pass
    return size(folder)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
