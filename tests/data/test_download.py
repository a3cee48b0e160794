"""kobai.data.files: downloads, against a server on the loopback interface."""

import contextlib
import gzip
import hashlib
import http.server
import sys
import threading
from dataclasses import replace

import pytest

from data.builders import cifar_archive, mnist_contents, write_mnist
from kobai.data import cifar, cifar10, files, mnist, mnist_family
from kobai.data.files import Remote, download
from kobai.errors import DataError

pytest.importorskip("pooch")

CONTENT = bytes(range(256)) * 1000


class Handler(http.server.BaseHTTPRequestHandler):
    """``/name``: the file; ``/cut/name``: half of it under the full length; ``/cut-silently/name``: half, well formed."""

    def do_GET(self):
        self.server.requests.append(self.path)
        *modes, name = self.path.strip("/").split("/")
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        sent = content[: len(content) // 2] if modes else content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content if modes == ["cut"] else sent)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # who has had enough hangs up
            self.wfile.write(sent)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.files, httpd.requests = {"file": CONTENT}, []
    httpd.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def remote(*urls, content=CONTENT):
    return Remote("file", urls, hashlib.sha256(content).hexdigest(), len(CONTENT))


def names(folder):
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


def test_good_file_appears_under_its_name_and_a_second_call_uses_it(server, tmp_path, capsys):
    (path,) = download([remote(f"{server.url}/file")], tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT
    assert names(tmp_path / "new" / "folder") == ["file"]
    assert "file" in capsys.readouterr().err  # progress
    assert download([remote(f"{server.url}/file")], tmp_path / "new" / "folder") == [path]
    assert server.requests == ["/file"]


@pytest.mark.parametrize(
    ("where", "content", "message"),
    [
        ("file", b"expected something else", "hash|SHA256"),
        ("cut/file", CONTENT, "IncompleteRead|broken"),
        ("cut-silently/file", CONTENT, "hash|SHA256"),
        ("absent", CONTENT, "404"),
    ],
)
def test_whatever_goes_wrong_leaves_nothing_behind(server, tmp_path, where, content, message):
    with pytest.raises(DataError, match=message) as caught:
        download([remote(f"{server.url}/{where}", content=content)], tmp_path / "d")
    assert "download of file failed" in str(caught.value)
    assert f"{server.url}/{where}" in str(caught.value)
    assert names(tmp_path / "d") == []


def test_a_server_cannot_send_more_than_the_size(server, tmp_path):
    server.files["file"] = CONTENT + bytes(1 << 24)
    with pytest.raises(DataError, match="sends more than the file's 256000 bytes"):
        download([remote(f"{server.url}/file")], tmp_path)
    assert names(tmp_path) == []


def test_no_server(server, tmp_path):
    url = f"{server.url}/file"
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="download of file failed"):
        download([remote(url)], tmp_path)
    assert names(tmp_path) == []


def test_mirrors_are_tried_in_turn(server, tmp_path):
    (path,) = download([remote(f"{server.url}/absent", f"{server.url}/cut/file", f"{server.url}/file")], tmp_path)
    assert path.read_bytes() == CONTENT
    with pytest.raises(DataError, match=r"404.*IncompleteRead|404.*broken"):
        download([replace(remote(f"{server.url}/absent", f"{server.url}/cut/file"), name="other")], tmp_path)


def test_wrong_file_in_the_cache_is_fetched_anew(server, tmp_path):
    (tmp_path / "file").write_bytes(b"half a file, from an older program")
    (path,) = download([remote(f"{server.url}/file")], tmp_path)
    assert path.read_bytes() == CONTENT


def test_wrong_file_in_the_cache_stays_if_nothing_better_comes(server, tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(DataError):
        download([remote(f"{server.url}/cut/file")], tmp_path)
    assert (tmp_path / "file").read_bytes() == b"old"


def test_without_pooch(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DataError, match=r"needs pooch.*pip install 'kobai\[data\]'"):
        download([remote("http://127.0.0.1:1/file")], tmp_path)


# --- whole data sets --------------------------------------------------------------------------------------------------


@pytest.fixture
def served_mnist(server, monkeypatch):
    server.files = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in mnist_contents().items()}
    remotes = tuple(
        Remote(name, (f"{server.url}/{name}",), hashlib.sha256(content).hexdigest(), len(content))
        for name, content in server.files.items()
    )
    monkeypatch.setattr(mnist_family, "MNIST", replace(mnist_family.MNIST, remotes=remotes))
    return server


def test_mnist_is_downloaded_once_into_the_folder(served_mnist, tmp_path):
    assert len(mnist(tmp_path, download=True).test) == 20
    assert names(tmp_path / "mnist") == sorted(served_mnist.files)
    assert len(mnist(tmp_path, download=True).test) == 20
    assert len(mnist(tmp_path).test) == 20
    assert len(served_mnist.requests) == 4


def test_mnist_is_downloaded_into_the_cache(served_mnist):
    assert len(mnist(download=True).test) == 20
    assert names(files.cache_dir() / "mnist") == sorted(served_mnist.files)


def test_what_is_there_is_not_downloaded(served_mnist, tmp_path):
    write_mnist(tmp_path, zipped=False, test=10)
    assert len(mnist(tmp_path, download=True).test) == 10
    assert served_mnist.requests == []


def test_an_interrupted_set_is_completed(served_mnist, tmp_path):
    mnist(tmp_path, download=True)
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz").unlink()
    assert len(mnist(tmp_path, download=True).test) == 20
    assert len(served_mnist.requests) == 5


def test_cifar10_is_downloaded(server, tmp_path, monkeypatch):
    archive = cifar_archive()
    server.files = {"cifar-10-binary.tar.gz": archive}
    made = Remote(
        "cifar-10-binary.tar.gz",
        (f"{server.url}/cifar-10-binary.tar.gz",),
        hashlib.sha256(archive).hexdigest(),
        len(archive),
    )
    monkeypatch.setattr(cifar, "REMOTE", made)
    assert len(cifar10(tmp_path, download=True).test) == 20
    assert len(cifar10(tmp_path).test) == 20
    assert names(tmp_path / "cifar10") == ["cifar-10-binary.tar.gz"]


@pytest.mark.parametrize(
    ("platform", "end"), [("linux", "cache/kobai"), ("darwin", "Library/Caches/kobai"), ("win32", "cache/kobai")]
)
def test_cache_folder_of_each_system(monkeypatch, platform, end):
    monkeypatch.setattr(sys, "platform", platform)
    assert files.cache_dir().as_posix().endswith(end)


def test_without_a_home_there_is_the_named_folder(monkeypatch, tmp_path):
    for name in ("HOME", "XDG_CACHE_HOME", "KOBAI_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user without an entry
    with pytest.raises(DataError, match=r"no home folder to keep data in.*KOBAI_DATA"):
        mnist(download=True)
    monkeypatch.setenv("KOBAI_DATA", str(write_mnist(tmp_path)))
    assert len(mnist().test) == 20


def test_cache_folder_without_environment(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_dir().as_posix().endswith("/.cache/kobai")
