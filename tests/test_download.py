"Downloads from a server that behaves badly, on the loopback address"
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from ser_nb import combining_datasets
from ser_nb.combining_datasets import download_ravdess

pytestmark = pytest.mark.jobs

BODY = np.random.default_rng(0).bytes(3_000_000)


class Server(BaseHTTPRequestHandler):
    "Serves BODY under every name; `mood` says how"
    mood, asked = 'well', []

    def do_GET(self):
        start = int(self.headers.get('Range', 'bytes=0-')[6:-1]) if self.mood != 'ignores ranges' else 0
        Server.asked.append((self.path, start))
        if self.mood == 'missing': return self.send_error(404)
        body = b'<html>busy</html>' if self.mood == 'another file' else BODY
        if start >= len(body) and start: return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header('Content-Length', str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:start + 1_200_000] if self.mood == 'breaks off' else body[start:])

    def log_message(self, *args): pass


@pytest.fixture
def url(monkeypatch):
    md5 = 'md5:' + hashlib.md5(BODY).hexdigest()
    monkeypatch.setattr(combining_datasets, 'ARCHIVES', {name: md5 for name in combining_datasets.ARCHIVES})
    server = ThreadingHTTPServer(('127.0.0.1', 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Server.mood, Server.asked = 'well', []
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


def test_both_archives_arrive_whole_and_are_not_fetched_twice(url, tmp_path):
    paths = download_ravdess(tmp_path, url)
    assert [p.read_bytes() == BODY for p in paths] == [True, True]
    asked = len(Server.asked)
    assert download_ravdess(tmp_path, url) == paths and len(Server.asked) == asked


def test_a_download_that_broke_off_goes_on_where_it_was(url, tmp_path):
    Server.mood = 'breaks off'
    for _ in range(2):
        with pytest.raises(
            OSError, match='of 3,000,000 bytes; run again to go on|IncompleteRead|Connection broken'):
            download_ravdess(tmp_path, url)
        assert not list(tmp_path.glob('*.zip'))
    Server.mood = 'well'
    assert all(p.read_bytes() == BODY for p in download_ravdess(tmp_path, url))
    speech = [start for path, start in Server.asked if 'Speech' in path]
    assert speech[0] == 0 and 0 < speech[1] < speech[2] < len(BODY)


def test_a_server_that_ignores_ranges_does_not_corrupt_the_file(url, tmp_path):
    (tmp_path/'Audio_Speech_Actors_01-24.zip.part').write_bytes(b'left from before')
    Server.mood = 'ignores ranges'
    assert all(p.read_bytes() == BODY for p in download_ravdess(tmp_path, url))


def test_a_part_longer_than_the_file_is_dropped_and_said(url, tmp_path):
    part = tmp_path/'Audio_Speech_Actors_01-24.zip.part'
    part.write_bytes(bytes(4_000_000))
    with pytest.raises(OSError, match='run again to start afresh'): download_ravdess(tmp_path, url)
    assert not part.exists()


@pytest.mark.parametrize(
    'mood, message', [('another file', 'what came is not the published archive'), ('missing', '404')])
def test_a_wrong_answer_is_refused_by_address_and_leaves_no_archive(url, tmp_path, mood, message):
    Server.mood = mood
    with pytest.raises((OSError, ValueError), match=message) as refused: download_ravdess(tmp_path, url)
    assert 'Audio_Speech_Actors_01-24.zip' in str(refused.value) and not list(tmp_path.glob('*.zip'))


def test_no_server_is_one_line(tmp_path):
    with pytest.raises(OSError, match='127.0.0.1'): download_ravdess(tmp_path, 'http://127.0.0.1:9')
