"""A Python in which this package sees a Windows or macOS, as far as Linux can pretend that.

Modules and functions of the standard library that the system lacks are missing for the package, but not for the
libraries that it uses, which are of this system. On Windows, files cannot be replaced or removed while they are open,
and names that it forbids cannot be made. All processes that the package starts see the same.
"""

import builtins
import contextlib
import importlib
import mmap
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import ModuleType

# What macOS has of these.
MACOS_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
MACOS_LACKS = {
    *("memfd_create", "posix_fadvise", "posix_fallocate", "process_cpu_count", "sched_getaffinity"),
    *("sched_setaffinity", "O_DIRECT", "getresuid", "pipe2", "preadv2"),
}
MISSING_MODULES = {
    *(
        "crypt",
        "fcntl",
        "grp",
        "nis",
        "posix",
        "pty",
        "pwd",
        "readline",
        "resource",
        "spwd",
        "syslog",
        "termios",
        "tty",
    ),
}
MISSING = {
    "os": {
        *("chown", "confstr", "fchmod", "fchown", "fdatasync", "fork", "forkpty", "fstatvfs", "getegid", "geteuid"),
        *("getgid", "getgroups", "getloadavg", "getpgid", "getpriority", "getresuid", "getsid", "getuid", "killpg"),
        *("lchown", "memfd_create", "mkfifo", "mknod", "nice", "openpty", "pipe2", "posix_fadvise", "posix_fallocate"),
        *("posix_spawn", "pread", "preadv", "pwrite", "pwritev", "register_at_fork", "sched_getaffinity"),
        *("sched_setaffinity", "sched_yield", "sendfile", "setsid", "setuid", "statvfs", "sync", "sysconf", "uname"),
        *("wait", "wait3", "wait4", "WNOHANG", "O_CLOEXEC", "O_DIRECTORY", "O_DIRECT", "O_NOFOLLOW", "O_SYNC"),
    },
    "signal": {"SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGALRM", "SIGPIPE", "alarm", "pause"},
    "mmap": {
        "MADV_DONTNEED",
        "MADV_SEQUENTIAL",
        "MAP_ANONYMOUS",
        "MAP_PRIVATE",
        "MAP_SHARED",
        "PROT_READ",
        "PROT_WRITE",
    },
    "socket": {"AF_UNIX", "send_fds", "recv_fds"},
    "multiprocessing": {"fork"},
    "time": {"clock_gettime", "tzset"},
}
FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]|[ .]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)
TEMPORARY = Path(tempfile.gettempdir())


class _Seen(ModuleType):
    """A module of the standard library as the package sees it."""

    def __init__(self, module: ModuleType, **changed: object):
        super().__init__(module.__name__)
        self.__dict__.update(_module=module, _changed=changed, _missing=MISSING.get(module.__name__, set()))

    def __getattr__(self, name: str):
        if name in self._missing:
            raise AttributeError(f"there is no {self._module.__name__}.{name}")
        return self._changed[name] if name in self._changed else getattr(self._module, name)

    def __setattr__(self, name: str, value: object):
        setattr(self._module, name, value)


# What Windows has -----------------------------------------------------------------------------------------------------


def _popen(*arguments, pass_fds=(), **options):
    if pass_fds or options.keys() & {"preexec_fn", "start_new_session", "process_group", "user", "umask"}:
        raise ValueError("Windows gives no files to other processes")
    return subprocess.Popen(*arguments, **options)


def _share(connection: socket.socket, process: int) -> bytes:
    """Let another process take a connection once; the sender may close its own at once."""
    assert process != os.getpid()
    copy, place = connection.dup(), tempfile.mktemp(dir=TEMPORARY)
    server = socket.socket(socket.AF_UNIX)
    server.bind(place)
    server.listen()

    def give():
        with server, copy, server.accept()[0] as taker:
            socket.send_fds(taker, [b"."], [copy.fileno()])
        os.unlink(place)

    threading.Thread(target=give, daemon=True).start()
    return place.encode()


def _from_share(description: bytes) -> socket.socket:
    with socket.socket(socket.AF_UNIX) as taker:
        taker.connect(description.decode())
        return socket.socket(fileno=socket.recv_fds(taker, 1, 1)[1][0])


def _socketpair(*arguments) -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        return one, server.accept()[0]


class _Mmap(mmap.mmap):
    def __new__(cls, file, length, tagname=None, access=mmap.ACCESS_DEFAULT, offset=0):
        if tagname is None:
            return super().__new__(cls, file, length, access=access, offset=offset)
        assert file == -1
        with open(TEMPORARY / tagname, "a+b") as named:
            os.ftruncate(named.fileno(), length)
            return super().__new__(cls, named.fileno(), length)

    def madvise(self, *_):
        raise AttributeError("Windows has no madvise")


# Files ----------------------------------------------------------------------------------------------------------------


def _check_closed(path) -> None:
    """Refuse to move or remove a file that this process has open or mapped, or a folder with such a file."""
    path = os.path.realpath(path)
    with open("/proc/self/maps", encoding="utf-8") as maps:
        used = {line.rstrip("\n").split(None, 5)[-1] for line in maps}
    for file in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            used.add(os.readlink(f"/proc/self/fd/{file}"))
    for name in used:
        if name == path or name.startswith(path + os.sep):
            raise PermissionError(13, "The process cannot access the file because it is being used", name)


def _closed_first(function, *positions):
    def call(*arguments, **options):
        for position in positions:
            if not isinstance(arguments[position], int) and options.get("dir_fd") is None:
                _check_closed(arguments[position])
        return function(*arguments, **options)

    return call


def _check_name(event: str, arguments: tuple) -> None:
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+"):
        made = arguments[0]
    elif event in ("os.mkdir", "os.rename", "os.link"):
        made = arguments[event != "os.mkdir"]
    else:
        return
    if isinstance(made, (str, Path)) and FORBIDDEN.search(Path(made).name):
        raise OSError(22, "The filename, directory name, or volume label syntax is incorrect", str(made))


def pretend(macos: bool = False) -> None:
    """Let the package see a Windows or macOS from now on. It must not be imported yet."""
    if macos:
        MISSING["os"] = MACOS_LACKS
        mac = _Seen(platform, system=lambda: "Darwin", machine=lambda: "arm64", libc_ver=lambda: ("", ""))
        _hide(MISSING_MODULES - MACOS_MODULES, {"sys": _Seen(sys, platform="darwin"), "os": _Seen(os), "platform": mac})
        return
    for name in ("os.replace", "os.rename"):
        setattr(os, name.partition(".")[2], _closed_first(getattr(os, name.partition(".")[2]), 0, 1))
    for name in ("unlink", "remove", "rmdir"):
        setattr(os, name, _closed_first(getattr(os, name), 0))
    remove_tree = shutil.rmtree

    def rmtree(path, ignore_errors=False, **options):
        try:
            _check_closed(path)
        except PermissionError:
            if ignore_errors:
                return
            raise
        remove_tree(path, ignore_errors, **options)

    shutil.rmtree = rmtree
    sys.addaudithook(_check_name)
    # There, a connection is shared by its own method.
    socket.socket.share = _share
    seen = {
        "sys": _Seen(sys, platform="win32"),
        "os": _Seen(os, name="nt"),
        "platform": _Seen(platform, system=lambda: "Windows", libc_ver=lambda: ("", "")),
        "subprocess": _Seen(subprocess, Popen=_popen),
        "socket": _Seen(socket, fromshare=_from_share, socketpair=_socketpair),
        "mmap": _Seen(mmap, mmap=_Mmap),
    }
    for name in MISSING.keys() - seen.keys():
        seen[name] = _Seen(importlib.import_module(name))
    _hide(MISSING_MODULES, seen)


def _hide(modules: set[str], seen: dict[str, _Seen]) -> None:
    """Let the package import no such modules, and see others differently."""
    really_import = builtins.__import__

    def imports(name, globals=None, locals=None, fromlist=(), level=0):  # noqa: A002 (the names of __import__)
        if ((globals or {}).get("__name__") or "").partition(".")[0] == "dvlae" and level == 0:
            if name.partition(".")[0] in modules:
                raise ModuleNotFoundError(f"no module {name!r} there", name=name)
            if name in seen:
                return seen[name]
        return really_import(name, globals, locals, fromlist, level)

    builtins.__import__ = imports
