"""Runs `landcover batch` many times in real processes, without loading PyTorch each time.

Run as a program, this file loads the libraries once, then forks for each command. The command and its
workers are real processes that can be killed; the only difference is that workers are forked, not spawned.
Tests control the program through `Runner`.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass
class Batch:
    """A batch that is running or has run."""

    runner: "Runner"
    pid: int
    console: Path

    def wait(self) -> int:
        """Return the exit status, negative for a signal."""
        return self.runner.ask({"wait": self.pid})

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    @property
    def output(self) -> str:
        return self.console.read_text()


class Runner:
    """Starts the program and sends it commands, for tests."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._count = 0
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
        )

    def ask(self, request: dict) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, *arguments: object, environment: dict[str, str] | None = None, **tricks: object) -> Batch:
        """Start `landcover batch` with the arguments; `tricks` names functions in `TRICKS` to sabotage it."""
        self._count += 1
        console = self._folder / f"console-{self._count}.txt"
        request = {
            "arguments": ["batch", "--model", "eurosat-rgb-mobilenetv2", *map(str, arguments)],
            "console": str(console),
            "environment": environment or {},
            "tricks": tricks,
        }
        return Batch(self, self.ask(request), console)

    def run(self, *arguments: object, **options: object) -> tuple[int, str]:
        """Run `landcover batch` until it ends; returns the exit status and what it printed."""
        batch = self.start(*arguments, **options)  # type: ignore[arg-type]
        return batch.wait(), batch.output

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def poison() -> None:
    """Make scenes crash, kill, hang, stop or break their worker, depending on how their names start."""
    import pipeline.classify

    prepare = pipeline.classify.prepare_scene

    def prepare_or_die(path: str, *arguments: object) -> object:
        name = Path(path).name
        if name.startswith("crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if name.startswith("memory"):
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("hang"):
            time.sleep(1000)
        if name.startswith("stop"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if name.startswith("bug"):
            raise ZeroDivisionError("of all things")
        return prepare(path, *arguments)  # type: ignore[arg-type]

    pipeline.classify.prepare_scene = prepare_or_die  # type: ignore[assignment]


def die_at_start() -> None:
    """Make every worker die before it loads the model."""
    import pipeline.batch.worker_process

    pipeline.batch.worker_process.load_worker = lambda *_: os._exit(3)


def lose_first_device() -> None:
    """Break the first worker's device."""
    import pipeline.batch.worker_process

    load = pipeline.batch.worker_process.load_worker

    def load_or_fail(channel: object, setup: object, number: int) -> object:
        if number == 0:
            raise RuntimeError("no kernel image is available")
        return load(channel, setup, number)  # type: ignore[arg-type]

    pipeline.batch.worker_process.load_worker = load_or_fail  # type: ignore[assignment]


def lose_memory() -> None:
    """Make the device run out of memory for the first scene that is classified, but not after that."""
    import pipeline.classify
    from pipeline.errors import DeviceError

    compute = pipeline.classify.compute_map

    def compute_or_fail(prepared: object, *arguments: object) -> object:
        mark = Path(prepared.scene.path).with_name("taken")  # type: ignore[attr-defined]
        if not mark.exists():
            mark.touch()
            raise DeviceError("The memory of cpu doesn't hold the network and one tile.")
        return compute(prepared, *arguments)  # type: ignore[arg-type]

    pipeline.classify.compute_map = compute_or_fail  # type: ignore[assignment]


def keep_journals() -> None:
    """Save progress after each strip, so that scenes that take only a second are resumed too."""
    import pipeline.classify
    from pipeline.options import ClassifyOptions

    prepare = pipeline.classify.prepare_scene

    def with_journal(path: str, output: Path, predictor: object, options: ClassifyOptions) -> object:
        return prepare(path, output, predictor, replace(options, journal_after=0))  # type: ignore[arg-type]

    pipeline.classify.prepare_scene = with_journal  # type: ignore[assignment]


TRICKS = {f.__name__: f for f in (poison, die_at_start, lose_first_device, lose_memory, keep_journals)}


def become_batch(request: dict) -> None:
    """Run the command in this forked process, then exit."""
    import cli
    import pipeline.batch.processes

    console = os.open(request["console"], os.O_WRONLY | os.O_CREAT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(console, 1)
    os.dup2(console, 2)
    os.environ.update(request["environment"])
    pipeline.batch.processes._context = lambda: multiprocessing.get_context("fork")
    for trick in request["tricks"]:
        TRICKS[trick]()
    try:
        cli.main(request["arguments"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """Fork for each command and print its process id; print its exit status when asked to wait."""
    sys.path.insert(0, str(ROOT))
    from pipeline.batch.processes import PRELOADED

    for module in ("pipeline.commands.batch", *PRELOADED):
        import_module(module)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                become_batch(request)
        print(answer, flush=True)
    os._exit(0)  # an orderly exit with these libraries takes seconds


if __name__ == "__main__":
    main()
