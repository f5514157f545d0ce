"""Each text is embedded once, whatever happens to the file."""

import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ovoad_model.arrays import Float32Array
from ovoad_model.text_cache import TextCache

WIDTH = 8


class CountingEncoder:
    """Embeds a text as numbers drawn from its content; remembers what it was asked."""

    def __init__(self, fingerprint: str = "a") -> None:
        self.fingerprint = fingerprint
        self.asked: list[str] = []

    def encode_text(self, texts: Sequence[str]) -> Float32Array:
        self.asked += texts
        rows = [
            np.random.default_rng(list(f"{self.fingerprint}{text}".encode())).random(WIDTH)
            for text in texts
        ]
        return np.array(rows, np.float32).reshape(len(texts), WIDTH)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "texts.sqlite3"


def embedded(path: Path | None, texts: Sequence[str]) -> list[str]:
    """Embed with a new cache, check the answer, return what the encoder was asked."""
    encoder = CountingEncoder()
    cache = TextCache(path)
    np.testing.assert_array_equal(cache.embed(encoder, texts), CountingEncoder().encode_text(texts))
    cache.close()
    return encoder.asked


def test_known_texts_are_not_embedded_again() -> None:
    encoder, cache = CountingEncoder(), TextCache(None)
    first = cache.embed(encoder, ["a", "b", "a"])
    second = cache.embed(encoder, ["b", "c"])
    assert encoder.asked == ["a", "b", "c"]
    np.testing.assert_array_equal(first[1], second[0])
    assert (cache.hits, cache.misses) == (1, 3)


def test_no_texts_give_no_rows() -> None:
    assert TextCache(None).embed(CountingEncoder(), []).shape == (0, WIDTH)


def test_another_fingerprint_is_another_entry() -> None:
    cache = TextCache(None)
    one = cache.embed(CountingEncoder("one"), ["a"])
    two = cache.embed(CountingEncoder("two"), ["a"])
    assert not np.array_equal(one, two)


def test_memory_is_bounded_and_forgets_the_longest_unused() -> None:
    encoder, cache = CountingEncoder(), TextCache(None, memory_entries=2)
    for text in ["a", "b", "a", "c", "a", "b"]:
        cache.embed(encoder, [text])
    assert encoder.asked == ["a", "b", "c", "b"]


def test_more_texts_than_memory_holds_are_all_answered(path: Path) -> None:
    encoder, cache = CountingEncoder(), TextCache(path, memory_entries=2)
    texts = [f"text {number}" for number in range(1200)]
    for _ in range(2):
        np.testing.assert_array_equal(
            cache.embed(encoder, texts), CountingEncoder().encode_text(texts)
        )
    assert len(encoder.asked) == 1200
    cache.close()


def test_a_restart_finds_the_texts_on_disk(path: Path) -> None:
    assert embedded(path, ["a", "骑自行车"]) == ["a", "骑自行车"]
    assert embedded(path, ["骑自行车", "b"]) == ["b"]


def test_lone_surrogates_are_texts_too(path: Path) -> None:
    cache, encoder = TextCache(path), CountingEncoder()
    encoder.encode_text = lambda texts: np.ones((len(texts), WIDTH), np.float32)  # type: ignore[method-assign]
    assert cache.embed(encoder, ["\ud800"]).shape == (1, WIDTH)
    cache.close()


@pytest.mark.parametrize("damage", ["not a database" * 500, "", "SQLite format 3\0" + "x" * 9000])
def test_a_damaged_file_is_made_anew(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    embedded(path, ["a"])
    path.write_text(damage)
    assert embedded(path, ["a"]) == ["a"]
    assert embedded(path, ["a"]) == []
    assert len(caplog.records) == (1 if damage else 0)


def test_a_file_damaged_while_open_is_made_anew(path: Path) -> None:
    encoder, cache = CountingEncoder(), TextCache(path, memory_entries=1)
    texts = [f"text {number}" for number in range(300)]
    cache.embed(encoder, texts)
    other = sqlite3.connect(path)
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 60_000)
    for _ in range(2):
        np.testing.assert_array_equal(
            cache.embed(encoder, texts), CountingEncoder().encode_text(texts)
        )
    cache.close()
    assert embedded(path, texts[:3]) == []


def test_a_changed_vector_is_embedded_again(path: Path) -> None:
    embedded(path, ["a", "b"])
    other = sqlite3.connect(path)
    other.execute("UPDATE vectors SET vector = zeroblob(32) WHERE id = 1")
    other.commit()
    other.close()
    assert embedded(path, ["a", "b"]) == ["a"]
    assert embedded(path, ["a", "b"]) == []


def test_another_table_layout_goes_on_in_memory(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir(parents=True)
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE vectors (unexpected TEXT)")
    other.close()
    assert embedded(path, ["a"]) == ["a"]
    assert "going on in memory alone" in caplog.text


def test_a_folder_that_cannot_be_made_costs_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    encoder, cache = CountingEncoder(), TextCache(tmp_path / "file" / "texts.sqlite3")
    for text in ["a", "b", "a"]:
        cache.embed(encoder, [text])
    assert encoder.asked == ["a", "b"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_full_disk_goes_on_in_memory(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder, cache = CountingEncoder(), TextCache(path)
    assert cache._store is not None
    assert cache._store._file is not None
    cache._store._file.execute("PRAGMA max_page_count = 4")
    texts = [f"text {number}" for number in range(500)]
    for _ in range(2):
        cache.embed(encoder, texts)
    assert len(encoder.asked) == 500
    assert len(caplog.records) == 1
    assert "full" in caplog.text


def test_the_file_stays_within_its_bound(path: Path) -> None:
    cache = TextCache(path, memory_entries=1, disk_bytes=100_000)
    for start in range(0, 5000, 250):
        cache.embed(CountingEncoder(), [f"text {start + number}" for number in range(250)])
    cache.close()
    assert path.stat().st_size < 200_000
    assert embedded(path, ["text 4999"]) == []


def test_threads_share_one_cache(path: Path) -> None:
    cache, wrong = TextCache(path, memory_entries=20), []

    def work(seed: int) -> None:
        texts = [f"text {number}" for number in range(seed, seed + 30)]
        for _ in range(10):
            found = cache.embed(CountingEncoder(), texts)
            wrong.append(not np.array_equal(found, CountingEncoder().encode_text(texts)))

    threads = [threading.Thread(target=work, args=(10 * seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 40
    assert not any(wrong)
    cache.close()


PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from ovoad_model.text_cache import TextCache

class Encoder:
    fingerprint = "a"
    def encode_text(self, texts):
        return np.array([[len(text)] * 8 for text in texts], np.float32)

cache = TextCache(Path(sys.argv[1]))
for start in range(0, 200, 10):
    cache.embed(Encoder(), [f"text {start + number}" for number in range(20)])
print(cache.misses)
"""


def test_several_processes_may_start_at_once(path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(path)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in running:
        out, error = process.communicate(timeout=60)
        assert (process.returncode, error) == (0, "")
        assert int(out) <= 210
    cache, encoder = TextCache(path), CountingEncoder()
    cache.embed(encoder, [f"text {number}" for number in range(210)])
    assert encoder.asked == []
    cache.close()
