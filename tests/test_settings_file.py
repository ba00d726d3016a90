"""The settings file: what it says, where it is wrong, and that writing one value leaves the rest alone."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from localr1 import paths
from localr1.keys import ACTIONS
from localr1.settings import SettingError, rows
from localr1.settings_file import create, parse, read, settings_path, template, write

HERE = Path("config.toml")


def test_no_file_sets_nothing_and_an_empty_one_neither(tmp_path: Path) -> None:
    assert read(tmp_path / "none.toml").general.values == {}
    assert parse("", HERE).general.values == {}


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert settings_path() == paths.config() / "config.toml"
    monkeypatch.setenv("LOCALR1_CONFIG", str(tmp_path / "mine.toml"))
    assert settings_path() == tmp_path / "mine.toml"


def test_values_come_with_their_lines() -> None:
    file = parse(
        '# mine\n[sampling]\ntemperature = 1 # warm\n\n[look]\nlatex = false\n[keys]\nquit = "ctrl+q"\n'
        '[models."r1:7b"]\nsampling.temperature = 0.7\nmodel.context = 8192\n[models.other.thinking]\nmode = "off"\n',
        HERE,
    )
    assert file.general.values == {"sampling.temperature": 1.0, "look.latex": False, "keys.quit": "ctrl+q"}
    assert file.general.lines == {"sampling.temperature": 3, "look.latex": 6, "keys.quit": 8}
    assert file.models["r1:7b"].values == {"sampling.temperature": 0.7, "model.context": 8192}
    assert file.models["r1:7b"].lines == {"sampling.temperature": 10, "model.context": 11}
    assert file.models["other"].values == {"thinking.mode": "off"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[sampling]\n\ntemperature = 70", "config.toml:3: sampling.temperature is 70, a number from 0 to 10 is needed"),
        ('sampling.temperature = "hot"', 'config.toml:1: sampling.temperature is "hot", a number from 0 to 10 is needed'),
        ("sampling = { top_p = 0.9,\n temperature = -1 }", None),  # no TOML 1.0
        ("look = { mouse = true, latex = 1 }", "config.toml:1: look.latex is 1, true or false is needed"),
        ('[chat]\nsystem = """\n[sampling]\ntemperature = 70\n"""\nprepare = 3', "config.toml:6: chat.prepare is 3, true or false is needed"),
        ("[sampling]\ntemprature = 1", "config.toml:2: there is no setting sampling.temprature; did you mean sampling.temperature?"),
        ("temperature = 1", "config.toml:1: there is no setting temperature; did you mean sampling.temperature?"),
        ("[chat]\nlatex = true", "config.toml:2: there is no setting chat.latex; did you mean look.latex?"),
        ("[chat]\nxyzzy = true", "config.toml:2: there is no setting chat.xyzzy; `localr1 settings` lists them"),
        ("\n[samplin]\ntop_p = 1", "config.toml:2: there is no table [samplin]; did you mean [sampling]?"),
        ("sampling = 3", "config.toml:1: sampling is a table; write [sampling]"),
        ("[[sampling]]\nseed = 3", "config.toml:1: sampling is a table; write [sampling]"),
        ("[sampling]\nseed.x = 3", "config.toml:2: sampling.seed is {'x': 3}, a whole number from 0 to 4294967294 is needed"),
        ('[models."r1:7b"]\nlook.latex = true', "config.toml:2: look.latex cannot be set for one model; write it into [look]"),
        ('[models."r1:7b"]\ntemperature = 1', "config.toml:2: there is no setting temperature; did you mean sampling.temperature?"),
        ('[models."r1:7b".sampling]\nseed = -1', "config.toml:2: sampling.seed is -1, a whole number from 0 to 4294967294 is needed"),
        ("[models]\nr1 = 3", 'config.toml:2: models.r1 is no table; write [models."r1"]'),
        ("models = 3", 'config.toml:1: models is no table; write [models."NAME"]'),
        ('[keys]\nquit = ""', 'config.toml:2: keys.quit is empty; name keys, for example "ctrl+x" or "f2,ctrl+x"'),
        ("[keys]\nquit = 3", 'config.toml:2: keys.quit is no text; name keys, for example "ctrl+x"'),
        ("[look]\nlatex = 1\n[chat]\nprepare = 1", "config.toml:2: look.latex is 1, true or false is needed"),
        ("a = 1\nb 2", "config.toml:2: this is no TOML: expected '=' after a key in a key/value pair"),
        ("a = 1\n\n", "config.toml:1: there is no setting a; `localr1 settings` lists them"),
        ('a = "1\n', "config.toml:1: this is no TOML: illegal character '\\n'"),
        ("[sampling", "config.toml:1: this is no TOML: expected ']' at the end of a table declaration"),
        ("[sampling]\nseed = 1\nseed = 2", "config.toml:3: this is no TOML: cannot overwrite a value"),
        ('[look]\ntheme = "\\u001b[2J"', "config.toml:2: look.theme is \"␛[2J\", one of terminal, dark, light, high-contrast, no-colour is needed"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line_with_its_place(text: str, said: str | None) -> None:
    with pytest.raises(SettingError) as problem:
        parse(text, HERE)
    assert said is None or str(problem.value) == said
    assert "\n" not in str(problem.value)


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b"a = '\xff'")
    with pytest.raises(SettingError, match="is no UTF-8 text"):
        read(file)
    file.write_text("x = " + "[" * 5000)
    with pytest.raises(SettingError, match="nested too deeply"):
        read(file)
    with pytest.raises(SettingError, match="cannot be read"):
        read(tmp_path)
    file.write_bytes("\ufeff[sampling]\r\nseed = 3\r\n".encode())
    assert read(file).general.values == {"sampling.seed": 3}


def test_the_template_is_valid_says_nothing_and_is_right_when_uncommented(tmp_path: Path) -> None:
    assert parse(template(), HERE).general.values == {}
    lines = [line.removeprefix("#") if line.startswith("#") and line[1:2] not in (" ", "") else line for line in template().split("\n")]
    values = parse("\n".join(line for line in lines if not line.endswith(" =")), HERE)
    keys = {f"keys.{action.name}": action.keys for action in ACTIONS.values()}
    assert values.general.values == {key: row.default for key, row in rows().items() if row.default is not None} | keys
    assert values.models["r1:7b"].values == {"sampling.temperature": 0.7}
    assert all(f"#{key.partition('.')[2]} =" in template() for key in rows())
    path = create(tmp_path / "deep" / "config.toml")
    assert path.read_text() == template()
    path.write_text("# mine")
    with pytest.raises(SettingError, match="is there already"):
        create(path)
    assert path.read_text() == "# mine"


def test_one_value_is_written_and_the_file_stays_what_it_was(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("# mine\n[sampling] # below\ntemperature = 0.5 # cool\n")
    real.chmod(0o600)
    link = tmp_path / "config" / "config.toml"
    link.parent.mkdir()
    link.symlink_to(real)
    write("sampling.temperature", 0.7, path=link)
    write("sampling.temperature", 0.65, "r1:7b", link)
    assert real.read_text() == '# mine\n[sampling] # below\ntemperature = 0.7 # cool\n\n[models."r1:7b"]\nsampling.temperature = 0.65\n'
    assert link.is_symlink() and real.stat().st_mode & 0o777 == 0o600
    write("sampling.temperature", None, path=link)
    assert read(link).general.values == {}
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []


def test_a_file_that_is_wrong_or_cannot_be_written_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[sampling\n")
    with pytest.raises(SettingError, match=r"config\.toml:1: this is no TOML"):
        write("sampling.seed", 7, path=file)
    file.write_text("sampling = { seed = 1, top_p = 1 }\n")
    with pytest.raises(SettingError, match="please edit the file"):
        write("sampling.seed", None, path=file)
    assert file.read_text() == "sampling = { seed = 1, top_p = 1 }\n"
    with pytest.raises(SettingError, match="no UTF-8 text"):
        write("chat.system", "\udcff", path=file)
    assert file.read_text() == "sampling = { seed = 1, top_p = 1 }\n"
    (tmp_path / "blocked").write_text("")
    with pytest.raises(SettingError, match="cannot be written"):
        write("sampling.seed", 7, path=tmp_path / "blocked" / "config.toml")


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    code = "import sys; from pathlib import Path; from localr1.settings_file import write\nfor n in range(8): write('sampling.seed', n, f'{sys.argv[1]}{n}', Path(sys.argv[2]))"
    writers = [subprocess.Popen([sys.executable, "-c", code, who, str(file)], cwd=paths.assets().parent) for who in ("a", "b")]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    assert tomllib.loads(file.read_text())["models"].keys() == {f"{who}{n}" for who in "ab" for n in range(8)}
