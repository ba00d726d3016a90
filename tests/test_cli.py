"""The program as people and other programs run it: a process, its streams, its exit code. The model is the bundled one."""

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

import localr1
from localr1 import cli, paths
from quantize.convert import convert

STRAWBERRY = "How many r's are in strawberry?"
KEYS = {"model", "backend", "thought", "answer", "finish_reason", "usage", "timings"}


def localr1_run(*arguments: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program; without `stdin` its standard input is /dev/null."""
    return subprocess.run(
        [sys.executable, "-m", "localr1.cli", *arguments],
        input=stdin, stdin=subprocess.DEVNULL if stdin is None else None, capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONPATH": str(Path(localr1.__file__).parents[1])} | environment,
    )  # fmt: skip


def test_ask_prints_the_thought_to_stderr_and_the_answer_to_stdout() -> None:
    done = localr1_run("ask", "--temperature", "0", STRAWBERRY)
    assert done.returncode == 0
    assert "**3**" in done.stdout
    assert "s" in done.stderr and "(3)" in done.stderr
    assert "</think>" not in done.stdout + done.stderr
    assert done.stdout.endswith("\n") and not done.stdout.endswith("\n\n")


def test_ask_reads_standard_input() -> None:
    assert "1102" in localr1_run("ask", "-", "--temperature", "0", stdin="What is 907 + 195?\n").stdout
    assert "1102" in localr1_run("ask", "--temperature", "0", stdin="What is 907 + 195?").stdout
    assert "1102" in localr1_run("ask", "What is 907 + 195?", "--temperature", "0", stdin="").stdout


def test_a_sign_that_the_terminal_lacks_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="iso-8859-1"))
    cli._open_closed_streams()
    print("7 ≈ 7, für", flush=True)
    assert out.getvalue() == "7 ? 7, für\n".encode("iso-8859-1")


def test_ask_takes_files_in_the_official_template(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("907")
    (tmp_path / "b.txt").write_text("195")
    data = tmp_path / "data"
    question = ("ask", "--file", str(tmp_path / "a.txt"), "What is it?", "--file", str(tmp_path / "b.txt"), "--max-tokens", "1")
    assert localr1_run(*question, stdin="And what\nelse?\n", XDG_DATA_HOME=str(data)).returncode == 0
    trace = json.loads(localr1_run("trace", "show", "--json", XDG_DATA_HOME=str(data)).stdout)
    files = "".join(
        f"[file name]: {name}\n[file content begin]\n{text}\n[file content end]\n" for name, text in (("a.txt", "907"), ("b.txt", "195"))
    )
    assert trace["question"] == files + "What is it?\n\nAnd what\nelse?"
    assert "[a.txt and 1 more] What is it?" in localr1_run("trace", "list", XDG_DATA_HOME=str(data)).stdout


def test_a_file_that_cannot_be_asked_about_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"\x89PNG\0")
    for path, said in (
        (tmp_path, "is a folder; name the files in it"),
        (tmp_path / "no", "there is no such file"),
        (tmp_path / "picture", "is a picture"),
    ):
        done = localr1_run("ask", "What?", "--file", str(path))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1) and said in done.stderr
    assert localr1_run("ask", "What?", "--file").returncode == 2


def test_ask_json_is_one_object_with_the_promised_keys() -> None:
    done = localr1_run("ask", "--json", "--seed", "1", STRAWBERRY)
    reply = json.loads(done.stdout)
    assert set(reply) == KEYS
    assert set(reply["usage"]) == {"prompt_tokens", "reused_tokens", "thought_tokens", "answer_tokens"}
    assert set(reply["timings"]) == {"load_s", "prefill_s", "decode_s", "tokens_per_s"}
    assert (reply["model"], reply["backend"], reply["finish_reason"]) == ("r1-tiny", "gguf", "stop")
    assert reply["thought"] and "strawberry" in reply["answer"]
    assert reply["usage"]["thought_tokens"] > 20 and reply["usage"]["answer_tokens"] > 5
    again = json.loads(localr1_run("ask", "--json", "--seed", "1", STRAWBERRY).stdout)
    assert again["thought"] == reply["thought"]


def test_the_reference_backend_gives_the_same_answer() -> None:
    replies = [
        json.loads(localr1_run("ask", "--json", "--temperature", "0", "--backend", b, STRAWBERRY).stdout) for b in ("reference", "gguf")
    ]
    assert [r["backend"] for r in replies] == ["reference", "gguf"]
    assert replies[0]["answer"] == replies[1]["answer"] and replies[0]["usage"] == replies[1]["usage"]
    thinking = json.loads(localr1_run("ask", "--json", "--backend", "reference", "--think-budget", "4", STRAWBERRY).stdout)
    assert thinking["usage"]["thought_tokens"] >= 4 and thinking["answer"]  # this model thinks on when its thought is closed for it


def test_the_prompt_is_what_was_piped_and_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("localr1.ask.load", lambda *_: SimpleNamespace(backend=nullcontext()))
    monkeypatch.setattr("localr1.ask.ask", lambda model, prompt, *_: asked.append(prompt) or True)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "notes.txt").write_text("of the sea\n")
    piped = tmp_path / "piped"
    piped.write_text("\n    if x:\n        y  \n")
    with piped.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert cli.main(["ask", "What is it?", "--file=~/notes.txt"]) == 0
    with piped.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert cli.main(["ask", "What is it?", "--file", str(piped)]) == 0
    assert asked[0].endswith("What is it?\n\n    if x:\n        y") and "of the sea" in asked[0]
    assert asked[1].endswith("What is it?") and asked[1].count("if x:") == 1


def test_limits_end_a_turn_early_and_say_so() -> None:
    done = localr1_run("ask", "--max-tokens", "5", STRAWBERRY)
    assert (done.returncode, done.stdout) == (0, "")
    assert "stopped mid-thought at --max-tokens" in done.stderr
    budget = json.loads(localr1_run("ask", "--json", "--think-budget", "4", STRAWBERRY).stdout)
    assert budget["usage"]["thought_tokens"] >= 4
    assert budget["answer"]


def test_the_first_run_converts_and_says_so(tmp_path: Path) -> None:
    first = localr1_run("ask", "--max-tokens", "1", "hi", XDG_CACHE_HOME=str(tmp_path))
    assert "converting r1-tiny to Q8_0" in first.stderr
    assert [p.suffix for p in (tmp_path / "localr1" / "converted").iterdir()] == [".gguf"]
    assert "converting" not in localr1_run("ask", "--max-tokens", "1", "hi", XDG_CACHE_HOME=str(tmp_path)).stderr


def bad_inputs(folder: Path) -> dict[str, tuple[list[str], str]]:
    student = paths.assets() / "r1-tiny"

    def copy(name: str) -> Path:
        target = folder / name
        target.mkdir()
        for file in student.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        return target

    (copy("truncated") / "model.safetensors").write_bytes((student / "model.safetensors").read_bytes()[:100_000])
    shard = copy("shard")
    (shard / "model.safetensors").unlink()
    (shard / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}})
    )
    unknown = copy("unknown")
    config = json.loads((unknown / "config.json").read_text())
    (unknown / "config.json").write_text(json.dumps(config | {"model_type": "mamba", "architectures": ["MambaForCausalLM"]}))
    (folder / "empty").mkdir()
    (folder / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    (folder / "magic.gguf").write_bytes(b"GGUF")
    (folder / "text.gguf").write_text("not a model")
    convert(student, folder / "whole.gguf", "Q8_0")
    return {
        "no model": (["-m", str(folder / "nothing"), "hi"], "no model called"),
        "empty prompt": ([""], "the prompt is empty"),
        "blank prompt": (["  \n "], "the prompt is empty"),
        "prompt longer than the context": (["--context", "64", "word " * 100], "the context holds 64"),
        "missing shard": (["-m", str(shard), "hi"], "model-00001-of-00002.safetensors"),
        "truncated safetensors": (["-m", str(folder / "truncated"), "hi"], "model.safetensors"),
        "truncated GGUF": (["-m", str(folder / "cut.gguf"), "hi"], "cut.gguf"),
        "no GGUF": (["-m", str(folder / "text.gguf"), "hi"], "no GGUF file"),
        "unknown architecture": (["-m", str(unknown), "hi"], "mamba"),
        "empty folder": (["-m", str(folder / "empty"), "hi"], "config.json"),
        "GGUF for MLX": (["--backend", "mlx", "-m", str(folder / "whole.gguf"), "hi"], "MLX reads no GGUF files"),
        "GGUF for the reference": (["--backend", "reference", "-m", str(folder / "whole.gguf"), "hi"], "reads safetensors folders"),
        "unknown to the reference": (
            ["--backend", "reference", "-m", str(unknown), "hi"],
            "(mamba, BF16) cannot be run with --backend reference",
        ),
        "context beyond the model": (["--context", "1000000", "hi"], "choose 1 to 4,096"),
    }


CASES = [
    "no model", "empty prompt", "blank prompt", "prompt longer than the context", "missing shard", "truncated safetensors", "truncated GGUF",
    "no GGUF", "unknown architecture", "empty folder", "GGUF for MLX", "context beyond the model",
    "GGUF for the reference", "unknown to the reference",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_clear_line(case: str, tmp_path: Path) -> None:
    arguments, says = bad_inputs(tmp_path)[case]
    cache = tmp_path / "cache"
    done = localr1_run("ask", *arguments, XDG_CACHE_HOME=str(cache))
    assert done.returncode == 1
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("localr1: converting")]
    assert len(lines) == 1 and lines[0].startswith("localr1: ")
    assert says in lines[0]
    assert "Traceback" not in done.stderr
    left = [p for p in cache.rglob("*") if p.is_file() and "r1-tiny" not in p.name]
    assert left == []


def test_chat_without_a_terminal_is_refused() -> None:
    for arguments in ([], ["chat"], ["chat", "r1-tiny"]):
        done = localr1_run(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert "needs a terminal" in done.stderr and "localr1 ask" in done.stderr


def test_the_plain_chat_reads_questions_from_a_pipe() -> None:
    done = localr1_run("chat", "--plain", "--temperature", "0", stdin=f"{STRAWBERRY}\n/again\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("**3**") == 2 and "\x1b" not in done.stdout
    assert [line for line in done.stdout.splitlines() if line.endswith(":")] == ["Thinking:", "Answer:", "Answer:"]
    assert localr1_run("chat", "--plain", str(paths.assets() / "nothing"), stdin="").returncode == 1


@pytest.mark.parametrize(
    "arguments", [["--temperature", "hot"], ["ask", "--max-tokens", "0", "x"], ["ask", "--top-p", "1.5", "x"], ["sing"], ["quantize"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    done = localr1_run(*arguments)
    assert done.returncode == 2
    assert "error:" in done.stderr


def test_version_and_help() -> None:
    assert localr1_run("--version").stdout == f"localr1 {localr1.__version__}\n"
    assert "localr1 ask" in localr1_run("--help").stdout


def test_quantize_writes_a_model_that_answers(tmp_path: Path) -> None:
    target = tmp_path / "tiny.gguf"
    done = localr1_run("quantize", str(paths.assets() / "r1-tiny"), str(target), "--to", "F16", "--no-eval")
    assert done.returncode == 0, done.stderr
    assert "F16" in done.stdout
    assert "**3**" in localr1_run("ask", "-m", str(target), "--temperature", "0", STRAWBERRY).stdout
    again = localr1_run("quantize", str(paths.assets() / "r1-tiny"), str(target), "--to", "F16", "--no-eval")
    assert again.returncode == 1 and "--force" in again.stderr
    assert localr1_run("quantize", str(paths.assets() / "r1-tiny"), str(target), "--to", "F16", "--no-eval", "--force").returncode == 0
    assert localr1_run("quantize", str(paths.assets() / "r1-tiny"), str(tmp_path / "x.gguf"), "--to", "Q9").returncode == 2


def test_ctrl_c_keeps_what_has_come_and_exits_with_130() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "localr1.cli", "ask", "--backend", "reference", STRAWBERRY],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(localr1.__file__).parents[1])},
    )  # fmt: skip
    assert process.stderr is not None
    shown = ""
    while not shown.strip() or shown.startswith("localr1: converting"):
        shown = process.stderr.read(1)
        if shown == "l":
            shown += process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "cancelled" in rest and "Traceback" not in rest


def test_a_reader_that_leaves_is_no_crash() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(localr1.__file__).parents[1])}
    command = f"{sys.executable} -m localr1.cli ask --json '{STRAWBERRY}' </dev/null | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, env=environment)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which `localr1` is the program."""
    environment = os.environ | {"PYTHONPATH": str(Path(localr1.__file__).parents[1])}
    program = f'localr1() {{ "{sys.executable}" -m localr1.cli "$@"; }}; '
    return subprocess.run(
        ["sh", "-c", program + command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=environment
    )


def test_closed_streams_are_no_crash() -> None:
    closed = shell("localr1 ask - <&-")
    assert closed.returncode == 1 and "standard input" in closed.stderr and "Traceback" not in closed.stderr
    assert "Traceback" not in shell("localr1 ask --max-tokens 3 hi >&-").stderr
    for lost in ("2>&-", "2>/dev/full"):
        done = shell(f"localr1 ask --temperature 0 'What is 907 + 195?' {lost}")
        assert (done.returncode, "1102" in done.stdout) == (0, True)


def test_being_terminated_leaves_no_half_written_file(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, quantize.convert as c; from localr1.cli import main; real = c.convert\n"
        "def dying(*a, on_progress=None, **k): return real(*a, on_progress=lambda p: os.kill(os.getpid(), signal.SIGTERM), **k)\n"
        f"c.convert = dying; sys.exit(main(['quantize', {str(paths.assets() / 'r1-tiny')!r}, {str(tmp_path / 'm.gguf')!r}, '--to', 'F16']))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(localr1.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_nohup_is_heard() -> None:
    script = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); from localr1.cli import main; main(['settings']); "
        "os.kill(os.getpid(), signal.SIGHUP); print('goes on')"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(localr1.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["goes on"])


def test_an_importance_matrix_is_made_kept_and_used_again(tmp_path: Path) -> None:
    from quantize.calibrate import corpus

    (tmp_path / "text.txt").write_text(corpus()[:3000])
    student, first, second = str(paths.assets() / "r1-tiny"), tmp_path / "first.gguf", tmp_path / "second.gguf"
    done = localr1_run("quantize", student, str(first), "--to", "Q4_0", "--no-eval", "--calibrate", str(tmp_path / "text.txt"))
    assert done.returncode == 0 and "calibrating on text.txt\nlocalr1: the model runs from " in done.stderr
    matrix = tmp_path / "first.gguf.imatrix.gguf"
    assert sorted(tmp_path.iterdir()) == [first, matrix, tmp_path / "text.txt"]
    assert localr1_run("quantize", student, str(second), "--to", "Q4_0", "--no-eval", "--imatrix", str(matrix)).returncode == 0
    assert first.read_bytes() == second.read_bytes()
    plain = tmp_path / "plain.gguf"
    assert (
        localr1_run("quantize", student, str(plain), "--to", "Q4_0", "--no-eval").returncode == 0
        and plain.read_bytes() != first.read_bytes()
    )
    failed = localr1_run(
        "quantize", student, str(tmp_path / "x.gguf"), "--to", "Q4_0", "--no-eval", "--imatrix", str(tmp_path / "text.txt")
    )
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1 and "text.txt" in failed.stderr


def test_a_quantized_gguf_is_quantized_again_with_a_warning(tmp_path: Path) -> None:
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    assert localr1_run("quantize", str(paths.assets() / "r1-tiny"), str(first), "--to", "Q8_0", "--no-eval").returncode == 0
    again = localr1_run("quantize", str(first), str(second), "--to", "Q4_K_M", "--no-eval")
    assert again.returncode == 0 and "quantized already (Q8_0)" in again.stderr and second.stat().st_size < first.stat().st_size


def test_a_chat_that_goes_on_with_an_earlier_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from localr1 import cli
    from localr1.history import history_file
    from localr1.store import Store, StoreError
    from localr1.trace.record import Made

    def chat(*flags: str) -> str:
        args = cli.parser().parse_args(["chat", "--plain", *flags])
        assert args.run(args) == 0
        return capsys.readouterr().out

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("localr1.plain.PlainChat.run", lambda self, resume=None: print(f"resumes {resume}") or 0)
    with pytest.raises(StoreError, match="no conversation is kept yet"):
        chat("--continue")
    assert not history_file().exists()
    with Store(history_file()) as store:
        for question in ("How many tiles?", "How many r's?"):
            store.add_turn(store.new(), None, question, Made("m", ""))
    for flags, says in (([], "None"), (["--continue"], "2"), (["--resume", "tiles"], "1"), (["--resume", "2"], "2")):
        assert chat(*flags) == f"resumes {says}\n"
    with pytest.raises(StoreError, match="there is no conversation 9"):
        chat("--resume", "9")
    with pytest.raises(cli.UsageProblem, match="leave --no-history away"):
        chat("--continue", "--no-history")
