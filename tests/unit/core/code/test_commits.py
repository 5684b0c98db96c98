"""What a look at a real git repository tells: each commit once, whatever is done to the ref."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_mlops.core.code import commits, git
from airflow_mlops.core.code.commits import News, Seen
from airflow_mlops.core.code.git import GitAccess, access_of
from airflow_mlops.core.errors import (
    CannotReachError,
    CredentialsError,
    MissingExtraError,
    MlopsError,
    NotFoundError,
    SpecError,
)
from servers.git import LOGIN, PASSWORD, GitServer, Repository


def subjects(news: News) -> list[str | None]:
    return [commit.subject for commit in news.commits]


def told(seen: Seen, news: News) -> Seen:
    for commit in news.commits:
        seen = seen.after(commit)
    return seen


@pytest.fixture
def access(repository: Repository) -> GitAccess:
    return access_of(str(repository.folder))


def test_each_commit_is_told_of_once_the_oldest_first(repository: Repository, access: GitAccess) -> None:
    assert commits.look(access, "main", Seen()) == News(None), "an empty repository has nothing to tell of yet"
    before = repository.commit("one")
    sha = repository.commit("two")
    first = commits.look(access, "main", Seen())
    assert subjects(first) == ["two"], "at first, the commit that is there"
    (commit,) = first.commits
    assert (commit.sha, commit.previous, commit.ref, commit.forced) == (sha, before, "refs/heads/main", False)
    assert commit.to_dict()["id"] == sha
    seen = told(Seen(), first)
    assert commits.look(access, "main", seen).commits == ()
    for name in ("three", "four", "five"):
        repository.commit(name)
    second = commits.look(access, "main", seen)
    assert subjects(second) == ["three", "four", "five"]
    assert [one.previous for one in second.commits] == [sha, *(one.sha for one in second.commits[:-1])]


def test_a_merge_counts_and_the_commits_behind_it_do_not(repository: Repository, access: GitAccess) -> None:
    seen = told(Seen(), _first(repository, access))
    repository.git("checkout", "--quiet", "-b", "feature")
    repository.commit("draft", draft_txt="1")
    repository.commit("done", draft_txt="2")
    repository.git("checkout", "--quiet", "main")
    repository.commit("meanwhile")
    repository.git("merge", "--quiet", "--no-ff", "--message", "merged", "feature")
    assert subjects(commits.look(access, "main", seen)) == ["meanwhile", "merged"]


def _first(repository: Repository, access: GitAccess) -> News:
    repository.commit("first")
    return commits.look(access, "HEAD", Seen())


def test_more_commits_than_one_shallow_fetch_brings(
    repository: Repository, access: GitAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "DEPTHS", (2, 4, None))
    seen = told(Seen(), _first(repository, access))
    for number in range(8):
        repository.commit(f"c{number}")
    assert subjects(commits.look(access, "main", seen)) == [f"c{number}" for number in range(8)]


def test_a_rewritten_ref_brings_what_was_not_told_of(repository: Repository, access: GitAccess) -> None:
    repository.commit("base")
    seen = told(Seen(), commits.look(access, "main", Seen()))
    repository.commit("draft")
    seen = told(seen, commits.look(access, "main", seen))
    repository.git("reset", "--quiet", "--hard", "HEAD~1")
    repository.commit("better")
    repository.commit("best")
    news = commits.look(access, "main", seen)
    assert subjects(news) == ["better", "best"]
    assert all(commit.forced for commit in news.commits)
    # The same where the server has thrown the old commit away.
    repository.git("reflog", "expire", "--expire=now", "--all")
    repository.git("gc", "--quiet", "--prune=now")
    assert subjects(commits.look(access, "main", seen)) == ["better", "best"]


def test_a_ref_that_is_moved_back_brings_nothing_twice(repository: Repository, access: GitAccess) -> None:
    old = repository.commit("old")
    seen = told(Seen(), commits.look(access, "main", Seen()))
    new = repository.commit("new")
    seen = told(seen, commits.look(access, "main", seen))
    repository.git("reset", "--quiet", "--hard", old)
    back = commits.look(access, "main", seen)
    assert (back.commits, back.tip and back.tip.sha) == ((), old)
    repository.git("reset", "--quiet", "--hard", new)
    assert commits.look(access, "main", Seen(old, seen.told)).commits == ()


def test_refs_by_every_name(repository: Repository, access: GitAccess) -> None:
    sha = repository.commit("one")
    repository.git("tag", "light")
    repository.git("tag", "--annotate", "--message", "a release", "v1")
    for ref in ("HEAD", "main", "light", "v1", "refs/heads/main", "refs/tags/v1"):
        news = commits.look(access, ref, Seen())
        assert news.tip, ref
        assert news.tip.sha == sha, ref
        assert [commit.sha for commit in news.commits] == [sha], ref
    head = commits.tip_of(access, "HEAD")
    assert head
    assert head.ref == "refs/heads/main"
    repository.git("checkout", "--quiet", "--detach")
    repository.git("branch", "--delete", "--force", "main")
    assert commits.look(access, "main", Seen(sha, (sha,))) == News(None), "deleted"


def test_over_http_with_a_password_that_stands_nowhere(
    repository: Repository, git_server: GitServer, caplog: pytest.LogCaptureFixture
) -> None:
    sha = repository.commit("one")
    url = git_server.url(repository)
    access = access_of(url, login=LOGIN, password=PASSWORD)
    seen = told(Seen(), commits.look(access, "main", Seen()))
    assert seen.sha == sha
    repository.commit("two")
    repository.commit("three")
    assert subjects(commits.look(access, "main", seen)) == ["two", "three"]
    assert git_server.seen, "the password was asked for"
    assert PASSWORD not in repr(access) + caplog.text + access.name
    inside = access_of(url.replace("http://", f"http://{LOGIN}:{PASSWORD.replace('/', '%2F').replace('@', '%40')}@"))
    assert (inside.url, inside.login, inside.password) == (url, LOGIN, PASSWORD)


def test_the_password_is_for_its_own_server(repository: Repository, git_server: GitServer) -> None:
    repository.commit("one")
    access = access_of(f"http://127.0.0.1:{git_server.port}/x/.git", login=LOGIN, password=PASSWORD)
    other = git_server.url(repository).replace("127.0.0.1", "localhost")
    with pytest.raises(CredentialsError):
        git.git(access, "ls-remote", "--", other)
    assert git_server.seen == []


@pytest.mark.parametrize("password", [None, "wrong-password"])
def test_credentials_that_are_refused_are_named_and_not_shown(
    repository: Repository, git_server: GitServer, password: str | None
) -> None:
    repository.commit("one")
    access = access_of(git_server.url(repository), login=LOGIN, password=password, source="code")
    with pytest.raises(CredentialsError, match="connection 'code'") as caught:
        commits.look(access, "main", Seen())
    assert "wrong-password" not in str(caught.value)
    assert caught.value.retryable is False


def test_a_path_that_is_no_repository(tmp_path: Path, git_server: GitServer) -> None:
    with pytest.raises(NotFoundError, match="is not there"):
        commits.look(access_of(str(tmp_path / "nothing")), "main", Seen())
    absent = access_of(f"http://127.0.0.1:{git_server.port}/absent/.git", login=LOGIN, password=PASSWORD)
    with pytest.raises(NotFoundError, match="is not there"):
        commits.look(absent, "main", Seen())


def test_a_server_that_does_not_answer_is_worth_a_retry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(CannotReachError, match="cannot be reached now") as caught:
        commits.look(access_of("http://127.0.0.1:9/x.git"), "main", Seen())
    assert caught.value.retryable
    # git, or what it has started, hangs.
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "git").write_text(f"#!/bin/sh\nsleep 300 & echo $! > {tmp_path}/pid; wait\n")
    (fake / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(CannotReachError, match="did not answer within"):
        git.git(access_of("/x"), "ls-remote", timeout=1)
    assert not _runs(int((tmp_path / "pid").read_text()))


def _runs(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except FileNotFoundError:
            return False
        time.sleep(0.05)
    return True


def test_git_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match="apt-get install git"):
        commits.look(access_of("/x"), "main", Seen())


def test_what_the_caller_has_in_its_environment_counts_for_nothing(
    repository: Repository, access: GitAccess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sha = repository.commit("one")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))
    monkeypatch.setenv("GIT_TRACE", "1")
    assert [one.sha for one in commits.look(access, "main", Seen()).commits] == [sha]


def test_nothing_is_left_behind(repository: Repository, access: GitAccess, tmp_path: Path) -> None:
    repository.commit("one")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code = (
        "import sys; from airflow_mlops.core.code import commits, git; "
        "commits.look(git.access_of(sys.argv[1], private_key='x', passphrase='y'), 'main', commits.Seen())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, access.url], env={**os.environ, "TMPDIR": str(scratch)}, check=False
    )
    assert done.returncode == 0
    assert list(scratch.iterdir()) == []


def test_keys_for_ssh_are_private_files_for_as_long_as_git_runs() -> None:
    access = access_of(
        "git@example.com:team/project.git",
        private_key="KEY",
        passphrase="pass phrase",
        port=2222,
        proxy_command="nc %h",
    )
    with access.environment() as environment:
        words = environment["GIT_SSH_COMMAND"]
        assert "-p 2222" in words
        assert "ProxyCommand=nc %h" in words
        assert "StrictHostKeyChecking=accept-new" in words
        key = Path(words.split("-i ")[1].split()[0])
        assert key.read_text() == "KEY\n"
        assert key.stat().st_mode & 0o777 == 0o600
        said = subprocess.run([environment["SSH_ASKPASS"]], env=environment, capture_output=True, text=True, check=True)
        assert said.stdout == "pass phrase\n"
        assert "pass phrase" not in words
    assert not key.exists()


@pytest.mark.parametrize(
    "url", ["", "-upload-pack=touch x", "ext::sh -c 'touch x'", "ftp://example.com/x", "http://a/b\nc"]
)
def test_what_is_no_repository(url: str) -> None:
    with pytest.raises(SpecError, match=r"repository|none of"):
        access_of(url)


@pytest.mark.parametrize("ref", ["", "-x", "a..b", "a b", "x^", "HEAD~1", "a:b", None, "x/"])
def test_what_is_no_ref(ref: object, access: GitAccess) -> None:
    with pytest.raises(SpecError, match="name of a branch or tag"):
        commits.look(access, ref, Seen())  # type: ignore[arg-type]


def test_what_was_seen_in_every_form() -> None:
    sha = "a" * 40
    assert Seen.of(None) == Seen.of("") == Seen.of("None") == Seen()
    assert Seen.of(sha.upper()) == Seen.of({"sha": sha}) == Seen(sha)
    assert Seen.of(Seen(sha, ("b" * 40,)).to_dict()) == Seen(sha, ("b" * 40,))
    for wrong in ("abc", 7, {"id": sha}):
        with pytest.raises(SpecError, match="full sha"):
            Seen.of(wrong)
    seen = Seen()
    for number in range(300):
        seen = seen.after(commits.Commit(f"{number:040x}", "r", "u"))
    assert len(seen.told) == commits.REMEMBERED
    assert issubclass(SpecError, MlopsError)
