"""The workflows of the CI guide: valid YAML, least rights, and commands that exist with the options that they use."""

import re
from pathlib import Path

import typer.main
import yaml

from ncbench.cli import app
from ncbench.reports.compare.markdown import MARKER

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "ci.md"
BLOCKS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL)]


def steps():
    for block in BLOCKS:
        if isinstance(block, list):
            yield from block
        else:
            yield from (step for job in block["jobs"].values() for step in job["steps"])


def test_the_workflow_is_whole_and_asks_for_little():
    workflow = BLOCKS[0]
    assert workflow["permissions"] == {"contents": "read"}
    triggers = workflow[True]  # YAML 1.1 reads `on` as a truth value; GitHub does not
    assert "pull_request" in triggers
    assert "pull_request_target" not in triggers
    (job,) = workflow["jobs"].values()
    assert job["permissions"] == {"contents": "read", "actions": "read", "pull-requests": "write"}
    for step in steps():
        assert ("uses" in step) != ("run" in step), step
        assert "@" in step.get("uses", "@")


def test_the_comment_is_found_by_the_line_that_compare_writes():
    text = "\n".join(step.get("run", "") for step in steps())
    assert f'startswith("{MARKER}")' in text
    assert "GITHUB_STEP_SUMMARY" in text


def test_commands_in_the_workflow_exist():
    found = 0
    for step in steps():
        for line in step.get("run", "").splitlines():
            words = line.split()
            if words[:1] != ["ncbench"]:
                continue
            command = typer.main.get_command(app).commands[words[1]]
            known = {name for parameter in command.params for name in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known, line
            found += 1
    assert found >= 1
