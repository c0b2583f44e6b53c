"""Processes: a forked child has none of its parent's threads, and sets go where processes go."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import run, run_file

FORKED = """
import gc, os, sys, threading, time, warnings
from support import *

warnings.simplefilter("ignore")

def in_child(work):
    \"\"\"The exit code of a forked child that does `work`; it gives it 10 s.\"\"\"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = work() or 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush(); sys.stderr.flush()
            os._exit(code)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "hung"

def loading(**options):
    return diver.DataLoader(DIGITS, batch_size=5, format="numpy", **options)
"""


def forked(program: str) -> str:
    code, out, err = run(FORKED + program)
    assert (code, err) == (0, ""), err
    return out


def test_a_child_is_told_what_to_do() -> None:
    out = forked("""
loader = loading()
batches = iter(loader)
next(batches)
state = loader.state_dict()

def child():
    for use in (
        lambda: next(batches), lambda: iter(loader), loader.state_dict, lambda: loader.load_state_dict(state),
        lambda: loader.set_epoch(1), loader.stats,
    ):
        try:
            use()
        except diver.errors.ClosedError as error:
            assert str(os.getpid()) in str(error) and "make a loader there" in str(error), error
        else:
            return 2
    assert len(loader) == 2 and loader.batch_size == 5 and "10 samples" in repr(loader)

print(in_child(child))
print(next(batches).indices.tolist(), len(list(loader)))
""")
    assert out == "0\n[5, 6, 7, 8, 9] 2\n"


@pytest.mark.parametrize(
    "end", ["loader.close()", "del loader, batches; gc.collect()", "loader.__exit__()", "pass"]
)
def test_a_child_may_drop_its_parents_loader(end: str) -> None:
    out = forked(f"""
loader = loading(refiner=invert)
batches = iter(loader)
kept = next(batches)
expected = kept.images.copy()

def child():
    global loader, batches
    began = time.monotonic()
    {end}
    assert (kept.images == expected).all(), "tensors are the child's as well"
    assert time.monotonic() - began < 1

print(in_child(child))
print(next(batches).indices.tolist(), threads() != [])
loader.close()
""")
    assert out == "0\n[5, 6, 7, 8, 9] True\n"


def test_a_child_may_drop_its_parents_loader_with_a_teacher() -> None:
    out = forked("""
def teacher(images):
    return np.zeros((len(images), 10))

loader = loading(labels=diver.labels.teacher(teacher))
batches = iter(loader)
next(batches)

def child():
    global loader, batches
    del loader, batches
    gc.collect()
    with loading(labels=diver.labels.teacher(teacher)) as own:
        assert len(list(own)) == 2

print(in_child(child))
print(next(batches).indices.tolist(), "diver-teach" in threads())
loader.close()
""")
    assert out == "0\n[5, 6, 7, 8, 9] True\n"


def test_a_child_may_end_as_programs_end() -> None:
    """With `sys.exit`, which runs the exit handlers."""
    out = forked("""
loader = loading()
next(iter(loader))
child = os.fork()
if child == 0:
    sys.exit(7)
deadline = time.monotonic() + 10
while time.monotonic() < deadline:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        print(os.waitstatus_to_exitcode(status))
        break
    time.sleep(0.01)
else:
    os.kill(child, 9)
print(len(list(loader)))
""")
    assert out == "7\n2\n"


def test_a_child_makes_loaders_of_its_own() -> None:
    out = forked("""
loader = loading(refiner=invert)
expected = [plain(batch) for batch in loader]

def child():
    with diver.DataLoader(loader.source, batch_size=5, format="numpy", refiner=invert) as own:
        assert [plain(batch) for batch in own] == expected
    with loading(refiner=invert) as own:
        assert [plain(batch) for batch in own] == expected
    assert eventually(lambda: not threads())

print(in_child(child), in_child(child))
print([plain(batch) for batch in loader] == expected)
""")
    assert out == "0 0\nTrue\n"


def test_a_fork_in_the_middle_of_a_wait_does_no_harm() -> None:
    """The parent's locks may be held by threads that the child does not have."""
    out = forked("""
def slow(images):
    time.sleep(0.002)
    return invert(images)

slow.preferred_batch = 1
loader = loading(refiner=slow, mix=0.9)
stop = threading.Event()

def read():
    while not stop.is_set():
        list(loader)

reading = threading.Thread(target=read)
reading.start()

def child():
    try:
        iter(loader)
    except diver.errors.ClosedError:
        loader.close()
        with loading() as own:
            return 0 if len(list(own)) == 2 else 2
    return 3

print({in_child(child) for _ in range(10)})
stop.set()
reading.join()
""")
    assert out == "{0}\n"


MULTIPROCESSING = """
import multiprocessing, sys, warnings
from support import *

def first(source, indices):
    with diver.DataLoader(source, batch_size=5, format="numpy") as loader:
        return [plain(batch) for batch in loader], [source.sample(index).digest for index in indices]

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    source = diver.open(DIGITS, num_classes=12)
    expected = first(source, [0, 5])
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        print([answer == expected for answer in pool.starmap(first, [(source, [0, 5])] * 3)])
        print(pool.apply(repr, (source,)) == repr(source))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_set_goes_to_other_processes(method: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"  # New processes read it again.
    program.write_text(MULTIPROCESSING)
    ended = run_file(program, method)
    assert ended == (0, "[True, True, True]\nTrue\n", "")


def test_errors_come_back_from_other_processes() -> None:
    code, out, err = run("""
import multiprocessing, warnings
from support import *

warnings.simplefilter("ignore")
with multiprocessing.get_context("fork").Pool(1) as pool:
    for path in ("/no/such/set", "README.md"):
        try:
            pool.apply(diver.open, (path,))
        except diver.DiverError as error:
            print(type(error).__name__, str(error).split(":")[0], getattr(error, "errno", None))
""")
    assert (code, err) == (0, "")
    assert out == "MissingFileError /no/such/set 2\nDataError README.md None\n"


def test_a_set_is_a_dataset_of_torch() -> None:
    code, out, err = run(
        """
import warnings
import torch
from support import *

warnings.simplefilter("ignore")
source = diver.open(DIGITS)

loader = torch.utils.data.DataLoader(source, batch_size=5, num_workers=2)
for _ in range(2):
    batches = list(loader)
    print([labels.tolist() for _, labels in batches])
with diver.DataLoader(source, batch_size=5) as own:
    print(all(torch.equal(a[0], b[0]) for a, b in zip(batches, own)))
""",
        timeout=60,
    )
    assert (code, err) == (0, "")
    whole = "[[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]"
    assert out.splitlines() == [whole, whole, "True"]
