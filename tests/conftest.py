"""What holds for every test: reproducible examples, no dependence on the caller's environment."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# oneDNN's AMX code dies with SIGILL on some virtual machines; it reads this at the import of torch, which comes later.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
# No test may reach for a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Nothing depends on time: the machines are shared and small. The same examples in CI every time, new ones on a
# developer's machine.
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("qwick", _UNTIMED)
settings.register_profile("ci", _UNTIMED, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "qwick")


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands for the user's state folder."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(autouse=True)
def _own_settings_only(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    """QWICK_* variables of the caller's shell change what is tested; only a test itself may set them."""
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    for name in [name for name in os.environ if name.startswith("QWICK_") and name != "QWICK_SANITIZED"]:
        monkeypatch.delenv(name)
