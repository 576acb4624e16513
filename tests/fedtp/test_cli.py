import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

import fedtp
from fedtp import cli
from fedtp.errors import FedtpError


@dataclass
class Command:
    name: str
    function: Callable[..., Any]

    def load(self) -> Callable[..., Any]:
        return self.function


def fail() -> None:
    """Fail as a person can put right."""
    raise FedtpError("first [line]\nsecond line")


def interrupt() -> None:
    """Be interrupted."""
    raise KeyboardInterrupt


def break_down() -> None:
    """Break down."""
    raise RuntimeError("a bug")


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Any:
    def registered(group: str) -> list[Command]:
        assert group == "fedtp.commands"
        return [Command("interrupt", interrupt), Command("fail", fail), Command("break", break_down)]

    monkeypatch.setattr(cli, "entry_points", registered)
    return cli.build()


def test_help_lists_registered_commands_in_order(app: Any) -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert result.stdout.index("break") < result.stdout.index("fail") < result.stdout.index("interrupt")


def test_commands_of_several_packages_share_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [Command("federation.up", fail), Command("federation.init", interrupt), Command("break", break_down)]
    monkeypatch.setattr(cli, "entry_points", lambda group: commands)
    app = cli.build()
    shown = CliRunner().invoke(app, ["federation", "--help"]).stdout
    assert shown.index("init") < shown.index("up")
    assert CliRunner().invoke(app, ["federation", "up"]).exit_code == 2
    assert CliRunner().invoke(app, ["up"]).exit_code == 2


def test_version(app: Any) -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"fedtp {fedtp.__version__}\n")


def test_our_errors_are_a_message_and_exit_code_2(app: Any) -> None:
    result = CliRunner().invoke(app, ["fail"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == "error: first [line]\n       second line\n"


def test_interrupt_exits_130(app: Any) -> None:
    assert CliRunner().invoke(app, ["interrupt"]).exit_code == 130


def test_a_bug_is_not_hidden(app: Any) -> None:
    assert isinstance(CliRunner().invoke(app, ["break"]).exception, RuntimeError)


def test_an_unknown_command_exits_2(app: Any) -> None:
    assert CliRunner().invoke(app, ["nothing"]).exit_code == 2


def test_import_is_light() -> None:
    heavy = {"torch", "flwr", "ray", "clients", "server", "simulations"}
    code = f"import sys, fedtp, fedtp.cli, fedtp.learner_spec; print(*({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_public_names_are_there() -> None:
    for name in fedtp.__all__:
        assert getattr(fedtp, name) is not None
    assert set(fedtp.__all__) <= set(dir(fedtp))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fedtp.nothing
