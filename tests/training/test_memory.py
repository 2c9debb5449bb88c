"""Memory of one batch stays for the next."""

import resource
import subprocess
import sys

import pytest

from vidette.training.memory import keep_freed_memory

_PROGRAM = """
import resource, sys
from vidette.training.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else True
for number in range(11):
    if number == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * (100 * 2**20)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how, **environment):
    command = [sys.executable, "-c", _PROGRAM, how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    kept, number = done.stdout.split()
    return kept == "True", int(number) * resource.getpagesize()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is on Linux")
def test_pages_are_not_fetched_again():
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc, or MALLOC_ variables are set")
    assert faults("leave")[1] > 500 * 2**20, "ten times 100 MiB come anew"
    assert faults("keep") == (True, pytest.approx(0, abs=20 * 2**20))


def test_the_users_own_limits_stand():
    assert faults("keep", MALLOC_TRIM_THRESHOLD_="100000")[0] is False
