"""Process chores: errors a user can act on, seeding, device choice, atomic files."""

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

import numpy as np
import torch
from tqdm import tqdm

UMASK = os.umask(0)  # asking means setting, which is not for threads
os.umask(UMASK)
UNFINISHED = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}(?P<old>\.old)?")  # tempfile's names
OUT_OF_MEMORY = ("MemoryError", "out of memory", "can't allocate memory", "Insufficient memory")
Item = TypeVar("Item")
Result = TypeVar("Result")


class UserError(Exception):
    """Something the user can put right. The message is one line: the thing, then the way out.

    `advice` are lines that go before it, where the way out is long.

    A data-loader worker hands its exceptions on with the whole traceback as their message, so
    only the last line counts.
    """

    def __init__(self, message: str, advice: str = ""):
        super().__init__(message)
        self.advice = advice

    def __str__(self) -> str:
        lines = super().__str__().strip().splitlines() or ["unknown error"]
        return lines[-1].removeprefix(f"{__name__}.UserError: ")


class OneLineParser(argparse.ArgumentParser):
    """A parser that says what is wrong with the command line in one line, exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (-h lists the flags)\n")


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; a user's mistake ends in one line on stderr and exit status 2."""
    try:
        main()
    except UserError as error:
        message = str(error)
        if error.advice:
            print(error.advice, file=sys.stderr)
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        lines = str(error).strip().splitlines() or [type(error).__name__]  # a worker's: traceback
        message = what + (error.strerror or lines[-1])
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        message = "memory ran out: try smaller batches or images, or fewer workers"
    else:
        return
    print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
    sys.exit(2)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: Python's, torch's on CPU or GPU, OpenCV's; here or in a worker."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (CPU and CUDA)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def pick_device(no_cuda: bool = False, mps: bool = False) -> torch.device:
    """CUDA where there is one and it is wanted, or Apple's GPU where it will do, else the CPU."""
    if torch.cuda.is_available() and not no_cuda:
        return torch.device("cuda")
    wanted = mps and not no_cuda and torch.backends.mps.is_available()
    return torch.device("mps" if wanted else "cpu")


def count_workers(asked: int = -1, processes: int = 1) -> int:
    """Loader processes: as many as asked for, or for -1 one per usable core, twelve at most.

    The cores are shared by the `processes` of this machine that each have such workers. More
    workers than cores get a warning.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    if asked < 0:
        return max(min(cores // processes, 12), 1)
    if asked * processes > cores:
        print(f"WARNING: {asked * processes} loader workers for {cores} cores: slower than fewer")
    return asked


def in_parallel(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    unit: str,
    stopping: threading.Event | None = None,
) -> list[Result]:
    """`function` of every item, in their order, by threads and with a progress bar.

    Threads suit work that reads, decodes and writes files. The first error ends it: what runs is
    finished, what waits is dropped. `stopping` is set then, for functions that look at it.
    """
    bar = tqdm(total=len(items), unit=unit, dynamic_ncols=True)
    with bar, ThreadPoolExecutor(max(count_workers(workers), 1)) as pool:
        try:
            futures = [pool.submit(function, item) for item in items]
            for future in as_completed(futures):
                future.result()
                bar.update()
        except BaseException:
            if stopping is not None:
                stopping.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


def ahead(items: Iterable[Item], count: int) -> Iterator[Item]:
    """The items, which a thread asks for up to `count` ahead of whoever takes them.

    Their own errors come where the item would have come.
    """
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, iterator, end) for _ in range(count))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, iterator, end))
                yield item
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class NotedSignals:
    """The signal that asked this process to stop, if one did."""

    received: int | None = None


@contextlib.contextmanager
def noted_signals() -> Iterator[NotedSignals]:
    """In the block, SIGTERM and SIGINT are noted instead of obeyed; the second one is obeyed.

    Only a main thread can have it so; in others they act as ever. One that was ignored before, as
    SIGINT is in a shell script's background, stays ignored.
    """
    noted = NotedSignals()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = {which: signal.getsignal(which) for which in (signal.SIGTERM, signal.SIGINT)}
    before = {which: handler for which, handler in before.items() if handler != signal.SIG_IGN}

    def restore() -> None:
        for which, handler in before.items():
            signal.signal(which, handler)

    def note(which: int, frame: Any) -> None:
        noted.received = which
        restore()

    for which in before:
        signal.signal(which, note)
    try:
        yield noted
    finally:
        restore()


def leave_interrupts_to_others(worker: int = 0) -> None:
    """For loader processes: Ctrl-C, which reaches them too, is their trainer's to deal with."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Stopwatch:
    """Seconds since its making, split among the named occupations."""

    def __init__(self, *names: str):
        self.seconds = dict.fromkeys(names, 0.0)
        self._last = time.perf_counter()

    def ended(self, name: str) -> None:
        """What was done since the last call is over."""
        now = time.perf_counter()
        self.seconds[name] += now - self._last
        self._last = now

    def __str__(self) -> str:
        """Total and parts, as 12.3 s: 10.1 s this, 2.2 s that."""
        parts = ", ".join(f"{seconds:.1f} s {name}" for name, seconds in self.seconds.items())
        return f"{sum(self.seconds.values()):.1f} s: {parts}"


def readable_size(size: int) -> str:
    """A number of bytes as people read it: 4.2 MB."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.1f} {unit}" if value < 10 and unit != "B" else f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB" if value < 10 else f"{value:.0f} GB"


def read_lines(path: Path, what: str, way_out: str) -> list[str]:
    """Lines of a text file that a user gave.

    Raises:
        UserError: missing or not UTF-8, named as `what` with the way out.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such {what}; {way_out}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: this {what} is not a text file; {way_out}") from None


def demand_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before hours are spent on its content.

    Raises:
        UserError: it is a folder, or its folder cannot be made or written to.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a file")
    parent = next(p for p in path.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"{path}: cannot be written, {parent} is not a folder open to you")


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "wb") -> Iterator[IO]:
    """Open a file that appears under `path` only when the block ends well.

    The bytes go to a temporary file in the same folder (made if missing), which is renamed at the
    end; on an error it is removed and an older `path` stays as it was.
    """
    path = Path(path)
    demand_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~UMASK)
        os.replace(name, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        if isinstance(error, OSError) and error.errno and error.filename in (None, name):
            error.filename = str(path)  # a full disk, say: name the file the user knows
        raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `path` only when the block ends well."""
    demand_writable(path / "any")
    path.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield new
        new.chmod(0o777 & ~UMASK)
        if path.exists():  # folders cannot replace each other in one go
            old = new.with_name(f"{new.name}.old")
            path.rename(old)
            new.rename(path)
            shutil.rmtree(old)
        else:
            new.rename(path)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove what `atomic_write` and `atomic_folder` of a killed process left in a folder.

    A folder that was about to be replaced gets its name back. For folders of one's own only: it
    would take files from under another process that writes there.
    """
    left = [(path, UNFINISHED.fullmatch(path.name)) for path in folder.glob(".*")]
    for path, match in left:
        if match is None:
            continue
        if match["old"] and not (folder / match["name"]).exists():
            path.rename(folder / match["name"])
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
