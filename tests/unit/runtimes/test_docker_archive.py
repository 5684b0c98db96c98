"""What is copied into a container, and what is read out of one."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mlops.core.errors import SpecError
from airflow_mlops.runtimes import docker_archive
from airflow_mlops.runtimes.docker_archive import code_files, digest_of, pack, unpack


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder of DAGs, with what lies about in such folders."""
    folder = tmp_path / "dags"
    for name in ("team", "team/__pycache__", ".git", "venv/lib", "node_modules"):
        (folder / name).mkdir(parents=True)
    for name in ("team/a.py", "team/__pycache__/a.pyc", ".git/HEAD", "venv/pyvenv.cfg", "venv/lib/x.py", "b.py"):
        (folder / name).write_text("1\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    return folder


def test_code_is_what_people_wrote(code: Path) -> None:
    assert [file.path for file in code_files([str(code)])] == [f"{code}/b.py", f"{code}/run.sh", f"{code}/team/a.py"]


def test_a_folder_inside_another_is_copied_once_and_what_is_mounted_is_not(code: Path) -> None:
    both = code_files([str(code), str(code / "team")], leave_out=[str(code / "b.py")])
    assert [file.path for file in both] == [f"{code}/run.sh", f"{code}/team/a.py"]
    assert code_files([str(code)], leave_out=[str(code)]) == []


def test_links_are_followed_and_never_in_circles(code: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "c.py").write_text("1\n")
    (code / "shared").symlink_to(tmp_path / "shared")
    (tmp_path / "shared" / "back").symlink_to(code)
    (code / "gone.py").symlink_to(tmp_path / "nothing")
    found = [file.path for file in code_files([str(code)])]
    assert f"{code}/shared/c.py" in found
    assert f"{code}/gone.py" not in found


def test_data_among_the_code_is_refused_with_the_cure(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_archive, "CODE_LIMIT", 1 << 20)
    (code / "rows.parquet").write_bytes(bytes(2 << 20))
    with pytest.raises(SpecError, match=r"has more than 1 MB.*runtime\['code'\].*runtime\['mounts'\]"):
        code_files([str(code)])


def test_the_digest_is_of_paths_content_and_mode(code: Path) -> None:
    before = digest_of(code_files([str(code)]))
    (code / "team" / "__pycache__" / "b.pyc").write_text("2\n")
    assert digest_of(code_files([str(code)])) == before
    (code / "b.py").write_text("2\n")
    changed = digest_of(code_files([str(code)]))
    (code / "b.py").chmod(0o755)
    assert len({before, changed, digest_of(code_files([str(code)]))}) == 3


def test_the_archive_has_the_step_and_the_code_at_its_own_path(code: Path) -> None:
    with (
        pack({"step": "x", "n": float("nan")}, b"core", code_files([str(code)]), [str(code)], 1000) as made,
        tarfile.open(fileobj=made) as archive,
    ):
        files = {one.name: one for one in archive}
        spec = json.load(archive.extractfile("airflow-mlops/spec.json") or io.BytesIO())
        path = json.load(archive.extractfile("airflow-mlops/path.json") or io.BytesIO())
    assert spec == {"step": "x", "n": None}
    assert path == ["/airflow-mlops/core.zip", str(code)]
    assert files["airflow-mlops/out"].mode == 0o777
    assert (files[f"{code}/run.sh".lstrip("/")].mode, files[f"{code}/b.py".lstrip("/")].mode) == (0o755, 0o644)
    assert {one.uid for one in files.values()} == {1000}


def test_of_what_comes_out_only_whole_json_counts() -> None:
    def blocks() -> Iterator[bytes]:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            for name, data in (("out/report.json", b'{"a": 1}'), ("out/ended.json", b'{"a"'), ("out/x.tmp", b"{}")):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        yield from (made.getvalue()[i : i + 1000] for i in range(0, len(made.getvalue()), 1000))

    assert unpack(blocks()) == {"report.json": {"a": 1}}
