"""Equal content has equal digests, in every process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from airflow_mlops.core import digests


def test_the_order_of_keys_does_not_count_and_a_value_does() -> None:
    assert digests.of_json({"a": 1, "b": [1, 2]}) == digests.of_json({"b": [1, 2], "a": 1})
    assert digests.of_json({"a": 1}) != digests.of_json({"a": "1"})
    assert digests.of_json([1, 2]) != digests.of_json([2, 1])


def test_a_file_has_the_digest_of_its_bytes_beyond_one_block(tmp_path: Path) -> None:
    data = b"x" * ((1 << 20) + 7)
    (tmp_path / "f").write_bytes(data)
    assert digests.of_file(tmp_path / "f") == digests.of_bytes(data) == "sha256:" + hashlib.sha256(data).hexdigest()
    assert digests.hex_of(digests.of_bytes(b"")) == hashlib.sha256(b"").hexdigest()


def test_a_callable_has_the_same_digest_in_another_process() -> None:
    code = (
        "import json\nfrom airflow_mlops.core import digests\n"
        "print(digests.of_json([json.dumps, dict, {'s': '\\ud800'}]))"
    )
    made = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(made) == 1


def test_a_manifest_has_every_file_but_the_ignored(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").write_bytes(b"1")
    (tmp_path / "a" / "left_out").write_bytes(b"2")
    (tmp_path / "y").write_bytes(b"3")
    (tmp_path / "loop").symlink_to(tmp_path)
    manifest = digests.manifest_of(tmp_path, ignore=("left_out",))
    assert manifest == {"a/b/x": digests.of_bytes(b"1"), "y": digests.of_bytes(b"3")}
    assert list(manifest) == sorted(manifest)
