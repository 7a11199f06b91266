"""Chief and workers over several machines: who is let in, and where the chief listens."""

import os
import socket
import threading

import grpc
import keras_tuner
import pytest
from keras_tuner.src import protos
from sweeps import COMMAND, IGNORED_WARNINGS, wait_for

from spectrovae.tuning import Sweep, SweepSettings, chief, read_results
from spectrovae.tuning.__main__ import main
from spectrovae.tuning.chief import TOKEN_VARIABLE, current_role, set_role

pytestmark = IGNORED_WARNINGS
TOKEN = "0123456789abcdef"


@pytest.fixture
def environment(monkeypatch):
    """The environment variables of many machines, unset, and put back afterwards."""
    for name in (*chief._ENVIRONMENT, TOKEN_VARIABLE):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture
def running_chief(environment, port, settings, tmp_path):
    """The port of a chief that waits for workers, the oracle that it serves, and how to stop it."""
    environment.setenv(TOKEN_VARIABLE, TOKEN)
    set_role("chief", port, None)
    sweep = Sweep(settings, tmp_path / "sweep", max_trials=2, verbose=0)
    thread = threading.Thread(target=sweep.search, daemon=True)
    thread.start()
    wait_for(lambda: can_connect(port))
    yield port, sweep, thread
    assert not thread.is_alive()


def can_connect(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", int(port))) == 0


def stub_of(port, *interceptors):
    channel = grpc.intercept_channel(grpc.insecure_channel(f"127.0.0.1:{port}"), *interceptors)
    return protos.get_service_grpc().OracleStub(channel)


def test_only_workers_with_the_token_are_let_in(running_chief, untrained, settings, tmp_path, environment):
    port, sweep, thread = running_chief
    service = protos.get_service()
    calls = {
        "GetSpace": service.GetSpaceRequest(),
        "CreateTrial": service.CreateTrialRequest(tuner_id="intruder"),
        "UpdateTrial": service.UpdateTrialRequest(trial_id="0", metrics={"val_loss": -1e9}),
        "EndTrial": service.EndTrialRequest(),
        "GetTrial": service.GetTrialRequest(trial_id="0"),
        "GetBestTrials": service.GetBestTrialsRequest(num_trials=1),
    }
    for interceptors in ((), (chief._TokenSender(""),), (chief._TokenSender(TOKEN + "0"),)):
        stub = stub_of(port, *interceptors)
        for name, request in calls.items():
            with pytest.raises(grpc.RpcError) as refusal:
                getattr(stub, name)(request, timeout=20)
            assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert not sweep.oracle.trials and not sweep.oracle.tuner_ids
    # A worker with another token is told so; one with the same completes the sweep.
    set_role("worker", port, "first")
    environment.setenv(TOKEN_VARIABLE, "another" + TOKEN)
    with pytest.raises(PermissionError, match="refused this worker"):
        Sweep(settings, tmp_path / "sweep", verbose=0).search()
    environment.setenv(TOKEN_VARIABLE, TOKEN)
    Sweep(settings, tmp_path / "sweep", verbose=0).search()
    thread.join(30)
    assert [trial.status for trial in read_results(tmp_path / "sweep").trials] == ["COMPLETED"] * 2
    assert len(untrained) == 2


def test_port_is_not_shared_and_on_loopback_only(environment, port, settings, tmp_path):
    environment.setenv(TOKEN_VARIABLE, TOKEN)
    set_role("chief", port, None)
    assert os.environ["KERASTUNER_ORACLE_IP"] == "127.0.0.1"
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", int(port)))
        other.listen()
        with pytest.raises(OSError, match="cannot listen"):
            Sweep(settings, tmp_path, verbose=0).search()
    set_role("chief", "10.1.2.3:8000", None)
    assert os.environ["KERASTUNER_ORACLE_IP"] == "10.1.2.3"


@pytest.mark.parametrize("token", [None, "", "short", "0123456789 abcdef", "0123456789abcdef\n", "ÄÖÜ0123456789abcdef"])
@pytest.mark.parametrize("role", [["chief"], ["worker", "--worker-id", "a"]])
def test_nothing_starts_without_a_token(token, role, environment, music, tmp_path, capsys):
    if token is not None:
        environment.setenv(TOKEN_VARIABLE, token)
    command = [str(music), "--output", str(tmp_path / "sweep"), *COMMAND, "--chief", "8000", "--role", *role]
    assert main(command) == 2
    assert TOKEN_VARIABLE in capsys.readouterr().err and not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--role", "chief"], "HOST:PORT"),
        (["--role", "chief", "--chief", "127.0.0.1"], "HOST:PORT"),
        (["--role", "chief", "--chief", "127.0.0.1:70000"], "1 to 65535"),
        (["--role", "chief", "--chief", "127.0.0.1:"], "1 to 65535"),
        (["--role", "chief", "--chief", "8000", "--worker-id", "a"], "leave out --worker-id"),
        (["--role", "worker", "--chief", "127.0.0.1:9"], "needs a name"),
        (["--role", "worker", "--chief", "9", "--worker-id", "../../evil"], "needs a name"),
        (["--role", "worker", "--chief", "9", "--worker-id", "oracle"], "without the words"),
        (["--role", "worker", "--chief", "9", "--worker-id", "a", "--overwrite"], "Only the chief"),
        (["--chief", "127.0.0.1:9"], "need --role"),
        (["--worker-id", "a"], "need --role"),
    ],
)
def test_roles_that_cannot_be_are_refused(extra, message, environment, music, tmp_path, capsys):
    environment.setenv(TOKEN_VARIABLE, TOKEN)
    assert main([str(music), "--output", str(tmp_path), *COMMAND, *extra]) == 2
    assert message in capsys.readouterr().err


def test_half_an_environment_is_refused(environment):
    environment.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with pytest.raises(ValueError, match="KERASTUNER_ORACLE_PORT"):
        current_role()
    environment.setenv("KERASTUNER_ORACLE_PORT", "8000")
    environment.setenv("KERASTUNER_TUNER_ID", "../evil")
    with pytest.raises(ValueError, match="needs a name"):
        current_role()


def test_worker_does_not_trust_the_number_of_a_trial(settings, tmp_path, untrained):
    sweep = Sweep(settings, tmp_path, max_trials=1, verbose=0)
    hp = keras_tuner.HyperParameters()
    SweepSettings.declare(settings, hp)
    trial = keras_tuner.engine.trial.Trial(hp, trial_id="0/../../../evil")
    with pytest.raises(keras_tuner.errors.FatalError, match="wrong number"):
        sweep.run_trial(trial)
    assert not untrained
