"""What memory is left is what the tightest of the groups around a process has left."""

import os

import pytest

from dlworkshop.train.memory import available

GIB = 2**30


def system(root, files):
    for name, text in {"proc/meminfo": "MemAvailable: 9437184 kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(text))
    return root


V2 = {"proc/self/cgroup": "0::/job/step/task\n", "sys/fs/cgroup/cgroup.controllers": ""}
V1 = {"proc/self/cgroup": "5:cpu:/\n4:hugetlb,memory:/job/step\n0::/\n"}


def group(path, limit, used, inactive=0):
    return {
        f"sys/fs/cgroup/{path}memory.max": limit,
        f"sys/fs/cgroup/{path}memory.current": used,
        f"sys/fs/cgroup/{path}memory.stat": f"anon 5\ninactive_file {inactive}\n",
    }


def group_1(path, limit, used, inactive=0):
    return {
        f"sys/fs/cgroup/memory/{path}memory.limit_in_bytes": limit,
        f"sys/fs/cgroup/memory/{path}memory.usage_in_bytes": used,
        f"sys/fs/cgroup/memory/{path}memory.stat": (
            f"inactive_file 7\ntotal_inactive_file {inactive}\n"
        ),
    }


@pytest.mark.parametrize(
    "files, gib",
    [
        ({}, 9),
        (V2, 9),
        ({**V2, **group("job/step/task/", "max", GIB)}, 9),
        ({**V2, **group("job/step/task/", 4 * GIB, GIB)}, 3),
        # the limit is that of a group further out, and others in it use it too
        (
            {
                **V2,
                **group("job/step/task/", "max", GIB),
                **group("job/", 8 * GIB, 6 * GIB),
            },
            2,
        ),
        (
            {
                **V2,
                **group("job/step/task/", 2 * GIB, GIB),
                **group("job/step/", 8 * GIB, 6 * GIB),
            },
            1,
        ),
        ({**V2, **group("job/", 8 * GIB, 7 * GIB, 3 * GIB)}, 4),  # files may go
        ({**V2, **group("job/", 4 * GIB, 5 * GIB)}, 0),
        ({**V2, **group("", 5 * GIB, GIB)}, 4),  # a container's own, seen as the root
        ({**V2, **group("other/", GIB, GIB)}, 9),  # not around this process
        ({**V2, **group("job/", 20 * GIB, GIB)}, 9),
        (V1, 9),
        ({**V1, **group_1("job/step/", 4 * GIB, GIB)}, 3),
        ({**V1, **group_1("job/", 4 * GIB, 3 * GIB, GIB)}, 2),
        ({**V1, **group_1("", 9223372036854771712, GIB)}, 9),
        ({**V1, **group_1("", 6 * GIB, GIB)}, 5),
        ({**V2, **group("job/", "nonsense", GIB)}, 9),
    ],
)
def test_the_tightest_group_counts(tmp_path, files, gib):
    assert available(system(tmp_path, files)) == gib * GIB


def test_a_system_that_does_not_tell_has_its_whole_memory(tmp_path):
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert available(tmp_path) == pages


def test_this_system_tells():
    assert 2**20 < available() < 2**50
