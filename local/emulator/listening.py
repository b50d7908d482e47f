"""The socket of the embedded AWS, in a module without moto: a port in use is reported before moto is loaded."""

import errno
import socket

HOST = "127.0.0.1"


class EmbeddedAwsError(Exception):
    """The embedded AWS cannot start; the message is one sentence for a person."""


def listen(port: int = 0) -> socket.socket:
    """Listen on a port of the loopback, by default a free one.

    Raises:
        EmbeddedAwsError: if the port is in use or not allowed.
    """
    try:
        return socket.create_server((HOST, port), backlog=512)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise EmbeddedAwsError(f"port {port} of {HOST} is in use: choose another, or stop what uses it") from error
        raise EmbeddedAwsError(f"port {port} of {HOST} cannot be used: {error.strerror}") from error
