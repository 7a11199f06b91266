"""A sweep over several machines: a chief hands out the trials, and workers run them.

Chief and workers show one another nothing but a shared token, the environment variable `SPECTROVAE_SWEEP_TOKEN`. The
connection is not encrypted.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import hmac
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_chief
from keras_tuner.src.distribute import utils as distribute_utils

if TYPE_CHECKING:
    from keras_tuner.src.distribute.oracle_client import OracleClient

    from spectrovae.tuning.oracles import DurableOracle

TOKEN_VARIABLE = "SPECTROVAE_SWEEP_TOKEN"
"""The environment variable with the token that chief and workers share."""

_HEADER = "spectrovae-sweep-token"
_MIN_TOKEN_LENGTH = 16
_RECONNECT_SECONDS = 3600.0
_HEARTBEAT_SECONDS = 2.0
# What KerasTuner reads to learn its role.
_ENVIRONMENT = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


def set_role(role: str, chief: str | None, worker_id: str | None) -> None:
    """Set the environment variables from which KerasTuner learns the role of this process.

    Args:
        role: `"single"`, `"chief"` or `"worker"`. With `"single"`, variables that are already set decide.
        chief: Address of the chief, `HOST:PORT`, or `PORT` on this machine.
        worker_id: Name of a worker, different for each.

    Raises:
        ValueError: If an argument is missing, wrong or of no use.

    Example:
        >>> set_role("worker", "127.0.0.1", "first")
        Traceback (most recent call last):
        ValueError: The chief's address must be HOST:PORT or PORT, with a port from 1 to 65535. Received: '127.0.0.1'
    """
    if role == "single":
        if chief is not None or worker_id is not None:
            raise ValueError(
                f"--chief and --worker-id need --role chief or --role worker. Received: chief={chief!r}, "
                f"worker_id={worker_id!r}"
            )
        return
    host, _, port = (chief or "").rpartition(":")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535 and (host or chief in (port, f":{port}"))):
        raise ValueError(
            f"The chief's address must be HOST:PORT or PORT, with a port from 1 to 65535. Received: {chief!r}"
        )
    if role == "chief" and worker_id is not None:
        raise ValueError(f"The chief has no name: leave out --worker-id. Received: worker_id={worker_id!r}")
    tuner_id = "chief" if role == "chief" else _checked_worker_id(worker_id)
    os.environ.update(zip(_ENVIRONMENT, (tuner_id, host or "127.0.0.1", port), strict=True))


def current_role() -> str:
    """Return `"chief"`, `"worker"` or `"single"`, as KerasTuner's environment variables say.

    Raises:
        ValueError: If only some of the variables are set, or a worker has a name that cannot be used.
    """
    try:
        if not distribute_utils.has_chief_oracle():
            return "single"
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    if distribute_utils.is_chief_oracle():
        return "chief"
    _checked_worker_id(os.environ[_ENVIRONMENT[0]])
    return "worker"


def _checked_worker_id(worker_id: str | None) -> str:
    # It becomes the name of a file beside KerasTuner's oracle.json.
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", worker_id or "") or re.search("chief|oracle", str(worker_id)):
        raise ValueError(
            "A worker needs a name of its own, of letters, digits, dots and dashes, without the words chief and "
            f"oracle. Received: worker_id={worker_id!r}"
        )
    return str(worker_id)


def shared_token() -> str:
    """Return the token that chief and workers share.

    Raises:
        ValueError: If it is not set, too short, or holds anything but printable ASCII characters.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    if len(token) < _MIN_TOKEN_LENGTH or not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError(
            f"Chief and workers need a shared token: set the environment variable {TOKEN_VARIABLE} to the same "
            f"{_MIN_TOKEN_LENGTH} or more letters and digits on each machine. One can be made with: "
            'python -c "import secrets; print(secrets.token_hex())"'
        )
    return token


def serve(oracle: DurableOracle, report: Callable[[], Any] | None = None) -> None:
    """Be the chief: hand out trials until all have ended and every worker knows.

    Args:
        oracle: The search algorithm.
        report: Called soon after a trial has ended.

    Raises:
        OSError: If the address cannot be used.
        ValueError: If there is no shared token.
    """
    address = _address()
    # Without this option, Linux lets two chiefs listen at the same port.
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=1),
        interceptors=(_TokenCheck(shared_token()),),
        options=(("grpc.so_reuseport", 0),),
    )
    servicer = oracle_chief.OracleServicer(oracle)
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError:
        bound = 0
    if not bound:
        raise OSError(f"The chief cannot listen at {address}: is another one running, or is the host not this one?")
    server.start()
    try:
        stopped_at = None
        num_ended = len(oracle.end_order)
        while True:
            time.sleep(0.2)
            if report is not None and len(oracle.end_order) > num_ended:
                num_ended = len(oracle.end_order)
                report()
            if servicer.stop_triggered and not oracle.ongoing_trials:
                stopped_at = stopped_at or time.monotonic()
                # Idle workers ask every second; those that do not are gone.
                if not oracle.tuner_ids or time.monotonic() - stopped_at > oracle.worker_timeout:
                    return
    finally:
        server.stop(grace=1).wait()


def connect(client: OracleClient) -> None:
    """Let a worker's client send the shared token, and wait for a chief that is being started again.

    Args:
        client: KerasTuner's client, which has not asked anything yet.

    Raises:
        ValueError: If there is no shared token.
    """
    channel = grpc.intercept_channel(grpc.insecure_channel(_address()), _TokenSender(shared_token()))
    client.stub = protos.get_service_grpc().OracleStub(channel)
    for name in ("create_trial", "update_trial", "end_trial", "get_space", "update_space", "get_trial"):
        setattr(client, name, _retry_until_chief_answers(getattr(client, name)))


@contextlib.contextmanager
def heartbeat(client: OracleClient, trial_id: str) -> Iterator[None]:
    """Tell the chief, within the block, that a trial is alive.

    Args:
        client: The worker's client.
        trial_id: The trial that it runs.
    """
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(_HEARTBEAT_SECONDS):
            with contextlib.suppress(grpc.RpcError, PermissionError):
                client.get_trial(trial_id)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _address() -> str:
    return ":".join(os.environ[name] for name in _ENVIRONMENT[1:])


def _retry_until_chief_answers(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def call_until_answered(*args: Any, **kwargs: Any) -> Any:
        end = time.monotonic() + _RECONNECT_SECONDS
        while True:
            try:
                return call(*args, **kwargs)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                    raise PermissionError(f"The chief at {_address()} refused this worker: {error.details()}") from None
                # The chief was killed while it answered.
                if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                    raise
                time.sleep(1)

    return call_until_answered


class _TokenCheck(grpc.ServerInterceptor):
    """Refuse calls without the shared token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._refusal = grpc.unary_unary_rpc_method_handler(self._refuse)

    def intercept_service(self, continuation: Callable, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call: KerasTuner's, or the refusal."""
        received = dict(handler_call_details.invocation_metadata).get(_HEADER, "")
        is_known = hmac.compare_digest(str(received).encode(), self._token)
        return continuation(handler_call_details) if is_known else self._refusal

    def _refuse(self, request: Any, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, f"{TOKEN_VARIABLE} is not that of the chief.")


class _CallDetails(
    collections.namedtuple(
        "_CallDetails", ("method", "timeout", "metadata", "credentials", "wait_for_ready", "compression")
    ),
    grpc.ClientCallDetails,
):
    """A call with other metadata; gRPC asks for these fields and has no class with a constructor."""


class _TokenSender(grpc.UnaryUnaryClientInterceptor):
    """Send the shared token with each call."""

    def __init__(self, token: str) -> None:
        self._token = token

    def intercept_unary_unary(self, continuation: Callable, details: grpc.ClientCallDetails, request: Any) -> Any:
        """Make the call with the token in its metadata."""
        metadata = [*(details.metadata or ()), (_HEADER, self._token)]
        fields = (details.timeout, metadata, details.credentials, details.wait_for_ready, details.compression)
        return continuation(_CallDetails(details.method, *fields), request)
