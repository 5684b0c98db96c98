"""``runtime={"image": ...}``: what it may hold, and what of it makes a container another one."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mlops.core.errors import SpecError
from airflow_mlops.runtimes.docker_settings import ContainerSettings, Mount, settings_of


def test_values_may_be_what_templates_render() -> None:
    given = {"memory": "2g", "shm_size": " 512 MiB ", "cpus": "1.5", "gpus": " 2 ", "timeout": "90m", "user": 4711}
    assert settings_of({"image": " team/ml:1 ", **given, "network": None}) == ContainerSettings(
        "team/ml:1", memory=2 << 30, shm_size=512 << 20, cpus=1.5, gpus=2, timeout=5400.0, user="4711"
    )


@pytest.mark.parametrize(("given", "found"), [("all", "all"), (1, 1), (["0", 3], ("0", "3"))])
def test_gpus(given: Any, found: Any) -> None:
    assert settings_of({"image": "x", "gpus": given}).gpus == found


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("/data:/data:ro", Mount("/data", "/data", read_only=True)),
        ("cache:/root/.cache", Mount("cache", "/root/.cache")),
        ({"source": "/a", "target": "/b", "read_only": True}, Mount("/a", "/b", read_only=True)),
    ],
)
def test_mounts(given: Any, found: Mount) -> None:
    assert settings_of({"image": "x", "mounts": [given]}).mounts == (found,)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"image": ""}, r"runtime\['image'\] must be the name of an image, such as .*, got None"),
        ({"image": "team/ml 1"}, "must be the name of an image"),
        ({"memory": "lots"}, r"runtime\['memory'\] must be a number of bytes, or text such as '512m' or '4g'"),
        ({"memory": "0"}, "must be a number of bytes"),
        ({"memory": True}, "must be a number of bytes"),
        ({"memory": "4m"}, "no less than 6 MB"),
        ({"cpus": 0}, "must be a number of CPUs such as 1.5"),
        ({"cpus": "two"}, "must be a number of CPUs"),
        ({"gpus": 0}, "must be 'all', a number of GPUs or a list of their ids"),
        ({"gpus": True}, "must be 'all', a number of GPUs"),
        ({"timeout": "soon"}, "must be seconds, or text such as '90m'"),
        ({"pull": "allways"}, r"one of missing, always, never, got 'allways'; did you mean 'always'\?"),
        ({"auto_remove": True}, "must be one of force, success, never"),
        ({"network": 1}, r"runtime\['network'\] must be text"),
        ({"environment": ["A=1"]}, "must be an object of variables"),
        ({"code": "/src"}, "must be a list of folders"),
        ({"mounts": "/a:/b"}, r"must be a list such as \['/data:/data:ro'\]"),
        ({"mounts": ["/a"]}, "a mount is 'source:target' or 'source:target:ro', got '/a'"),
        ({"mounts": ["/a:/b:rx"]}, "a mount is 'source:target'"),
        ({"mounts": ["/a:b"]}, "an absolute target"),
        ({"mounts": ["/a:/"]}, "an absolute target that is not '/'"),
        ({"mounts": [{"source": "/a", "traget": "/b"}]}, r"a mount has no 'traget'; did you mean 'target'\?"),
    ],
)
def test_what_cannot_be_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        settings_of({"image": "x", **more})


def test_values_of_variables_neither_show_nor_make_another_container() -> None:
    def found(value: str) -> ContainerSettings:
        return settings_of({"image": "x", "environment": {"A": value}, "private_environment": {"B": value}})

    assert "hush" not in repr(found("hush")) + repr(found("hush").identity())
    assert found("hush").identity() == found("another").identity()
    assert found("hush").identity() != settings_of({"image": "x", "environment": {"A": "hush"}}).identity()
