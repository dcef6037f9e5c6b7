"""The README runs: every `$ dqtsim ...` of its console blocks gives the output that is printed there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# times differ from run to run, and nothing else may
TIMES = re.compile(r"\d+(\.\d+)? ms")


def sessions() -> list[tuple[str, str]]:
    """Return (command, output) for each command of the console blocks."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", README, re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def same_text(output: str) -> list[str]:
    """Return the lines without times and without the padding of table columns."""
    return [re.sub(r"\s+", " ", TIMES.sub("_ ms", line)).strip() for line in output.strip().splitlines()]


def test_there_are_commands_to_run() -> None:
    assert len(sessions()) >= 3


@pytest.mark.parametrize(("command", "output"), sessions())
def test_a_command_of_the_readme_gives_the_output_printed_there(command: str, output: str) -> None:
    program, *arguments = command.split()
    assert program == "dqtsim"
    run = subprocess.run(
        [sys.executable, "-m", "dqtsim", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert same_text(run.stdout + run.stderr) == same_text(output)


def test_python_blocks_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out
