"""Folders in object storage: one contract, held by S3 (moto's server) and, through the same pyarrow.fs, by a disk."""

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cpn.core import object_storage
from cpn.core.errors import InputError
from tests.s3_server import s3_server

BUCKET = "cpn-test"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server(BUCKET) as url:
        yield url


@pytest.fixture(params=["s3", "disk"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place of each kind."""
    if request.param == "disk":
        return f"file://{tmp_path}/remote"
    request.getfixturevalue("endpoint")
    return f"s3://{BUCKET}/{tmp_path.name}"


def made(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in object_storage.names_in(folder)}


def spoil(url: str, name: str, data: bytes = b"torn") -> None:
    object_storage.write_object(f"{url}/{name}", data)


def test_what_is_pushed_comes_back_elsewhere(url: str, tmp_path: Path) -> None:
    here = made(tmp_path / "a", one="1", pictures__two="2")
    (here / ".half.tmp").write_text("being written")
    assert object_storage.listing(url) is None and not object_storage.pull(url, tmp_path / "b")
    object_storage.push(here, url)
    assert object_storage.pull(url, tmp_path / "b")
    assert content(tmp_path / "b") == {"one": "1", "pictures/two": "2"}
    assert object_storage.pull(url, tmp_path / "c", lambda name: name == "one")
    assert content(tmp_path / "c") == {"one": "1"}


def test_files_without_a_list_are_not_there(url: str, tmp_path: Path) -> None:
    """A push that was killed before its end."""
    object_storage.write_object(f"{url}/one", b"1")
    assert object_storage.listing(url) is None and not object_storage.pull(url, tmp_path / "b")
    assert object_storage.read_object(f"{url}/one") == b"1" and object_storage.read_object(f"{url}/two") is None


def test_a_part_that_is_sent_anew_is_absent_in_the_meantime(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_storage.push(made(tmp_path / "a", one="1", two="2"), url)
    made(tmp_path / "a", two="another")
    sent = []

    def killed(system: object, path: str) -> Iterator[None]:
        sent.append(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(object_storage, "_writing", killed)
        object_storage.push(tmp_path / "a", url)
    assert [path.rpartition("/")[2] for path in sent] == ["two"], "what has not changed is sent again"
    assert object_storage.listing(url) is None
    object_storage.push(tmp_path / "a", url)
    assert object_storage.pull(url, tmp_path / "b") and content(tmp_path / "b") == {"one": "1", "two": "another"}


def test_the_same_again_sends_nothing(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    object_storage.push(made(tmp_path / "a", one="1"), url)
    monkeypatch.setattr(object_storage, "_writing", None)
    object_storage.push(tmp_path / "a", url)


def test_parts_of_several_writers_are_read_together(url: str, tmp_path: Path) -> None:
    object_storage.push(made(tmp_path / "a", one="1"), url, part="0")
    object_storage.push(made(tmp_path / "b", two="2", three="3"), url, ["two"], part="1")
    assert set(object_storage.listing(url) or {}) == {"one", "two"}
    assert (
        set(object_storage.listing(url, "1") or {}) == {"two"}
        and object_storage.listing(url, object_storage.WHOLE) is None
    )
    assert object_storage.pull(url, tmp_path / "c") and content(tmp_path / "c") == {"one": "1", "two": "2"}


def test_a_file_that_is_not_what_was_written_is_refused(url: str, tmp_path: Path) -> None:
    object_storage.push(made(tmp_path / "a", one="1", two="2"), url)
    spoil(url, "two")
    with pytest.raises(object_storage.Damaged, match="two: is not what was written"):
        object_storage.pull(url, tmp_path / "b")
    assert "two" not in content(tmp_path / "b")


def test_a_missing_file_is_refused(url: str, tmp_path: Path) -> None:
    object_storage.push(made(tmp_path / "a", one="1", two="2"), url)
    system, path = object_storage.filesystem(url)
    system.delete_file(f"{path}/one")
    with pytest.raises(object_storage.Damaged, match="one: is missing"):
        object_storage.pull(url, tmp_path / "b")


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside"])
def test_a_list_that_names_a_file_outside_is_refused(url: str, tmp_path: Path, name: str) -> None:
    spoil(url, f"{object_storage.LISTS}/whole.json", b'{"%s": "00"}' % name.encode())
    with pytest.raises(object_storage.Damaged, match="outside its folder"):
        object_storage.pull(url, tmp_path / "b")


@pytest.mark.parametrize("data", [b"", b"[1]", b'{"one": 1}', b"{"])
def test_a_damaged_list_lists_nothing(url: str, data: bytes) -> None:
    spoil(url, f"{object_storage.LISTS}/whole.json", data)
    assert object_storage.listing(url) is None and object_storage.listing(url, object_storage.WHOLE) is None


def test_a_damaged_file_here_is_fetched_again(url: str, tmp_path: Path) -> None:
    object_storage.push(made(tmp_path / "a", one="1"), url)
    made(tmp_path / "b", one="torn")
    assert object_storage.pull(url, tmp_path / "b") and content(tmp_path / "b") == {"one": "1"}


def test_folders_sizes_and_removing(url: str, tmp_path: Path) -> None:
    assert object_storage.folders(url) == [] and object_storage.sizes(url) == {}
    object_storage.push(made(tmp_path / "a", one="12"), f"{url}/runs/x")
    object_storage.push(tmp_path / "a", f"{url}/runs/y")
    assert object_storage.folders(f"{url}/runs") == ["x", "y"]
    assert object_storage.sizes(f"{url}/runs")["y/one"] == 2
    object_storage.remove(f"{url}/runs/x")
    object_storage.remove(f"{url}/runs/x")
    assert object_storage.folders(f"{url}/runs") == ["y"] and object_storage.listing(f"{url}/runs/x") is None


def test_a_place_that_can_be_written_is_left_as_it_was(url: str) -> None:
    object_storage.check_url(url, "resources.storage", write=True)
    assert object_storage.sizes(url) == {}


def refusal(url: str) -> str:
    with pytest.raises(InputError) as refused:
        object_storage.check_url(url, "data.root", write=False)
    with pytest.raises(InputError):
        object_storage.check_url(url, "data.root", write=True)
    return str(refused.value)


def test_a_bucket_that_is_not_there_is_one_line(endpoint: str) -> None:
    assert refusal("s3://no-such-bucket/x") == (
        "data.root: s3://no-such-bucket/x: there is no such bucket; make it, or check the name (NO_SUCH_BUCKET)"
    )


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "s3://UPPER/x", "s4://bucket/x"])
def test_a_url_that_is_none_is_one_line(url: str) -> None:
    assert f"{url}: not a usable URL" in refusal(url)


def test_an_endpoint_that_is_down_is_one_line(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(object_storage, "ATTEMPTS", 1)
    object_storage._s3_of.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "the endpoint does not answer; start it, or check AWS_ENDPOINT_URL" in refusal(f"s3://{BUCKET}/x")


@pytest.mark.parametrize(
    ("code", "cure"),
    [("InvalidAccessKeyId", "AWS_ACCESS_KEY_ID is not known"), ("SignatureDoesNotMatch", "does not fit"),
     ("AccessDenied", "do not give the right")],
)  # fmt: skip
def test_wrong_credentials_are_one_line(monkeypatch: pytest.MonkeyPatch, endpoint: str, code: str, cure: str) -> None:
    class Refuses(BaseHTTPRequestHandler):
        def _refuse(self) -> None:
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = _refuse

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Refuses)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        said = refusal(f"s3://{BUCKET}/x")
        assert cure in said and os.environ["AWS_SECRET_ACCESS_KEY"] not in said
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_troubles_are_waited_for_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(object_storage.time, "sleep", slept.append)
    tries = iter([OSError("AWS Error NETWORK_CONNECTION"), OSError("AWS Error NETWORK_CONNECTION"), None])
    said: list[str] = []

    def work() -> str:
        trouble = next(tries)
        if trouble is not None:
            raise trouble
        return "done"

    assert object_storage.with_retries(work, 600, said.append) == "done"
    assert slept == [1.0, 2.0] and len(said) == 1 and "the endpoint does not answer" in said[0]
    tries = iter([OSError("AWS Error NETWORK_CONNECTION")])
    with pytest.raises(OSError):
        object_storage.with_retries(work, 0.5, said.append)


def test_scratch_is_this_hosts_own_or_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(object_storage.SCRATCH, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.setattr(object_storage.socket, "gethostname", lambda: "node7")
    assert object_storage.scratch() == Path("/cache/cpn-platform/node7")
    monkeypatch.setenv(object_storage.SCRATCH, "/fast/disk")
    assert object_storage.scratch() == Path("/fast/disk")
