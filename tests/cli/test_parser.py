import re
import shlex

import pytest

from dvlae.cli import main
from dvlae.cli.commands import COMMANDS, GROUPS
from dvlae.cli.parser import EXIT_CODES, parse
from project import REPOSITORY

TRAIN = "train patches model --receptive-field 40 --noise-direction x"


@pytest.fixture
def answer(capsys):
    """Return a function that gives the last line with which wrong arguments are answered."""

    def answer(words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(words))
        assert ended.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    return answer


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_example_of_each_command_is_allowed_and_its_help_shows_it(command, capsys):
    (example,) = re.findall(r"dvlae ([^)>]+)", command.example)
    assert parse(shlex.split(example))[0] is command
    with pytest.raises(SystemExit) as ended:
        main([command.name, "--help"])
    assert ended.value.code == 0
    assert f"\nexample:\n  {command.example}\n" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [20, 80, 200])
def test_the_help_lists_each_command_in_its_group_and_each_exit_code(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    blocks = dict(re.findall(r"^(\S.*):\n((?:  .*\n?)+)", text, re.M))
    listed = {title: re.findall(r"^  (\S+)  ", block, re.M) for title, block in blocks.items()}
    assert {title: listed[title] for title in GROUPS} == {
        title: [command.name for command in commands] for title, commands in GROUPS.items()
    }
    assert listed["exit codes"] == list(EXIT_CODES)
    if columns >= 80:
        assert max(map(len, text.splitlines())) <= columns


def test_an_unknown_command_is_answered_with_the_nearest_one(answer):
    assert answer("predit model").startswith(
        "dvlae: error: unknown command 'predit'; did you mean 'predict'? allowed: denoise, "
    )
    assert answer("qqqq").startswith("dvlae: error: unknown command 'qqqq'; allowed: denoise, ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (f"{TRAIN} --devce cpu", "dvlae train: error: unknown: --devce cpu; --devce: did you mean '--device'?"),
        (f"{TRAIN} --devce=cpu", "dvlae train: error: unknown: --devce=cpu; --devce: did you mean '--device'?"),
        (f"{TRAIN} --qqqq", "dvlae train: error: unknown: --qqqq"),
        (f"{TRAIN} other", "dvlae train: error: unknown: other"),
        (
            "train patches model --receptive_field 40 --noise-direction x",
            "dvlae train: error: the following arguments are required: --receptive-field; "
            "--receptive_field: did you mean '--receptive-field'?",
        ),
        (
            "--verson",
            "dvlae: error: the following arguments are required: COMMAND; --verson: did you mean '--version'?",
        ),
    ],
)
def test_an_unknown_option_is_answered_with_the_nearest_one_of_its_command(words, told, answer):
    assert answer(words) == told


def test_the_values_of_options_are_no_unknown_options(answer):
    assert answer("levels model images --image -- -devce") == (
        "dvlae levels: error: argument --image: expected one argument"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            f"{TRAIN} --device cdua",
            "argument --device: found 'cdua'; did you mean 'cuda'? allowed: auto, cpu, cuda, mps",
        ),
        (f"{TRAIN} --device qqqq", "argument --device: found 'qqqq'; allowed: auto, cpu, cuda, mps"),
        (
            "generate model new --kind nois",
            "argument --kind: found 'nois'; did you mean 'noise'? allowed: noise, prior",
        ),
    ],
)
def test_an_unknown_choice_is_answered_with_the_nearest_one(words, told, answer):
    assert answer(words) == f"dvlae {words.split()[0]}: error: {told}"


def test_the_guide_has_each_exit_code_and_an_answer_as_it_is_given(answer):
    guide = (REPOSITORY / "docs/command_line.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\d+) \|", guide, re.M) == list(EXIT_CODES)
    ((words, told),) = re.findall(r"^\$ dvlae (.*)\n(dvlae .*: error: .*)$", guide, re.M)
    assert answer(words) == told
