import shutil
import subprocess

import pytest

from dvlae.cli import main
from dvlae.cli.commands import SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_a_script_with_commands_and_options(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "extract-patches" in script and "receptive-field" in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="unavailable: there is no bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["extr"], {"extract-patches"}),
        (["train", "--rec"], {"--receptive-field"}),
        (["train", "--device", ""], {"auto", "cpu", "cuda", "mps"}),
        (["prepare", "mi"], set()),
        (["predict", "my-mo"], {"my-model"}),
    ],
)
def test_bash_completes_commands_options_choices_and_paths(words, offered, capsys, tmp_path):
    main(["completion", "bash"])
    script = capsys.readouterr().out
    (tmp_path / "my-model").mkdir()
    typed = " ".join(f"'{word}'" for word in ["dvlae", *words])
    ask = f"COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _shtab_dvlae; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    # Without a terminal, bash has no `compopt` for the word that is being completed.
    done = subprocess.run(
        ["bash", "-c", f"compopt() {{ :; }}\n{script}\n{ask}"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == offered, done.stderr
