"""Stage 4, distillation: the student learns from the teacher's kept traces alone, or, to compare, from the generators' without a teacher.

    python distill.py --traces TRACES.jsonl --teacher TEACHER.pt --out DIR [--base ../r1-tiny]     # run again to resume
    python distill.py --out DIR [--base ../r1-tiny]                                                # without the teacher

The loss on a reply's tokens is cross-entropy with the trace and, by --teacher-weight, divergence from the teacher's distribution.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from cold_start import cross_entropy, packed
from data import Document, documents
from layers import autocast
from student import Student, StudentConfig
from teacher import Teacher, TeacherConfig
from torch import Tensor
from trainer import fit, launch, load, mine, options, summed
from upcycle import load_student


def read_traces(path: Path) -> list[Document]:
    traces = map(json.loads, path.read_text().splitlines())
    return [(t["prompt"] + t["reply"], [0] * len(t["prompt"]) + [1] * len(t["reply"])) for t in traces]


def drawn(traces: list[Document], seed: int, step: int, count: int) -> list[Document]:
    """A step's traces: all of them once, in an order of its own, then again."""
    out = []
    for i in range(step * count, (step + 1) * count):
        epoch, place = divmod(i, len(traces))
        if place == 0 or not out:
            order = list(range(len(traces)))
            random.Random(f"{seed}:{epoch}").shuffle(order)
        out.append(traces[order[place]])
    return sorted(out, key=lambda d: -len(d[0]))


def divergence(student: Tensor, wanted: Tensor) -> Tensor:
    """Sum of KL(teacher || student), nats; the student's logits, and the logarithms of the teacher's probabilities, [N, V]."""
    return F.kl_div(student.float().log_softmax(-1), wanted.float(), reduction="sum", log_target=True)


class Wanted:
    """The teacher's distribution, of each trace once: 0.2 MB a trace."""

    def __init__(self, teacher: Teacher, device: str) -> None:
        self._teacher, self._device = teacher, device
        self._known: dict[int, Tensor] = {}  # by the trace itself, which stays where it is

    @torch.no_grad()
    def __call__(self, batch: list[Document]) -> Tensor:
        """Logarithms of probabilities [N, V], float16: of every token of the replies, one behind another."""
        if new := [trace for trace in batch if id(trace) not in self._known]:
            ids, weights, view = packed(new, self._device)
            with autocast(self._device):
                found = self._teacher(ids, view)[0, :-1][weights[1:] > 0]
            found = found.float().log_softmax(-1).half()
            parts = found.split([sum(w > 0 for w in trace[1]) for trace in new])
            self._known |= {id(trace): part for trace, part in zip(new, parts, strict=True)}
        return torch.cat([self._known[id(trace)] for trace in batch])


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    student = (Student(StudentConfig()) if args.base is None else load_student(args.base)).to(args.device)
    teacher = Teacher(TeacherConfig()).to(args.device).eval()
    if args.teacher is not None:
        load(args.teacher, teacher)
    wanted = None if args.teacher is None else Wanted(teacher, args.device)
    traces = None if args.traces is None else read_traces(args.traces)

    def gradients(step: int) -> dict[str, float]:
        batch = documents(args.seed, step, args.documents) if traces is None else drawn(traces, args.seed, step, args.documents)
        trained, batch = sum(sum(d[1]) for d in batch), mine(batch)
        ids, weights, view = packed(batch, args.device)
        wanted_here = None if wanted is None else wanted(batch)  # outside of autocast, which knows no float16 on a CPU
        with autocast(args.device):
            logits = student(ids, view)
            loss = cross_entropy(logits, ids, weights, 1) / trained
            figures = [loss.detach()]
            if wanted_here is not None:
                distance = divergence(logits[0, :-1][weights[1:] > 0], wanted_here) / trained
                figures.append(distance.detach())
                loss = (1 - args.teacher_weight) * loss + args.teacher_weight * distance
        loss.backward()
        return dict(zip(("loss", "divergence"), summed(torch.stack(figures)).tolist(), strict=False))

    fit(student, args, gradients)


if __name__ == "__main__":
    parser = options(__doc__, steps=4800)
    parser.add_argument("--traces", type=Path, help="what rejection.py kept")
    parser.add_argument("--teacher", type=Path, metavar="TEACHER.pt", help="whose distribution to learn, too")
    parser.add_argument("--teacher-weight", type=float, default=0.5)
    parser.add_argument("--base", type=Path, metavar="FOLDER", help="student to begin with (default: random weights)")
    args = parser.parse_args()
    if args.teacher is not None and args.traces is None:
        parser.error("--teacher needs --traces, its own")
    launch(train, args)
