"""Where it listens and over what: TLS, IPv6, ports that are taken, the warning of a server that is open to everyone."""

import shutil
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import openai
import pytest

from tests.server.running import serving

MESSAGES = [{"role": "user", "content": "What is 17 + 25?"}]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Self-signed, for 127.0.0.1; and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    folder = tmp_path_factory.mktemp("tls")
    found = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=qwick"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(found[0]), "-keyout", str(found[1])]
    subprocess.run(command, check=True, capture_output=True)
    return found


def test_tls_with_the_official_client(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    flags = ["--ssl-certfile", str(certificate[0]), "--ssl-keyfile", str(certificate[1])]
    with serving(tmp_path, *flags) as server:
        assert server.url.startswith("https://")
        trusting = openai.DefaultHttpxClient(verify=ssl.create_default_context(cafile=str(certificate[0])))
        with server.client(http_client=trusting) as client:
            answer = client.chat.completions.create(model="pocket", messages=MESSAGES)  # type: ignore[arg-type]
            assert answer.choices[0].message.content == "42"
            chunks = list(client.completions.create(model="pocket", prompt="What is", stream=True, max_tokens=5))
            assert chunks[-1].choices[0].finish_reason is not None
        with pytest.raises(openai.APIConnectionError), server.client() as client:  # who does not trust it
            client.models.list()
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            urllib.request.urlopen(server.url.replace("https", "http") + "/health")


def test_ipv6(tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    with serving(tmp_path, "--host", "::1") as server:
        assert server.url.startswith("http://[::1]:")
        with server.client() as client:
            assert client.models.list().data[0].id == "pocket"
        assert "EVERYONE" not in server.log


def refused(*flags: str) -> str:
    """What it says instead of serving."""
    command = [sys.executable, "-m", "qwick", "serve", "pocket", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("--port", str(port))
    assert f"cannot listen on 127.0.0.1, port {port}" in said
    assert "--port" in said


def test_an_address_that_is_not_ours() -> None:
    assert "cannot listen on 192.0.2.1" in refused("--host", "192.0.2.1", "--port", "0")


def test_certificates_that_are_none(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("this is no certificate\n")
    locked = tmp_path / "locked.pem"
    protect = ["openssl", "rsa", "-aes256", "-passout", "pass:secret", "-in", str(certificate[1]), "-out", str(locked)]
    subprocess.run(protect, check=True, capture_output=True)
    for pair in ((wrong, certificate[1]), (certificate[0], wrong), (certificate[0], locked)):
        assert "--ssl-certfile" in refused("--port", "0", "--ssl-certfile", str(pair[0]), "--ssl-keyfile", str(pair[1]))


@pytest.mark.parametrize(("flags", "warns"), [([], True), (["--api-key", "sk-x"], False)])
def test_open_to_everyone(tmp_path: Path, flags: list[str], warns: bool) -> None:
    with serving(tmp_path, "--host", "0.0.0.0", *flags) as server:
        assert ("EVERYONE" in server.log) == warns
        assert "sk-x" not in server.log
