"""Child processes: those that tests start end with their test, and those that the package starts end with it."""

import json
import signal
import subprocess
import sys
import time

import pytest

SLEEPER = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(10**6)']"

# Run as files, as multiprocessing imports the main module in the child.
PARENTS = {
    # A process that reads the records of a damaged shard, and hangs there.
    "verify": """
import sys, time
from cache.integrity import _check_records_apart

class Reader:
    def record(self, sample):
        print("ready", flush=True)
        time.sleep(10**6)

if __name__ == "__main__":
    next(_check_records_apart(Reader(), [0]))
""",
    # A program of which the memory is measured.
    "bench, a program": """
from bench.workloads import run_program

run_program("import os, time; os.write(2, b'ready\\\\n'); time.sleep(10**6)")
""",
    # Another library's loader that never answers, with a process that it has started itself.
    "bench, another library": f"""
import os, sys, time
from contextlib import closing
from bench.peers.runner import Worker

program = '''
import subprocess, sys, threading, time
from bench.peers import child
child.CLOSING_SECONDS = 0.1
threading.Thread(target=child._end_with_parent).start()
{SLEEPER})
print("ready", file=sys.stderr, flush=True)
time.sleep(10**6)
'''
with closing(Worker([sys.executable, "-c", program], os.environ)) as worker:
    while not os.pread(worker._errors.fileno(), 6, 0).endswith(b"\\n"):
        time.sleep(0.01)
    print("ready", flush=True)
    time.sleep(10**6)
""",
}


@pytest.mark.parametrize("parent", PARENTS)
def test_what_a_command_starts_ends_with_it_even_if_it_is_killed(tmp_path, start_child, parent):
    file = tmp_path / "parent.py"
    file.write_text(PARENTS[parent])
    child = start_child([sys.executable, file], stderr=subprocess.STDOUT)
    assert child.stdout.readline() == "ready\n", child.communicate()
    assert len(child.family()) > 1
    child.kill()
    while child.family():
        time.sleep(0.01)
    assert not child.overdue


def test_a_child_has_default_signals_where_those_of_the_test_are_ignored_or_blocked(start_child):
    code = (
        "import json, signal\n"
        "numbers = signal.SIGINT, signal.SIGTERM\n"
        "blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())\n"
        "print(json.dumps([*(signal.getsignal(number) == signal.SIG_IGN for number in numbers), len(blocked)]))"
    )
    numbers = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        written, errors = start_child([sys.executable, "-c", code]).communicate()
        assert [signal.getsignal(number) for number in numbers] == 2 * [signal.SIG_IGN]
        assert set(numbers) <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    assert json.loads(written) == [False, False, 0], errors


def test_a_child_is_killed_with_what_it_has_started_in_other_sessions(start_child):
    child = start_child([sys.executable, "-c", f"{SLEEPER}, start_new_session=True)\nprint('started', flush=True)"])
    assert child.stdout.readline() == "started\n"
    child.wait()
    assert len(child.family()) == 1
    child.close()
    assert child.family() == []


def test_a_child_that_takes_too_long_fails_the_test_with_what_it_has_written(start_child):
    code = "import time; print('ready', flush=True); print('so far', flush=True); time.sleep(10**6)"
    child = start_child([sys.executable, "-c", code])
    assert child.stdout.readline() == "ready\n"
    child.expire()
    with pytest.raises(pytest.fail.Exception, match=r"^.* was killed because it took too long; it wrote:"):
        child.communicate()
