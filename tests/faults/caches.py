"""Caches that are damaged, or filled by eight runs at once: the same bits, and warm."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from dlworkshop.train.cache import Programs
from tests import conftest

AT_ONCE = 8


def use(home: Path) -> Callable[[], None]:
    return lambda: os.environ.update(XDG_CACHE_HOME=str(home))


def kept(home: Path) -> dict[str, tuple[int, bytes]]:
    """What lies in a cache, and since when."""
    files = (path for path in home.rglob("*") if path.is_file())
    return {
        str(path.relative_to(home)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in files
    }


def programs(
    tally: Any, forks: Any, rng: random.Random, tries: Iterator[int], damages: Any
) -> None:
    """Compiled programs that are damaged, or exchanged: each is compiled anew."""
    home, folder = forks.scratch / "programs", forks.scratch / "run"
    code, said = forks.run(folder, before=use(home))
    place = home / "dlworkshop" / "programs"
    for _ in tries:
        forks.remove(folder)
        files = sorted(place.glob("*-cache"))
        how = rng.choice([*damages, "exchanged"])
        some = rng.sample(files, rng.randint(1, len(files)))
        contents = [file.read_bytes() for file in some]
        for file, content in zip(some, contents[1:] + contents[:1], strict=True):
            if how == "exchanged":
                file.write_bytes(content)
            else:
                damages[how](file, rng)
        code, said = forks.run(folder, before=use(home))
        whole = Programs(place)
        if code:
            tally.wrong(f"{how}: left with {code}", said)
        elif "persistent" in said or "Traceback" in said:
            tally.wrong(f"{how}: it was told of", said)
        elif differ := forks.differing(folder):
            tally.wrong(f"{how}: other bits", f"{differ}")
        elif not all(whole.get(file.name.removesuffix("-cache")) for file in files):
            tally.wrong(f"{how}: not replaced", f"{some}")
        else:
            tally.good(f"{how}: replaced, and the same bits")


def together(tally: Any, forks: Any, rng: random.Random, tries: Iterator[int]) -> None:
    """Runs at once on cold caches of data, features, programs and choices."""
    del rng
    photos = conftest.make_photos(forks.scratch / "photos")
    for number in tries:
        home = forks.scratch / f"home{number}"
        runs = [forks.scratch / f"run{number}-{each}" for each in range(AT_ONCE)]

        def before(home=home) -> None:
            use(home)()
            conftest.make_dataset = lambda: featured(photos)

        children = [forks.begin(folder, before=before) for folder in runs]
        ends = [forks.end(child, 900) for child in children]
        bad = [said for code, said in ends if code or "persistent" in said]
        for said in bad:
            tally.wrong("a run failed", said)
        if bad:
            continue
        filled = kept(home)
        runs.append(forks.scratch / f"run{number}-warm")
        code, said = forks.run(runs[-1], before=before)
        if code:
            tally.wrong("the next run failed", said)
        elif filled != kept(home):
            changed = {n for n, what in kept(home).items() if filled.get(n) != what}
            tally.wrong("the next run was not warm", f"{changed}")
        elif left := [name for name in filled if ".tmp" in name or "partial" in name]:
            tally.wrong("left over", f"{left}")
        elif differ := [n for run in runs for n in forks.differing(run, runs[0])]:
            tally.wrong("other bits", f"{differ}")
        else:
            tally.good(f"{AT_ONCE} at once and one after them: the same bits")


def featured(photos: Path) -> Any:
    """What a small model makes of the photos."""
    from dlworkshop import data, models  # noqa: PLC0415
    from dlworkshop.serve.features import features  # noqa: PLC0415

    dataset = data.load(photos)
    model = models.mlp((), num_classes=6)
    params = model.init(jax.random.key(0), dataset.train.inputs[0])
    return features(model, params, dataset)
