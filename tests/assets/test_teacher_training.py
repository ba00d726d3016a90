"""The teacher in torch computes what the reference computes; its stages do what the reports say. Skipped without torch."""

import argparse
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.reference.model import Model
from backends.reference.mtp import MtpModule
from localr1 import paths
from localr1.models import BUNDLED
from localr1.student import recipe

torch: Any = pytest.importorskip("torch")
layers, teacher, export, grpo, distill, sampling, upcycle, data, trainer, measure, cold_start = recipe(
    "layers", "teacher", "export", "grpo", "distill", "sampling", "upcycle", "data", "trainer", "measure", "cold_start"
)
IDS = torch.tensor([[5, 17, 99, 250, 3, 3, 80, 41, 7, 160, 11, 200]])


@pytest.fixture(scope="module")
def model() -> Any:
    """Random weights that BF16 holds exactly; biases at which groups differ."""
    torch.manual_seed(0)
    model = teacher.Teacher(teacher.TeacherConfig()).eval()
    for p in model.parameters():
        p.data = (torch.rand_like(p) + 0.5 if p.ndim == 1 else torch.randn_like(p) * p.shape[1] ** -0.5).bfloat16().float()
    for moe in model.mixtures().values():
        moe.gate.e_score_correction_bias = torch.randn(8) * 0.1
    return model


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights as published, in FP8 blocks."""
    target = tmp_path_factory.mktemp("teacher") / "fp8"
    target.mkdir()
    (target / "README.md").write_text("the card")
    export.teacher_folder(model.state_dict(), target)
    export.teacher_folder(model.state_dict(), target)
    assert (target / "README.md").read_text() == "the card"
    return target


def rounded(model: Any, reference: Model) -> None:
    """Give `model` the exported weights."""
    for name, p in model.named_parameters():
        p.data = torch.from_numpy(np.array(reference.weights.dequantized(name) if p.ndim == 2 else reference.weights.array(name)))


def test_logits_and_mtp_agree_with_the_reference(model: Any, folder: Path) -> None:
    reference = Model.open(folder)
    rounded(model, reference)
    view = layers.Documents([IDS.shape[1]])
    with torch.no_grad():
        hidden = model.hidden(IDS, view)
        logits, mtp = model.lm_head(hidden)[0].numpy(), model.mtp_logits(hidden, IDS, view)[0, :-1].numpy()
    assert np.abs(logits).max() > 1
    np.testing.assert_allclose(logits, reference.logits(IDS[0].tolist()), atol=1e-4)
    np.testing.assert_allclose(mtp, MtpModule(reference).logits(IDS[0].tolist()), atol=1e-4)


def test_packed_documents_and_growing_batches_are_seen_alike(model: Any) -> None:
    with torch.no_grad():
        packed = model(IDS, layers.Documents([4, 8]))[0]
        batch = layers.Batch(10, torch.tensor([4, 0]))
        rows = torch.stack([torch.cat([torch.zeros(4, dtype=torch.long), IDS[0, :4]]), IDS[0, 4:]])
        batch.extend(6)
        model(rows[:, :6], batch)
        batch.extend(2)
        last = model(rows[:, 6:], batch)
    torch.testing.assert_close(last[0], packed[2:4], atol=1e-4, rtol=0)
    torch.testing.assert_close(last[1], packed[10:], atol=1e-4, rtol=0)


def test_the_bias_moves_against_the_load(model: Any) -> None:
    moe = model.mixtures()[1]
    before = moe.gate.e_score_correction_bias.clone()
    moe.load = torch.tensor([8.0, 0, 4, 4, 4, 4, 4, 4])
    shares = model.balance(0.5)
    assert (moe.gate.e_score_correction_bias - before).tolist() == pytest.approx([-0.5, 0.5, 0, 0, 0, 0, 0, 0])
    assert shares == {1: pytest.approx([0.25, 0, *[0.125] * 6])} and moe.load.sum() == 0
    moe.gate.e_score_correction_bias = before


def test_an_upcycled_feed_forward_is_the_students() -> None:
    torch.manual_seed(0)
    moe, mlp = teacher.MoE(teacher.TeacherConfig()).eval(), layers.MLP(256, 768)
    layers.initialize(moe)  # the router, which is no more than memory until then
    with torch.no_grad():
        upcycle._experts(moe, mlp)
        x = torch.randn(1, 9, 256)
        torch.testing.assert_close(moe(x), mlp(x), atol=1e-4, rtol=0)


def test_an_upcycled_teacher_goes_on_as_the_student_would() -> None:
    student, model = upcycle.load_student(paths.assets() / BUNDLED), teacher.Teacher(teacher.TeacherConfig()).eval()
    upcycle.upcycle(student, model, data.documents(2, 0, 24))
    told = data.documents(2, 1, 6)
    assert measure.loss(model, told) < measure.loss(student, told) + 0.3  # random weights: 5.8


def test_load_is_counted_by_layer(model: Any) -> None:
    shares = measure.load(model, data.documents(2, 0, 2))
    assert list(shares) == [1, 2, 3, 4] and all(sum(s) == pytest.approx(1) for s in shares.values())


def test_gains_are_clipped_and_distance_costs() -> None:
    old, advantage = torch.zeros(4), torch.tensor([1.0, 1.0, -1.0, -1.0])
    new = torch.log(torch.tensor([1.1, 2.0, 0.9, 0.1])).requires_grad_()
    loss, distance = grpo.policy_loss(new, old, new.detach(), advantage)
    assert distance.tolist() == [0, 0, 0, 0]
    assert loss.tolist() == pytest.approx([-1.1, -1.2, 0.9, 0.8])
    loss.sum().backward()
    assert new.grad.tolist() == pytest.approx([-1.1, 0, 0.9, 0])  # what moved far enough is left alone
    assert grpo.policy_loss(new, new, torch.zeros(4), torch.zeros(4))[1].min() > 0


def test_the_policy_practises_what_it_is_least_sure_of(model: Any) -> None:
    drawn = grpo.problems(1, 0, 6)

    def surprise(problem: Any) -> float:
        """The largest of a token, as much as it is trained on."""
        ids, weights = data.written([], problem)
        given = model(torch.tensor([ids]), layers.Documents([len(ids)]))[0].log_softmax(-1)
        return max(-float(given[i - 1, ids[i]]) * weights[i] for i in range(1, len(ids)))

    with torch.no_grad():
        wanted = sorted(drawn, key=surprise, reverse=True)[:2]
    assert grpo.least_sure(model, drawn, 2, "cpu") == wanted
    asked = [p for p in measure.held_out(2) if p.result]
    assert all(p.held_out for p in asked) and len(asked) == 2 * 6
    assert measure.hardest(model, 2, 3) == grpo.least_sure(model, asked, 3, "cpu")


def test_rounds_that_are_played_again_are_on_the_curve_once(tmp_path: Path) -> None:
    (tmp_path / "curve.jsonl").write_text('{"round": 0}\n{"round": 1}\n{"round": 2}\n')
    grpo.forget_from(tmp_path / "curve.jsonl", 2)
    assert (tmp_path / "curve.jsonl").read_text() == '{"round": 0}\n{"round": 1}\n'
    grpo.forget_from(tmp_path / "none.jsonl", 2)


def test_replies_end_and_are_seeded(model: Any) -> None:
    def draw(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return sampling.sample(model, [[1, 2, 3], [4]], temperature=1.0, max_new=12, generator=generator)

    first = draw(1)
    assert first == draw(1) != draw(2)
    assert all(len(r) <= 12 and (sampling.END not in r[:-1]) for r in first)
    assert sampling.split_reply(data.encode(f"so\n{data.END_THINK}\n\n**1**{data.EOS}")) == ("so", "**1**")
    assert sampling.split_reply(data.encode("so on and on")) == ("so on and on", "")


def test_divergence_is_zero_from_oneself_alone() -> None:
    a, b = torch.randn(5, 7), torch.randn(5, 7)
    assert (
        float(distill.divergence(a, a.log_softmax(-1))) == pytest.approx(0, abs=1e-6)
        and float(distill.divergence(a, b.log_softmax(-1))) > 0
    )


def test_the_teacher_is_asked_once_for_each_trace(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says the same as if it was asked for the batch alone: only tokens that are trained on, in the batch's order."""
    monkeypatch.setattr(layers, "fast_type", lambda _: torch.float32)
    traces = [([1, 5, 9, 3], [0, 0, 1, 1]), ([1, 8, 2, 7, 4], [0, 1, 1, 1, 1]), ([1, 6], [0, 1])]
    wanted, asked = distill.Wanted(model, "cpu"), []
    forward = model.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0].shape[1]))
    wanted(traces[:2])
    found = wanted(traces[::-1])
    forward.remove()
    assert asked == [9, 2]
    alone = []
    for ids, weights in traces[::-1]:
        view = layers.Documents([len(ids)], "cpu")
        with torch.no_grad():
            scores = model(torch.tensor([ids]), view)[0, :-1]
        alone.append(scores[torch.tensor(weights[1:]) > 0].log_softmax(-1))
    torch.testing.assert_close(found.float(), torch.cat(alone), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_distillation_in_what_the_machine_is_fast_in(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    for module in (layers, trainer):
        monkeypatch.setattr(module, "fast_type", lambda _: dtype)
    traces = tmp_path / "traces.jsonl"
    traces.write_text("".join(json.dumps(dict(family="add", prompt=[1, 5, 9], reply=[i, 7, 4])) + "\n" for i in range(4)))
    args = trainer.options(None, steps=2).parse_args(["--out", str(tmp_path), "--workers", "1", "--documents", "2", "--device", "cpu"])
    distill.train(argparse.Namespace(**vars(args), base=None, teacher=folder, traces=traces, teacher_weight=0.5))
    assert 0 < json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["divergence"] < 100


def test_every_trace_comes_once_before_any_comes_again() -> None:
    traces = [([i], [1]) for i in range(10)]
    seen = [d[0][0] for step in range(5) for d in distill.drawn(traces, 1, step, 4)]
    assert sorted(seen) == sorted([*range(10)] * 2)


def test_a_cold_start_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The routers' biases, too, which move by the load of the step before."""
    monkeypatch.setattr(cold_start, "TeacherConfig", lambda: teacher.TeacherConfig(num_hidden_layers=2, num_nextn_predict_layers=0))

    def run(out: str, *stops: int) -> dict[str, Any]:
        for steps in stops:
            parser = trainer.options(None, steps=4)
            parser.set_defaults(base=None, bias_speed=0.01, mtp_begins=1.0, mtp_only=False)
            args = parser.parse_args(["--out", str(tmp_path / out), "--workers", "1", "--documents", "2", "--device", "cpu"])
            (tmp_path / out).mkdir(exist_ok=True)

            def stopped(model: Any, args: Any, gradients: Any, steps: int = steps) -> None:
                def until(step: int) -> dict[str, float]:
                    if step == steps:
                        raise InterruptedError
                    return gradients(step)

                with suppress(InterruptedError):
                    trainer.fit(model, args, until, every=1)

            monkeypatch.setattr(cold_start, "fit", stopped)
            cold_start.train(args)
        return torch.load(tmp_path / out / "train.pt", weights_only=True)["model"]

    once, twice = run("once", 4), run("twice", 2, 4)
    for name, weight in once.items():
        torch.testing.assert_close(twice[name], weight)
    assert once["model.layers.1.mlp.gate.e_score_correction_bias"].abs().max() > 0.01


def test_training_resumes_where_it_stopped(tmp_path: Path) -> None:
    def run(out: str, *steps: int) -> Any:
        (tmp_path / out).mkdir()
        for upto in steps:
            torch.manual_seed(0)
            model = torch.nn.Sequential(torch.nn.Linear(4, 4))
            args = trainer.options(None, steps=6).parse_args(["--out", str(tmp_path / out), "--workers", "1", "--warm-up", "1"])

            def gradients(step: int, model: Any = model, upto: int = upto) -> dict[str, float]:
                if step == upto:
                    raise InterruptedError
                model(torch.full((1, 4), float(step))).square().sum().backward()
                return {"loss": 0.0}

            try:
                trainer.fit(model, args, gradients, every=2)
            except InterruptedError:
                pass
        return model[0].weight.detach()

    torch.testing.assert_close(run("once", 6), run("twice", 4, 6))
