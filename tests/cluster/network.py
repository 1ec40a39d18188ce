"""A network namespace that holds a whole cluster: nothing in it can reach the world, or be reached from it."""

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from cluster.host import ClusterError, run
from cluster.processes import Identity

NODE_ADDRESS = "10.77.0.2"
NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000

T = TypeVar("T")


class NetworkNamespace:
    """A named network namespace, as ``ip netns`` knows it. Needs root."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = NAMESPACES / name

    def exists(self) -> bool:
        return self.path.exists()

    def create(self) -> None:
        """Make it, with loopback and one interface that carries the node's address and leads nowhere."""
        run(["ip", "netns", "add", self.name])
        inside = ["nsenter", f"--net={self.path}", "ip"]  # ip -n wants the root to be a mount, which a chroot is not
        run([*inside, "link", "set", "lo", "up"])
        # A bridge without ports: device types made for this, such as dummy, are not in every kernel.
        run([*inside, "link", "add", "eth0", "type", "bridge"])
        run([*inside, "addr", "add", f"{NODE_ADDRESS}/24", "dev", "eth0"])
        run([*inside, "link", "set", "eth0", "up"])
        run([*inside, "route", "add", "default", "dev", "eth0"])
        self.call(lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))

    def delete(self) -> None:
        """Remove its name; it ends with its last process. Nothing happens when it is not there."""
        if self.exists():
            run(["ip", "netns", "delete", self.name])
        # ip made the folder a mount point for its first namespace, and does so again when it is gone.
        if NAMESPACES.is_dir() and not any(NAMESPACES.iterdir()):
            with contextlib.suppress(ClusterError, OSError):  # somebody else's namespace comes into being just now
                run(["umount", NAMESPACES])
                NAMESPACES.rmdir()

    def inode(self) -> int | None:
        """What identifies it to the kernel, or None when it is not there."""
        try:
            return self.path.stat().st_ino
        except FileNotFoundError:
            return None

    def command(self, *words: str | Path) -> list[str]:
        """A command line that runs the given one inside."""
        return ["nsenter", f"--net={self.path}", "--", *map(str, words)]

    def foreign_processes(self) -> list[Identity]:
        """Processes in this network namespace that do not share our mount namespace: the cluster's own.

        A program that a person or a test runs in here, to reach the cluster, keeps the machine's mounts.
        """
        inode, found = self.inode(), []
        ours = Path("/proc/self/ns/mnt").stat().st_ino
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                inside = (folder / "ns/net").stat().st_ino == inode
                if inside and (folder / "ns/mnt").stat().st_ino != ours:
                    identity = Identity.of(int(folder.name))
                    found += [identity] if identity else []
        return found

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Move the calling thread, and the threads and processes it makes from then on, into the namespace.

        Threads that exist already stay where they are. Afterwards the thread is back where it was.
        """
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            target = self._open()
            try:
                _setns(target)
            finally:
                os.close(target)
            try:
                yield
            finally:
                _setns(before)
        finally:
            os.close(before)

    def call(self, function: Callable[[], T]) -> T:
        """What the function returns when it runs in the namespace, in a thread of its own; its errors pass through."""
        results: list[T] = []
        errors: list[BaseException] = []

        def inside() -> None:
            try:
                with self.enter():
                    results.append(function())
            except BaseException as error:  # handed over to the caller's thread
                errors.append(error)

        thread = threading.Thread(target=inside, name=f"in {self.name}")
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as missing:
            raise ClusterError(
                f"the network namespace {self.name} is not there; bring the cluster up first"
            ) from missing


def _setns(descriptor: int) -> None:
    """``os.setns`` came with Python 3.12; this is the C library's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise ClusterError(f"cannot enter the network namespace ({os.strerror(number)}); it takes root")
