"""The folder of finished builds: never believed without a digest, never larger than told, never in the way."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from fleetdrv.buildcache import BuildCache

KEY, OTHER = "a" * 64, "b" * 64


def a_cache(folder: Path, limit: int = 10**9) -> tuple[BuildCache, list[str]]:
    said: list[str] = []
    return BuildCache(folder=folder / "cache/builds", note=said.append, limit_bytes=limit), said


def test_what_was_put_is_there_for_the_next_controller_and_for_nobody_else(tmp_path: Path) -> None:
    cache, said = a_cache(tmp_path)
    assert (cache.get(KEY), cache.has(KEY)) == (None, False)
    assert not cache.folder.exists(), "looking writes nothing"
    cache.put(KEY, b"modules")
    again, _ = a_cache(tmp_path)
    assert (again.get(KEY), again.has(KEY), again.get(OTHER), again.get("")) == (b"modules", True, None, None)
    (path,) = cache.folder.iterdir()
    assert (cache.folder.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    assert said == []


@pytest.mark.parametrize("damage", [b"modulex", b"", b"modules and more"])
def test_damage_is_told_and_removed(tmp_path: Path, damage: bytes) -> None:
    cache, said = a_cache(tmp_path)
    cache.put(KEY, b"modules")
    (path,) = cache.folder.iterdir()
    path.write_bytes(damage)
    assert cache.get(KEY) is None
    assert len(said) == 1
    assert str(path) in said[0]
    assert not cache.has(KEY)
    cache.put(KEY, b"modules")
    assert cache.get(KEY) == b"modules"


def test_of_two_builds_for_a_key_an_undamaged_one_is_taken(tmp_path: Path) -> None:
    """Two controllers that compiled at the same time may have got other bytes."""
    cache, _ = a_cache(tmp_path)
    cache.put(KEY, b"one")
    cache.put(KEY, b"two")
    first, second = sorted(cache.folder.iterdir())
    first.write_bytes(b"")
    assert cache.get(KEY) == second.read_bytes()


def test_the_longest_unused_make_room(tmp_path: Path) -> None:
    cache, _ = a_cache(tmp_path, limit=25)
    for age, key in enumerate(("1", "2")):
        cache.put(key, key.encode() * 10)
        os.utime(next(cache.folder.glob(f"{key}-*")), (1000 + age, 1000 + age))
    assert cache.get("1")  # used now
    cache.put("3", b"3" * 10)
    assert [cache.has(key) for key in "123"] == [True, False, True]
    cache.put("4", b"4" * 100)
    assert [cache.has(key) for key in "1234"] == [False, False, False, True], "the newest stays, however large"


def test_half_written_files_go_once_they_are_old(tmp_path: Path) -> None:
    cache, _ = a_cache(tmp_path)
    cache.put(KEY, b"modules")
    for name in (".new.old", ".new.young"):
        (cache.folder / name).write_bytes(b"x")
    os.utime(cache.folder / ".new.old", (1, 1))
    cache.put(OTHER, b"modules")
    assert {path.name for path in cache.folder.glob(".new.*")} == {".new.young"}


def test_a_folder_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    cache, _ = a_cache(tmp_path)
    cache.put(KEY, b"modules")
    cache.folder.chmod(0o770)
    cache, said = a_cache(tmp_path)
    assert (cache.has(KEY), cache.get(KEY), cache.usable) == (False, None, False)
    cache.put(OTHER, b"modules")
    assert len(said) == 1
    assert "others can write there" in said[0]
    assert not list(cache.folder.glob(f"{OTHER}-*"))


def test_no_folder_to_be_had_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    cache, said = a_cache(tmp_path)
    cache.put(KEY, b"modules")
    cache.put(KEY, b"modules")
    assert (cache.get(KEY), cache.usable, len(said)) == (None, False, 1)


def test_controllers_at_once_neither_tear_nor_miss_what_is_kept(tmp_path: Path) -> None:
    data = {f"{n}" * 8: bytes([n]) * 50_000 for n in range(6)}
    wrong: list[str] = []

    def work() -> None:
        cache, said = a_cache(tmp_path, limit=200_000)
        for _ in range(20):
            for key, content in data.items():
                cache.put(key, content)
                if cache.get(key) not in (content, None):
                    wrong.append(key)
        wrong.extend(said)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    left = list((tmp_path / "cache/builds").iterdir())
    assert sum(path.stat().st_size for path in left) <= 200_000
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() in path.name for path in left)
