import csv
import hashlib
import io
import logging
import os
import socket
import stat
import struct
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import tifffile

import dvlae.data.download
from dvlae.config.fields import MIRROR_VARIABLE
from dvlae.data.download import download
from dvlae.data.registry import read_lock
from dvlae.system.errors import UserError

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
RIGHT, CORRUPTED = (200, CONTENT), (200, b"corrupted" + CONTENT[9:])
NO_PAUSES = (0.0, 0.0, 0.0, 0.0)


class Server(ThreadingHTTPServer):
    """Answers each path with the next of its prepared answers: (status, content), or "truncated"."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked = {}, []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path: str, *answers) -> str:
        self.answers[path] = list(answers)
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        answers = self.server.answers[self.path]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        status, content = (200, CONTENT) if answer == "truncated" else answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:1000] if answer == "truncated" else content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def get(tmp_path, dataset):
    """Return a function that writes a registry, downloads, and returns the rows of the list of files."""

    def get(*rows, mirror=None, pauses=NO_PAUSES):
        registry = tmp_path / "registry.csv"
        with open(registry, "w", newline="") as file:
            csv.writer(file).writerows([["file", "sha256", "url", "member", "archive_sha256"], *rows])
        settings = dataset(source={"kind": "download", "registry": str(registry)})
        download(settings, tmp_path / "data", mirror, tmp_path / "files.csv", pauses)
        with open(tmp_path / "files.csv", newline="") as file:
            return list(csv.DictReader(file))

    return get


def files(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_download_is_listed_with_hash_size_and_origin(server, get, tmp_path):
    url = server.url("/a", RIGHT)
    assert get(["set/a b.tif", SHA256, url]) == [
        {"file": "set/a b.tif", "sha256": SHA256, "bytes": str(len(CONTENT)), "origin": url}
    ]
    assert (tmp_path / "data" / "set" / "a b.tif").read_bytes() == CONTENT


def test_two_failures_and_a_corrupted_file_are_overcome(server, get, tmp_path):
    get(["a.tif", SHA256, server.url("/a", (503, b""), (500, b"oh"), CORRUPTED, RIGHT)])
    assert len(server.asked) == 4
    assert (tmp_path / "data" / "a.tif").read_bytes() == CONTENT


def test_a_truncated_file_is_fetched_again(server, get, tmp_path):
    get(["a.tif", SHA256, server.url("/a", "truncated", RIGHT)])
    assert files(tmp_path / "data") == {"a.tif"}


def test_the_next_address_is_tried_before_the_first_one_again(server, get):
    first, second = server.url("/gone", (404, b"")), server.url("/there", CORRUPTED, RIGHT)
    get(["a.tif", SHA256, first], ["a.tif", SHA256, second])
    assert server.asked == ["/gone", "/there", "/gone", "/there"]


def test_a_final_failure_is_one_line_that_says_what_was_found_where_and_what_to_do(server, get, tmp_path):
    first, second = server.url("/gone", (404, b"")), server.url("/bad", CORRUPTED)
    with pytest.raises(UserError) as error:
        get(["a.tif", SHA256, first], ["a.tif", SHA256, second])
    text = str(error.value)
    assert "\n" not in text
    assert f"{tmp_path / 'data' / 'a.tif'}: could not be downloaded" in text
    assert f"{first}: HTTP status 404" in text
    assert f"{second}: found sha256 {hashlib.sha256(CORRUPTED[1]).hexdigest()}" in text
    assert f"download it by hand from {first} or {second}" in text
    assert files(tmp_path) == {"registry.csv"}  # nothing half-written


def test_an_address_without_a_server_is_a_user_error(server, get):
    url = server.url("/a", RIGHT)
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="no connection, or it broke off"):
        get(["a.tif", SHA256, url])


def test_files_that_are_there_are_not_fetched_again_and_damaged_ones_are(server, get, tmp_path):
    rows = [[f"{name}.tif", SHA256, server.url(f"/{name}", RIGHT)] for name in "ab"]
    first = get(*rows)
    (tmp_path / "data" / "b.tif").write_bytes(CONTENT[:-1])
    server.asked.clear()
    assert get(*rows) == first
    assert server.asked == ["/b"]
    assert (tmp_path / "data" / "b.tif").read_bytes() == CONTENT


def test_an_interrupted_download_goes_on_where_it_was(server, get):
    rows = [["a.tif", SHA256, server.url("/a", RIGHT)], ["b.tif", SHA256, server.url("/b", (500, b""))]]
    with pytest.raises(UserError):
        get(*rows, pauses=())
    server.answers["/b"] = [RIGHT]
    get(*rows)
    assert server.asked.count("/a") == 1


def test_datasets_that_share_a_registry_download_each_file_once(server, dataset, tmp_path):
    registry, outputs = tmp_path / "registry.csv", [tmp_path / f"{number}.csv" for number in range(4)]
    registry.write_text(f"file,sha256,url\na.tif,{SHA256},{server.url('/a', RIGHT)}\n")
    settings = dataset(source={"kind": "download", "registry": str(registry)})
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda output: download(settings, tmp_path / "data", None, output), outputs))
    assert server.asked == ["/a"]
    assert len({output.read_text() for output in outputs}) == 1
    assert files(tmp_path / "data") == {"a.tif"}


def test_others_may_read_a_file_as_the_umask_of_the_user_allows(server, get, tmp_path):
    before = os.umask(0o022)
    try:
        get(["a.tif", SHA256, server.url("/a", RIGHT)])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "data" / "a.tif").stat().st_mode) == 0o644


def test_the_mirror_is_looked_in_first(server, get, tmp_path):
    (tmp_path / "mirror" / "set").mkdir(parents=True)
    (tmp_path / "mirror" / "set" / "a.tif").write_bytes(CONTENT)
    rows = get(["set/a.tif", SHA256, server.url("/a", RIGHT)], mirror=tmp_path / "mirror")
    assert server.asked == []
    assert rows[0]["sha256"] == SHA256


def test_the_environment_variable_wins_over_the_argument(server, get, tmp_path, monkeypatch):
    for name, content in (("good", CONTENT), ("bad", b"")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.tif").write_bytes(content)
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path / "good"))
    get(["a.tif", SHA256, server.url("/a", RIGHT)], mirror=tmp_path / "bad")
    assert server.asked == []


@pytest.mark.parametrize("content", [None, b"other"])
def test_what_the_mirror_lacks_or_has_in_another_version_is_downloaded(server, get, tmp_path, content):
    (tmp_path / "mirror").mkdir()
    if content is not None:
        (tmp_path / "mirror" / "a.tif").write_bytes(content)
    get(["a.tif", SHA256, server.url("/a", RIGHT)], mirror=tmp_path / "mirror")
    assert (tmp_path / "data" / "a.tif").read_bytes() == CONTENT


def test_a_mirror_that_is_no_folder_is_a_user_error(server, get, tmp_path):
    with pytest.raises(UserError, match=r"data_mirror: found .*nowhere', allowed: a folder that exists"):
        get(["a.tif", SHA256, server.url("/a", RIGHT)], mirror=tmp_path / "nowhere")


def tiff(value: int) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, np.full((16, 16), value, np.uint16))
    return out.getvalue()


@pytest.fixture
def unknown(server):
    """Return a row of a registry for a TIFF whose hash nobody knows."""
    return ["set/a.tif", "", server.url("/a", (200, tiff(1)))]


def test_a_hash_that_nobody_knows_is_recorded_beside_the_registry_and_said(unknown, get, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    sha256 = hashlib.sha256(tiff(1)).hexdigest()
    assert get(unknown)[0]["sha256"] == sha256
    assert f"its sha256 is not published; {sha256} is recorded in {tmp_path / 'registry.lock'}" in caplog.text
    assert read_lock(tmp_path / "registry.lock") == {"set/a.tif": sha256}


def test_a_recorded_hash_is_held_to_even_where_the_data_are_gone(server, unknown, get, tmp_path):
    get(unknown)
    (tmp_path / "data" / "set" / "a.tif").unlink()
    server.answers["/a"] = [(200, tiff(2))]
    with pytest.raises(UserError, match=f"its sha256 must be {hashlib.sha256(tiff(1)).hexdigest()} or the one in "):
        get(unknown)
    server.answers["/a"] = [(200, tiff(1))]
    get(unknown)


def test_the_hashes_of_several_files_stand_in_one_lock_file(server, unknown, get, tmp_path):
    get(unknown)
    get(unknown, ["b.tif", "", server.url("/b", (200, tiff(2)))])
    assert set(read_lock(tmp_path / "registry.lock")) == {"set/a.tif", "b.tif"}


@pytest.mark.parametrize("page", [b"<html>we are sorry</html>", tiff(1)[:-100]], ids=["page", "half an image"])
def test_what_is_no_whole_image_is_not_recorded_as_right(server, unknown, get, tmp_path, page):
    server.answers["/a"] = [(200, page)]
    with pytest.raises(UserError, match=f"found {len(page)} bytes that are not a .tif image"):
        get(unknown)
    assert files(tmp_path) == {"registry.csv"}


def test_a_file_put_there_by_hand_is_taken_where_nobody_knows_its_hash(server, unknown, get, tmp_path):
    server.answers["/a"] = [(404, b"")]
    (tmp_path / "data" / "set").mkdir(parents=True)
    (tmp_path / "data" / "set" / "a.tif").write_bytes(tiff(3))
    get(unknown)
    assert read_lock(tmp_path / "registry.lock") == {"set/a.tif": hashlib.sha256(tiff(3)).hexdigest()}


@pytest.fixture
def versions(server):
    """Return rows of a file with two addresses: one without a hash, and one of another version with a hash."""
    other = ["set/a.tif", hashlib.sha256(tiff(2)).hexdigest(), server.url("/b", (200, tiff(2)))]
    return ["set/a.tif", "", server.url("/a", (200, tiff(1)))], other


def test_each_address_has_a_version_and_a_hash_of_its_own(server, versions, get, tmp_path):
    first, second = (hashlib.sha256(tiff(value)).hexdigest() for value in (1, 2))
    assert get(*versions)[0] == {
        "file": "set/a.tif",
        "sha256": first,
        "bytes": str(len(tiff(1))),
        "origin": versions[0][2],
    }
    assert read_lock(tmp_path / "registry.lock") == {"set/a.tif": first}
    (tmp_path / "data" / "set" / "a.tif").unlink()
    server.answers["/a"] = [(200, tiff(3))]
    found = get(*versions)[0]
    assert (found["sha256"], found["origin"]) == (second, versions[1][2]), (
        "neither is the recorded one, nor is it taken"
    )
    assert read_lock(tmp_path / "registry.lock") == {"set/a.tif": first}


def test_the_second_version_is_taken_where_the_first_was_never_seen(server, versions, get, tmp_path):
    server.answers["/a"] = [(404, b"")]
    assert get(*versions)[0]["origin"] == versions[1][2]
    assert read_lock(tmp_path / "registry.lock") == {}
    server.asked.clear()
    get(*versions)
    assert server.asked == []


def test_a_damaged_file_is_not_taken_at_the_address_with_a_hash(server, versions, get):
    server.answers |= {"/a": [(404, b"")], "/b": [(200, tiff(3))]}
    with pytest.raises(UserError, match=r"found sha256 .* allowed") as error:
        get(*versions, pauses=())
    assert "its sha256 must be" not in str(error.value)


def test_a_damaged_lock_file_is_named(unknown, get, tmp_path):
    (tmp_path / "registry.lock").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"registry.lock: cannot be read as a table of file,sha256"):
        get(unknown)


def archive(**members) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return out.getvalue()


def test_members_of_an_archive_are_taken_out_of_one_download(server, get, tmp_path):
    content = archive(**{"in/a.tif": CONTENT, "../../b.tif": CONTENT[1:]})
    url, sha256 = server.url("/zip", CORRUPTED, (200, content)), hashlib.sha256(content).hexdigest()
    other = hashlib.sha256(CONTENT[1:]).hexdigest()
    get(["a.tif", SHA256, url, "in/a.tif", sha256], ["b.tif", other, url, "../../b.tif", sha256])
    assert len(server.asked) == 2
    assert files(tmp_path / "data") == {"a.tif", "b.tif"}
    assert files(tmp_path) == {"data/a.tif", "data/b.tif", "files.csv", "registry.csv"}


def test_an_archive_of_the_right_hash_vouches_for_another_version_of_a_file(server, get, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    content = archive(**{"in/a.tif": tiff(1)})
    rows = [
        ["a.tif", SHA256, server.url("/gone", (404, b""))],
        ["a.tif", "", server.url("/zip", (200, content)), "in/a.tif", hashlib.sha256(content).hexdigest()],
    ]
    assert get(*rows)[0]["origin"] == rows[1][2]
    assert "is recorded" in caplog.text
    server.asked.clear()
    get(*rows)
    assert server.asked == []


def test_dead_addresses_are_named_with_the_archive_and_where_to_put_the_file(server, get, tmp_path):
    first, second = server.url("/gone", (404, b"")), server.url("/zip", (404, b""))
    with pytest.raises(UserError) as error:
        get(["set/a.tif", SHA256, first], ["set/a.tif", "", second, "in/a.tif", SHA256], pauses=())
    for part in (
        f"could not be downloaded ({first}: HTTP status 404; {second}: HTTP status 404)",
        f"download it by hand from {first} or {second} (an archive: take in/a.tif out of it)",
        f"save it as {tmp_path / 'data' / 'set' / 'a.tif'}, or as set/a.tif in a folder that DVLAE_DATA_MIRROR names",
        f"its sha256 must be {SHA256} or the one in {tmp_path / 'registry.lock'}",
    ):
        assert part in str(error.value)


def test_an_archive_without_the_member_and_one_that_is_none_are_user_errors(server, get):
    with pytest.raises(UserError, match="the archive has no member 'b'"):
        get(["b.tif", SHA256, server.url("/zip", (200, archive(a=b"1"))), "b"], pauses=())
    with pytest.raises(UserError, match="the archive is damaged"):
        get(["b.tif", SHA256, server.url("/no", (200, b"<html>")), "b"], pauses=())


def test_an_archive_without_a_hash_is_downloaded_again_if_its_member_is_wrong(server, get):
    contents = [(200, archive(a=content)) for content in (CONTENT[1:], CONTENT)]
    get(["a.tif", SHA256, server.url("/zip", *contents), "a"])
    assert server.asked == ["/zip", "/zip"]


def zipped(member: zipfile.ZipInfo, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(member, content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def test_a_link_in_an_archive_is_refused(server, get, tmp_path):
    """It is read as the text that it contains, and never followed."""
    (tmp_path / "target.tif").write_bytes(CONTENT)
    link = zipfile.ZipInfo("a.tif")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    content = zipped(link, str(tmp_path / "target.tif").encode())
    with pytest.raises(UserError, match="found sha256 "):
        get(["a.tif", SHA256, server.url("/zip", (200, content)), "a.tif"], pauses=())
    assert files(tmp_path) == {"registry.csv", "target.tif"}


def test_an_archive_with_a_password_is_refused(server, get):
    content = bytearray(zipped(zipfile.ZipInfo("a.tif"), CONTENT))
    content[6] |= 1  # the flags of the member, and of its entry in the directory
    content[content.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(UserError, match=r"the archive is damaged .*encrypted"):
        get(["a.tif", SHA256, server.url("/zip", (200, bytes(content))), "a.tif"], pauses=())


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n"


@pytest.fixture
def rude(monkeypatch):
    """Return a function that serves these bytes once, and then resets or stalls; a second call gets the right file."""
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(dvlae.data.download, "TIMEOUT_SECONDS", 0.5)
    answers, stalled = [], []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connection.recv(2**16)
            content, then = answers.pop(0) if answers else (HEAD % str(len(CONTENT)).encode() + CONTENT, "close")
            connection.sendall(content)
            if then == "stall":
                stalled.append(connection)  # open, and silent
                continue
            if then == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    threading.Thread(target=serve, daemon=True).start()

    def answer(content: bytes, then: str) -> str:
        answers.append((content, then))
        return f"http://127.0.0.1:{listening.getsockname()[1]}/a"

    yield answer
    for connection in [listening, *stalled]:
        connection.close()


@pytest.mark.parametrize(
    ("answer", "then"),
    [
        (b"", "stall"),
        (HEAD % b"512000" + CONTENT[:1000], "stall"),
        (b"", "reset"),
        (HEAD % b"512000" + CONTENT[:1000], "reset"),
        (HEAD % b"100" + CONTENT, "close"),
        (HEAD % b"999999" + CONTENT, "close"),
        (HEAD % b"many" + CONTENT, "close"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Please log in</html>", "close"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc", "close"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nno gzip", "close"),
        (b"220 an FTP server\r\n", "close"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_server_that_stalls_resets_lies_or_excuses_itself_is_overcome(rude, get, tmp_path, caplog, answer, then):
    url = rude(answer, then)
    get(["a.tif", SHA256, url])
    assert (tmp_path / "data" / "a.tif").read_bytes() == CONTENT
    (warning,) = caplog.messages
    assert warning.startswith(f"{url}: ") and "\n" not in warning


def test_a_dataset_without_a_registry_has_nothing_to_download(tmp_path, dataset):
    with pytest.raises(UserError, match=r"source.kind: found 'files'"):
        download(dataset(), tmp_path, None, tmp_path / "files.csv")
