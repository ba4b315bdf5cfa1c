"""The command ``dvlae`` without the seconds in which it imports its libraries, for tests of the workflow.

A server imports them once, and forks for each call. The command is a script that hands it the arguments, environment
and open files.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

# Standard input, output and error, and the screen beside them (`DVLAE_SCREEN`).
FILES = (0, 1, 2, 3)
# What the steps import.
LIBRARIES = (
    "dvlae.training.train",
    "dvlae.inference.prediction",
    "dvlae.methods.run",
    "dvlae.evaluation.evaluate",
    "dvlae.reporting.diagnosis",
    "dvlae.reporting.figures",
    "dvlae.reporting.tables",
    "matplotlib.backends.backend_svg",
)
COMMAND = """#!{python} -IS
import json, os, socket, sys

def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True

with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"."], [number if is_open(number) else 2 for number in {files}])
    server.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    status = server.recv(1)
sys.exit(status[0] if status else 1)
"""


@contextmanager
def forked_command(folder: Path) -> Iterator[dict[str, str]]:
    """Put the command into an empty folder; yield the environment in which it is found, while the server runs."""
    address, command = folder / "socket", folder / "dvlae"
    command.write_text(COMMAND.format(python=sys.executable, address=str(address), files=FILES))
    command.chmod(0o755)
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    start = [sys.executable, __file__, str(address)]
    pipe = subprocess.PIPE
    with subprocess.Popen(start, stdin=pipe, stdout=pipe, env=os.environ | one_thread) as server:
        assert server.stdout.readline() == b"ready\n"
        try:
            yield {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        finally:
            server.stdin.close()


def serve(address: str) -> None:
    """Run the command for each connection, in a process of its own."""
    for library in LIBRARIES:
        import_module(library)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # The system buries the processes that have ended.
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        print("ready", flush=True)
        # Standard input ends with the process that started this one.
        while listening in select.select([listening, sys.stdin], [], [])[0]:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _run(connection)
            connection.close()


def _run(connection: socket.socket) -> None:
    """Run the command as the caller asked, send its exit status, and end this process."""
    from dvlae import cli

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(connection, 1, len(FILES))
    request = bytearray()
    while part := connection.recv(2**16):
        request += part
    arguments, folder, environment = json.loads(request)
    for file, number in zip(files, FILES, strict=True):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["dvlae", *arguments]
    status = 1
    try:
        status = cli.main(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([status]))
    os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
