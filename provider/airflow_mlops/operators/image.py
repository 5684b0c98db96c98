"""Build an image of a commit."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_mlops.core.errors import MlopsError, SpecError
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.core.vocabulary import SCHEMA
from airflow_mlops.exceptions import MlopsFailed, translate
from airflow_mlops.operators.paths import resolve_path

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.runtimes.image_build import Build

log = logging.getLogger("airflow_mlops.task")


class BuildImageOperator(BaseOperator):
    """Build an image of a commit on a Docker Engine, or take the one that was built of it before.

    The commit, the content of the context, the Dockerfile, its arguments and the base images make the image; if none of
    them changed, the image that is there is tagged and returned. The engine's cache of layers is used, so a build that
    was killed goes on where it was. What a build says goes to the log as it comes.

    Returns the image's ref: ``kind`` (``image``), ``name`` (the tag), ``id``, ``digest`` (that of the manifest in a
    registry, if the image has one, else the id), ``pushed`` (``repository@digest`` if it was pushed, else None),
    ``sha``, ``labels``, ``bytes``, ``created_at`` and ``reused``.

    Labels beside your own: ``org.opencontainers.image.revision`` (the sha), ``org.opencontainers.image.source``,
    ``airflow_mlops.context_digest`` (of the files), ``airflow_mlops.build`` (of all that makes the image) and
    ``airflow_mlops.dirty`` (whether a folder is not as it was committed).

    :param context: the ref of a ``CheckoutCodeOperator``; the URL or ``git@host:path`` of a repository, with
        ``git_sha``; or a folder, absolute or relative to the DAG bundle. (templated)
    :param tag: name of the image, such as ``"registry.example.com/team/churn:{{ run_id }}"``. (templated)
    :param git_sha: full sha of the commit; of a folder: what it is labelled with, by default its own commit.
        (templated)
    :param git_conn_id: connection of type ``git`` for a URL. (templated)
    :param subfolder: folder of the repository that is the build's context; default: all of it. (templated)
    :param dockerfile: path of the Dockerfile in the context. (templated)
    :param build_args: values of the Dockerfile's ``ARG`` lines. Whoever has the image can read them: no secrets.
        (templated)
    :param labels: labels of your own. (templated)
    :param target: stage of the Dockerfile to build; default: the last. (templated)
    :param network: network of the build's steps, such as ``"host"``. (templated)
    :param pull: ``"missing"``: pull a base image that the engine does not have; ``"always"``: look for a newer one.
        (templated)
    :param docker_conn_id: connection of type ``docker``; None: ``docker_default``, or the engine of this machine.
        (templated)
    :param push: push the image to the registry that its tag names, with the connection's login.
    :param reuse: False builds anew, without the engine's cache.
    :raises ValueError: in the constructor, for a URL with a password in it, or a ``pull`` that cannot be.
    """

    template_fields: Sequence[str] = (
        *("context", "tag", "git_sha", "git_conn_id", "subfolder", "dockerfile", "build_args", "labels", "target"),
        *("network", "pull", "docker_conn_id"),
    )
    template_fields_renderers = {"context": "json", "build_args": "json", "labels": "json"}  # noqa: RUF012
    ui_color = "#e8f1fa"

    def __init__(
        self,
        *,
        context: dict[str, Any] | str,
        tag: str,
        git_sha: str | None = None,
        git_conn_id: str | None = None,
        subfolder: str | None = None,
        dockerfile: str = "Dockerfile",
        build_args: dict[str, Any] | None = None,
        labels: dict[str, Any] | None = None,
        target: str | None = None,
        network: str | None = None,
        pull: str = "missing",
        docker_conn_id: str | None = None,
        push: bool = False,
        reuse: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        from airflow_mlops.core.code.git import has_password

        if isinstance(context, str) and has_password(context):
            raise ValueError(
                f"the URL {strip_credentials(context)} has a password in it; put it into a connection of type git"
            )
        if pull not in ("missing", "always") and "{" not in pull:
            raise ValueError(f"pull must be 'missing' or 'always', got {pull!r}")
        self.context = context
        self.tag = tag
        self.git_sha = git_sha
        self.git_conn_id = git_conn_id
        self.subfolder = subfolder
        self.dockerfile = dockerfile
        self.build_args = build_args
        self.labels = labels
        self.target = target
        self.network = network
        self.pull = pull
        self.docker_conn_id = docker_conn_id
        self.push = push
        self.reuse = reuse

    def execute(self, context: Context) -> dict[str, Any]:
        """Build the image, or find it, push it if that is wanted, and return its ref."""
        from airflow_mlops.runtimes import image_build, image_push
        from airflow_mlops.runtimes.docker_engine import engine_of

        try:
            if self.pull not in ("missing", "always"):
                raise SpecError(f"pull must be 'missing' or 'always', got {self.pull!r}")
            engine = engine_of(self.docker_conn_id or None)
            wanted = self._wanted(context)
            log.info("%s: commit %s, on %s", wanted.tag, wanted.sha or "none", engine.name)
            found, reused = image_build.build(engine, wanted, log, reuse=self.reuse, pull=self.pull)
            pushed = image_push.push(engine, wanted.tag, log) if self.push else None
        except MlopsError as error:
            raise translate(error) from error
        except ValueError as error:
            raise MlopsFailed(str(error)) from None
        return {
            "schema": SCHEMA,
            "kind": "image",
            "name": wanted.tag,
            "id": found["Id"],
            "digest": pushed or image_push.digest_of(found, wanted.tag) or found["Id"],
            "pushed": f"{image_push.repository_of(wanted.tag)}@{pushed}" if pushed else None,
            "sha": wanted.sha,
            "labels": {k: v for k, v in (found["Config"].get("Labels") or {}).items() if k in self._known_labels()},
            "bytes": int(found.get("Size") or 0),
            "created_at": found.get("Created"),
            "reused": reused,
        }

    def _known_labels(self) -> set[str]:
        from airflow_mlops.runtimes import image_build as names

        return {*(self.labels or {}), names.BUILD, names.CONTENT, names.DIRTY, names.REVISION, names.SOURCE}

    def _wanted(self, context: Context) -> Build:
        """Return what is to be built, its files on this machine."""
        from airflow_mlops.core.code import checkout
        from airflow_mlops.core.training.provenance import git_of
        from airflow_mlops.runtimes.image_build import Build

        folder, sha, source, dirty = self._code(context)
        leave_out: frozenset[str] = frozenset()
        if self.subfolder:
            inside = (folder / self.subfolder).resolve()
            if not inside.is_relative_to(folder.resolve()) or not inside.is_dir():
                raise SpecError(f"subfolder {self.subfolder!r} is no folder of the context")
            folder = inside
        if source is not None:
            leave_out = checkout.untracked(folder)
        elif sha is None:
            known = git_of(folder)
            sha, dirty = known["git_sha"], bool(known["dirty"])
        return Build(
            folder=folder,
            tag=_checked_tag(self.tag),
            dockerfile=self.dockerfile,
            arguments={str(k): str(v) for k, v in (self.build_args or {}).items()},
            labels={str(k): str(v) for k, v in (self.labels or {}).items()},
            target=self.target or None,
            network=self.network or None,
            sha=sha,
            source=source,
            dirty=dirty,
            leave_out=leave_out,
        )

    def _code(self, context: Context) -> tuple[Path, str | None, str | None, bool]:
        """Return the folder, its commit, the repository of a working copy of ours, and whether it differs."""
        from airflow_mlops.core.code import checkout
        from airflow_mlops.hooks.git import GitAccessHook
        from airflow_mlops.operators.code import code_folder

        given, sha = self.context, self.git_sha or None
        if isinstance(given, dict):
            if given.get("kind") != "code" or not given.get("path"):
                raise SpecError(
                    "context must be the ref of a CheckoutCodeOperator, a git URL with git_sha, or a folder"
                )
            folder = Path(given["path"])
            if not folder.is_dir():
                raise SpecError(f"the working copy {folder} is not on this worker; check out and build on the same one")
            return folder, str(given["sha"]), str(given["repository"]), False
        text = str(given)
        place = Path(str(resolve_path(context, text))).expanduser()
        if (
            "://" in text
            or ":" in text.partition("/")[0]
            or (sha and (place / ".git").exists())
            or place.suffix == ".git"
        ):
            if not sha:
                raise SpecError(f"the repository {strip_credentials(text)} needs git_sha: the commit to build")
            access = GitAccessHook(self.git_conn_id or None, text if ":" in text else str(place)).access
            copies = code_folder(None) / "commits"
            return checkout.checkout(access, sha.lower(), "HEAD", copies, log), sha.lower(), access.url, False
        if not place.is_dir():
            raise SpecError(f"context: there is no folder {place}")
        return place, sha, None, False


def _checked_tag(tag: Any) -> str:
    if not isinstance(tag, str) or not re.fullmatch(
        r"[a-z0-9][a-z0-9._/-]*(:\d+/[a-z0-9._/-]+)?(:[\w][\w.-]{0,127})?", tag
    ):
        raise SpecError(f"tag must be the name of an image in lower case, such as 'team/churn:1.4', got {tag!r}")
    return tag
