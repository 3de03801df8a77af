"""How a test shows that nothing asks for the network."""

import socket

import pytest


def cut_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whoever asks for the network fail the test; a refusal alone could be swallowed."""

    def refuse(*_args: object, **_options: object) -> None:
        pytest.fail("something asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
