"""moto's AWS in a separate process, with isolation between tests.

    server = MotoServer.start()
    ...                        # create, at `server.endpoint`, what every test needs
    server.keep()
    server.begin()             # before each test: restore the state at `keep`

The process forks for each test, which takes milliseconds. The fork serves the test and is killed when the next test
begins, together with its running executions and jobs.
"""

import gc
import logging
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from threading import Thread


@dataclass
class MotoServer:
    endpoint: str
    _process: subprocess.Popen[str]

    @classmethod
    def start(cls) -> "MotoServer":
        process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        return cls(process.stdout.readline().strip(), process)

    def keep(self) -> None:
        """Make the current state the initial state of each test. To be called once."""
        self._command("keep")

    def begin(self) -> None:
        """Discard everything that was created, changed or started since the last call."""
        self._command("begin")

    def stop(self) -> None:
        self._process.communicate()

    def _command(self, command: str) -> None:
        assert self._process.stdin
        assert self._process.stdout
        print(command, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline().strip()
        assert answer == command, f"moto's server ended at {command!r}"


def serve() -> None:
    """Execute commands from standard input until its end."""
    gc.disable()  # imports create little garbage, and forks are short-lived
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"  # thousands, which the tests do not use
    from moto.core.config import default_user_config
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    from local.emulator.patches import patch_common

    patch_common()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs every request
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    default_user_config["batch"] = {"use_docker": False}  # a job succeeds at once
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    os.environ["MOTO_PORT"] = str(port)  # the address at which its state machines call other services
    app = DomainDispatcherApplication(create_backend_app)
    # Without threads and open connections, which do not survive a fork.
    plain = make_server(host, port, app, request_handler=MotoRequestHandler, fd=listener.fileno())
    print(f"http://127.0.0.1:{port}", flush=True)
    thread = Thread(target=plain.serve_forever)
    thread.start()
    keep = sys.stdin.readline()
    plain.shutdown()
    thread.join()
    print(keep, end="", flush=True)
    child = 0
    for command in sys.stdin:
        _kill(child)
        child = os.fork()
        if not child:
            server = make_server(host, port, app, True, request_handler=MotoRequestHandler, fd=listener.fileno())
            server.serve_forever()
        print(command, end="", flush=True)
    _kill(child)
    os._exit(0)  # a normal exit would garbage-collect all of moto's objects


def _kill(child: int) -> None:
    if child:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    serve()
