"The demo over HTTP: whose files it opens and deletes, whom it answers, what it leaves on disk; its page in a browser"
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile as sf
from conftest import SER_NB, chromium
from helpers import write_noise

from ser_nb.audio import SR, load_sound
from ser_nb.corpora import EMOTIONS
from ser_nb.prediction import EmotionModel, pretrained

pytestmark = pytest.mark.jobs

SECRET = 'the secret of this machine'
META = {'_type': 'gradio.FileData'}


@pytest.fixture(scope='module')
def model(): return EmotionModel.load(pretrained())


@pytest.fixture(scope='module')
def sound(tmp_path_factory): return write_noise(tmp_path_factory.mktemp('sound')/'a.wav')


@contextmanager
def demo(folder, **options):
    "A demo of a process of its own that keeps its uploads in `folder`; a client of its address"
    script = (
        'import json, sys\nfrom ser_nb.demo import serve_demo\nfrom ser_nb.prediction import EmotionModel,'
        ' pretrained\n')
    script += 'serve_demo(EmotionModel.load(pretrained()), port=0, **json.loads(sys.argv[1]))'
    server = subprocess.Popen(
        [sys.executable, '-c', script, json.dumps(options)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=os.environ | dict(TMPDIR=str(folder)))
    address = server.stdout.readline().strip()
    assert address.startswith('http://'), server.stderr.read()
    try:
        with httpx.Client(base_url=address, timeout=30) as client:
            client.process = server
            yield client
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)


@pytest.fixture(scope='module')
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo')
    with demo(folder, max_mb=1, total_mb=3, names=['desk.lan']) as client:
        client.folder = folder
        yield client


@pytest.fixture
def secret(tmp_path):
    path = tmp_path/'secret.wav'
    path.write_text(SECRET)
    return path


def upload(client, path, **kw):
    return client.post('/gradio_api/upload', files=dict(files=(Path(path).name, open(path, 'rb'))), **kw)
def file_data(path, **more): return dict(path=str(path), meta=META, **more)
def join(client, data, fn_index=1, session='s1', **kw):
    return client.post('/gradio_api/queue/join', json=dict(data=data, fn_index=fn_index, session_hash=session), **kw)


def answer(client, session='s1'):
    "What the queue says to a session, as text"
    with client.stream('GET', '/gradio_api/queue/data', params=dict(session_hash=session)) as response:
        said = ''
        for line in response.iter_lines():
            said += line
            if 'process_completed' in line or 'close_stream' in line: return said
    return said


def kept(folder): return sorted(p for p in Path(folder).rglob('*') if p.is_file() and p.name != '.lock')


# uploads still work

def test_an_upload_is_answered_and_deleted(client, sound):
    (path,) = upload(client, sound).json()
    assert Path(path).is_file() and client.get(f'/gradio_api/file={path}').content == sound.read_bytes()
    assert join(client, [file_data(path)]).status_code == 200
    assert 'data-emotion' in answer(client)
    assert not Path(path).exists() and not kept(client.folder)
    assert client.get(f'/gradio_api/file={path}').status_code == 404
    assert join(client, [file_data(path)]).status_code == 403 # a second time


def test_the_same_bytes_sent_by_two_are_answered_to_both(client, sound):
    first, second = (upload(client, sound).json()[0] for _ in range(2))
    assert first != second
    for i, path in enumerate((first, second)):
        join(client, [file_data(path)], session=f'two{i}')
        assert 'data-emotion' in answer(client, f'two{i}')


def test_the_client_of_gradio_gets_an_answer(client, sound):
    from gradio_client import Client, handle_file
    assert 'data-emotion' in str(
        Client(str(client.base_url), verbose=False).predict(handle_file(str(sound)), api_name='/answer'))


def test_a_gradio_that_cannot_be_imported_without_its_stubs_is_imported_with_them(tmp_path):
    package = tmp_path/'gradio'
    package.mkdir()
    (package/'__init__.py').write_text('from gradio import component_meta')
    as_in_5_0 = 'import inspect\nclass Component: pass\ninspect.getfile(Component)'
    (package/'component_meta.py').write_text(as_in_5_0)
    code = 'from ser_nb.demo import import_gradio; print(import_gradio().__file__)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == str(package/'__init__.py'), done.stderr


# files of the machine

ROUTES = {
    'queue': '/gradio_api/queue/join', 'call': '/gradio_api/call/answer',
    'call v2': '/gradio_api/call/v2/answer', 'run': '/gradio_api/run/answer',
    'api': '/gradio_api/api/answer', 'stream': '/gradio_api/stream/x',
    'call of the second': '/gradio_api/call/answer_1'}


@pytest.mark.parametrize('route', ROUTES)
@pytest.mark.parametrize(
    'more',
    [
        {}, dict(is_stream=True), dict(url='http://127.0.0.1/x'),
        dict(orig_name='a.wav', size=3, mime_type='audio/wav')])
@pytest.mark.parametrize('index', [0, 1])
def test_no_route_opens_or_deletes_a_file_that_a_request_names(client, secret, route, more, index):
    body = dict(data=[file_data(secret, **more)], fn_index=index, session_hash=f'thief{index}')
    response = client.post(ROUTES[route], json=body)
    assert response.status_code in (400, 403, 404) and SECRET not in response.text
    assert secret.read_text() == SECRET and not [p for p in kept(client.folder) if p.read_bytes() == SECRET.encode()]


@pytest.mark.parametrize(
    'path',
    [
        '/etc/passwd', '../../etc/passwd', '{root}/../../../../etc/passwd', 'https://example.org/a.wav',
        'file:///etc/passwd', '{root}', '', 0, None, ['/etc/passwd'], {'path': '/etc/passwd', 'meta': META},
    ])
def test_a_request_that_names_no_upload_is_refused(client, path):
    if isinstance(path, str): path = path.replace('{root}', str(next(client.folder.iterdir())))
    assert join(client, [dict(path=path, meta=META)]).status_code in (400, 403)


@pytest.mark.parametrize(
    'data', [None, 'x', 3, [['/etc/passwd']], [{'a': [{'path': '/etc/passwd', 'meta': META}]}], ['/etc/passwd']]
)
def test_a_request_of_another_shape_is_refused(client, data): assert join(client, data).status_code in (400, 403)


def test_a_link_in_the_folder_of_uploads_is_not_followed(client, secret):
    root = next(client.folder.iterdir())
    (root/'link').mkdir(exist_ok=True)
    (root/'link'/'a.wav').symlink_to(secret)
    try:
        assert join(client, [file_data(root/'link'/'a.wav')]).status_code == 403
        assert client.get(f'/gradio_api/file={root}/link/a.wav').status_code == 404
    finally:
        (root/'link'/'a.wav').unlink()
        (root/'link').rmdir()
    assert secret.read_text() == SECRET


CLOSED = [
    '/gradio_api/file=/etc/passwd', '/gradio_api/file//etc/passwd', '/gradio_api/file=https://example.org/',
    '/gradio_api/deep_link?session_hash=s1', '/gradio_api/proxy=https://example.org/',
    '/gradio_api/stream/s1/r/1/playlist.m3u8', '/gradio_api/stream/s1/r/1/playlist-file',
    '/gradio_api/custom_component/x/client/y/z', '/monitoring', '/monitoring/summary', '/gradio_api/app_id',
    '/gradio_api/openapi.json', '/docs', '/openapi.json', '/gradio_api/runs',
    '/gradio_api/run-history/buckets', '/gradio_api/vibe-code/', '/gradio_api/dev/reload', '/pwa_icon',
    '/gradio_api/queue/status', '/assets/..%2f..%2f..%2fpackage.json', '/static/../package.json',
    '/gradio_api/token', '/gradio_api/upload_progress?upload_id=x']


@pytest.mark.parametrize('path', CLOSED)
def test_routes_that_the_page_does_not_need_are_closed(client, path): assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    'path',
    [
        '/gradio_api/reset', '/gradio_api/cancel', '/gradio_api/process_recording',
        '/gradio_api/vibe-edit/', '/gradio_api/vibe-code', '/login', '/gradio_api/stream/x/close',
        '/gradio_api/component_server'])
def test_nothing_but_uploads_and_requests_can_be_posted(client, path):
    assert client.post(path, json={}).status_code == 404


def test_every_route_of_gradio_that_is_open_is_on_the_list(model, tmp_path):
    from ser_nb.demo import Uploads, demo_app
    from ser_nb.demo_gate import open_route
    paths = {(m, r.path) for r in routes(demo_app(model, Uploads(tmp_path))) for m in r.methods or ()}
    opened = {path for method, path in paths if open_route(method, re.sub(r'{\w+(:path)?}', 'x', path))}
    assert len(paths) > 40 and opened <= {
        '/', '/config', '/config/', '/theme.css', '/gradio_api/theme.css', '/favicon.ico', '/manifest.json',
        '/assets/{path:path}', '/static/{path:path}', '/svelte/{path:path}', '/gradio_api/info',
        '/gradio_api/info/', '/gradio_api/startup-events', '/gradio_api/heartbeat/{session_hash}',
        '/gradio_api/queue/data', '/gradio_api/queue/join', '/gradio_api/upload',
    }, opened


def routes(app):
    for r in app.routes:
        if hasattr(r, 'methods'): yield r
        elif hasattr(r, 'original_router'): yield from routes(r.original_router)
        elif hasattr(r, 'app'): yield from routes(r.app)


def test_gradio_itself_refuses_a_file_that_was_not_uploaded(model, tmp_path, secret):
    "Without the gate: whether `has_launched` still makes it check, in this version of Gradio"
    from starlette.testclient import TestClient

    from ser_nb.demo import Uploads, demo_app
    (tmp_path/'uploads').mkdir()
    with TestClient(demo_app(model, Uploads(tmp_path/'uploads'))) as bare:
        for more in ({}, dict(is_stream=True)):
            event = bare.post('/gradio_api/call/answer', json=dict(data=[file_data(secret, **more)])).json()['event_id']
            assert 'event: error' in bare.get(f'/gradio_api/call/answer/{event}').text
        assert not kept(tmp_path/'uploads') and secret.read_text() == SECRET
        assert bare.get(f'/gradio_api/file={secret}').status_code == 403


# addresses

@pytest.mark.parametrize(
    'host',
    [
        'evil.example', 'evil.example:7860', 'localhost.evil.example', '127.0.0.1.nip.io', '192.168.0.9',
        'localhost@evil.example', ''])
def test_a_foreign_host_is_refused(client, sound, host):
    for response in (client.get('/', headers=dict(Host=host)), upload(client, sound, headers=dict(Host=host))):
        assert response.status_code in (400, 403)


@pytest.mark.parametrize(
    'origin',
    ['http://evil.example', 'null', 'http://localhost:1', 'https://127.0.0.1', 'http://127.0.0.1.evil.example'],
)
def test_a_foreign_origin_is_refused(client, sound, origin):
    for response in (
        client.get('/config', headers=dict(Origin=origin)),
        upload(client, sound, headers=dict(Origin=origin)), join(client, [], headers=dict(Origin=origin))):
        assert response.status_code == 403
    assert not kept(client.folder)


def test_its_own_names_are_answered(client):
    port = client.base_url.port
    for host in (f'127.0.0.1:{port}', f'localhost:{port}', f'[::1]:{port}', f'desk.lan:{port}', 'DESK.LAN'):
        assert client.get('/config', headers=dict(Host=host, Origin=f'http://{host}')).status_code == 200


# the disk

def test_many_files_in_one_request_are_refused(client, sound):
    files = [('files', (f'{i}.wav', sound.read_bytes())) for i in range(20)]
    assert client.post('/gradio_api/upload', files=files).status_code == 400 and not kept(client.folder)


def test_too_large_an_upload_is_refused_with_and_without_its_length(client):
    big = bytes(2 * 2**20)
    assert client.post('/gradio_api/upload', files=dict(files=('a.wav', big))).status_code == 413
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n' + big + b'\r\n--x--\r\n'
    try:
        assert (
            client.post(
                '/gradio_api/upload',
                content=iter([body[i : i + 2**16] for i in range(0, len(body), 2**16)]),
                headers={'Content-Type': 'multipart/form-data; boundary=x'},
            ).status_code
            == 413)
    except httpx.WriteError:
        pass  # it hung up
    assert not kept(client.folder)


@pytest.mark.parametrize(
    'content, kind',
    [
        (b'x', 'text/plain'), (b'files=a', 'application/x-www-form-urlencoded'),
        (b'--x\r\nnonsense', 'multipart/form-data; boundary=x'), (b'', 'multipart/form-data')])
def test_an_upload_that_is_none_is_refused(client, content, kind):
    assert client.post('/gradio_api/upload', content=content, headers={'Content-Type': kind}).status_code == 400


def test_all_uploads_together_are_limited_and_what_nobody_asks_about_is_deleted(model, tmp_path):
    from starlette.testclient import TestClient

    import ser_nb.demo as page
    with page.swept(page.Uploads(tmp_path, 1, 3), keep_s=2) as uploads:
        app = page.guard(page.demo_app(model, uploads), uploads)
        with TestClient(app, base_url='http://localhost') as client:
            def send():
                return client.post('/gradio_api/upload', files=dict(files=('a.wav', bytes(900_000)))).status_code
            codes = [send() for _ in range(10)]
            assert (
                codes[:2] == [200, 200]
                and set(codes[3:]) == {503}
                and sum(p.stat().st_size for p in kept(tmp_path)) < 3 * 2**20)
            for _ in range(80):
                if not kept(tmp_path): break
                time.sleep(.1)
            assert not kept(tmp_path) and send() == 200


def test_what_a_full_queue_turns_away_is_deleted(model, tmp_path, sound, monkeypatch):
    from starlette.testclient import TestClient

    import ser_nb.demo as page
    monkeypatch.setattr(page, '_MAX_WAITING', 1)
    monkeypatch.setattr(page, 'answer_upload', lambda *a: time.sleep(2) or 'done')
    uploads = page.Uploads(tmp_path)
    with TestClient(page.guard(page.demo_app(model, uploads), uploads), base_url='http://localhost') as client:
        paths = [upload(client, sound).json()[0] for _ in range(6)]
        codes = [join(client, [file_data(p)], session=f'q{i}').status_code for i, p in enumerate(paths)]
        assert 503 in codes
        assert [Path(p).exists() for p in paths] == [c == 200 for c in codes]


def test_a_new_start_removes_what_a_killed_demo_left_and_nothing_else(client, sound):
    folder, (living,) = client.folder, client.folder.iterdir()
    (folder/'ser_nb-demo-mine').mkdir() # without a lock it is no demo's
    (folder/'elsewhere').mkdir()
    (folder/'elsewhere' / '.lock').touch()
    (folder/'ser_nb-demo-link').symlink_to(folder/'elsewhere')
    (own,) = upload(client, sound).json()
    try:
        with demo(folder) as killed:
            (left,) = upload(killed, sound).json()
            killed.process.kill()
            killed.process.wait()
        assert Path(left).exists()
        with demo(folder):
            assert not Path(left).exists() and not Path(left).parent.parent.exists() and Path(own).exists()
        assert client.get('/config').status_code == 200
        names = {p.name for p in folder.iterdir()} - {living.name}
        assert names == {'elsewhere', 'ser_nb-demo-link', 'ser_nb-demo-mine'}
        assert (folder/'elsewhere' / '.lock').exists()
    finally:
        (folder/'ser_nb-demo-link').unlink()
        (folder/'ser_nb-demo-mine').rmdir()
        shutil.rmtree(folder/'elsewhere')
    join(client, [file_data(own)], session='own')
    assert 'data-emotion' in answer(client, 'own')


def test_its_folder_and_what_it_says_of_its_policy_are_closed_to_others(client):
    root = next(p for p in client.folder.iterdir())
    assert root.stat().st_mode & 0o077 == 0
    headers = client.get('/').headers
    assert (
        "frame-ancestors 'self'" in headers['content-security-policy']
        and headers['x-content-type-options'] == 'nosniff')


# the page in a browser

@pytest.fixture(scope='module')
def page(tmp_path_factory, one_of_each):
    "The demo in Chromium; its microphone plays a real clip; every request is noted"
    folder = tmp_path_factory.mktemp('demo')
    spoken = load_sound(one_of_each[EMOTIONS.index('angry')])
    sf.write(folder/'microphone.wav', spoken, SR, subtype='PCM_16')
    with chromium(
        '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
        f'--use-file-for-fake-audio-capture={folder}/microphone.wav',
    ) as browser:
        server = subprocess.Popen(
            [SER_NB, 'demo', '--port', '0', '--max-mb', '3', '--run', pretrained()], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=os.environ | dict(TMPDIR=str(folder)))
        address = server.stdout.readline().strip()
        assert address.startswith('http://127.0.0.1:'), server.stderr.read()
        opened = browser.new_page()
        opened.asked, opened.folder = [], folder
        opened.on('request', lambda r: opened.asked.append(r.url))
        opened.goto(address)
        opened.get_by_text('What does this voice express?').wait_for(timeout=60000)
        yield opened
        server.send_signal(signal.SIGINT) # while the page holds connections open
        said = server.communicate(timeout=20)[1]
        assert server.returncode == 0 and 'Traceback' not in said and 'Aborted' not in said, said


def shown(page): return answer.inner_text() if (answer := page.locator('#answer .ser')).count() else ''


def answer_after(page, act, seconds=30):
    "What the page says after something was done, once it says something new"
    before = shown(page)
    act()
    for _ in range(10 * seconds):
        page.wait_for_timeout(100)
        if (now := shown(page)) and now != before: return now
    raise AssertionError(f'no new answer: {before!r}')


def choose(page, path): return answer_after(page, lambda: page.locator('#file input[type=file]').set_input_files(path))


def on_page(page):
    return {
        e: float(page.locator(f'#answer [data-emotion={e}] span').nth(1).inner_text().rstrip('%')) / 100
        for e in EMOTIONS}


def test_the_page_gives_the_commands_numbers_for_a_file(page, model, one_of_each):
    for sound in one_of_each:
        said, own = choose(page, sound), model.predict(sound).iloc[0]
        assert (own.emotion or 'Unlike the training clips') in said
        assert on_page(page) == pytest.approx({e: own[e] for e in EMOTIONS}, abs=6e-4)


def test_a_broken_upload_gets_a_sentence(page, tmp_path):
    (tmp_path/'broken.wav').write_text('Dear diary')
    assert 'No prediction: no sound that can be read' in choose(page, tmp_path/'broken.wav')


def test_the_page_refuses_too_large_an_upload(page, tmp_path):
    sf.write(tmp_path/'large.wav', np.zeros(SR * 120), SR)
    page.locator('#file input[type=file]').set_input_files(tmp_path/'large.wav')
    page.get_by_text(re.compile('exceeds|too large|maximum', re.I)).first.wait_for(timeout=20000)


def test_a_microphone_recording_is_predicted(page):
    def button(name):
        return page.locator('#microphone').get_by_role('button', name=re.compile(name, re.I)).first.click()
    def record():
        button('record')
        page.wait_for_timeout(4500)
        button('stop')
    now = answer_after(page, record)
    assert on_page(page)['angry'] == max(on_page(page).values()), now


def test_an_upload_can_be_played_and_its_answer_saved(page, one_of_each):
    choose(page, one_of_each[0])
    assert Path(one_of_each[0]).name in shown(page)
    assert page.locator('#answer audio').get_attribute('src').startswith('data:audio/mpeg;base64,')
    saved = [link.get_attribute('download') for link in page.locator('#answer a[download]').all()]
    stem = Path(one_of_each[0]).stem
    assert saved == [f'{stem}.csv', f'{stem}.png']


@pytest.mark.parametrize('width', [1280, 390])
def test_an_example_shows_its_timeline_with_a_legend(page, width, tmp_path):
    page.set_viewport_size(dict(width=width, height=900))
    answer_after(page, lambda: page.get_by_role('button', name='A slow voice').click())
    said = answer_after(page, lambda: page.get_by_role('button', name='A conversation').click())
    assert 'unlike the training clips' in said and 'empty: silence' in said
    assert page.locator('#answer rect.no').count() and page.locator('#answer .row svg').count() == len(EMOTIONS)
    page.screenshot(path=tmp_path/f'conversation_{width}.png', full_page=True)
    assert page.evaluate('document.documentElement.scrollWidth') <= width


def test_an_error_looks_like_one(page, tmp_path):
    (tmp_path/'broken.wav').write_text('Dear diary')
    choose(page, tmp_path/'broken.wav')
    assert page.locator('#answer .ser.error[role=alert]').count()


def record(panel):
    panel.get_by_role('button', name='Record').first.click()
    panel.get_by_role('button', name='Stop').first.wait_for(timeout=20000)


def listen(page):
    """Record in the live tab until pieces of sound are sent.

    Gradio fetches its recorder when the tab is opened; a click on Record before it is there shows Stop and records
    nothing (`new undefined` in InteractiveAudio, Gradio 6.31). One stops, and records again.
    """
    from playwright.sync_api import TimeoutError as NothingSent
    for _ in range(4):
        try:
            with page.expect_request('**/gradio_api/upload', timeout=10000):
                record(page.locator('#live'))
            return
        except NothingSent:
            page.locator('#live').get_by_role('button', name='Stop').first.click()
    raise AssertionError('Record was clicked four times, and no sound was sent')


def test_a_voice_is_enrolled_by_microphone_compared_with_and_deleted(page, one_of_each):
    page.set_viewport_size(dict(width=1280, height=900))
    page.get_by_role('tab', name='Your voice').click()
    record(page.locator('#voice'))
    page.wait_for_timeout(14000)
    page.locator('#voice').get_by_role('button', name='Stop').first.click()
    page.get_by_text('Your voice is enrolled with').wait_for(timeout=60000)
    page.get_by_role('tab', name='A recording').click()
    assert 'compared with your voice' in choose(page, one_of_each[2])
    page.get_by_role('tab', name='Your voice').click()
    page.get_by_role('button', name='Delete my voice').click()
    page.get_by_text('Your voice is deleted').wait_for(timeout=20000)
    page.get_by_role('tab', name='A recording').click()
    assert 'compared with your voice' not in choose(page, one_of_each[3])


def test_the_page_leaves_no_recording_file_or_voice_on_the_disk(page, one_of_each):
    choose(page, one_of_each[0])
    assert [p.name for p in kept(page.folder)] == ['microphone.wav']


def test_a_live_microphone_gets_a_timeline(page):
    page.get_by_role('tab', name='Live').click()
    listen(page)
    page.locator('#live_answer .row svg').first.wait_for(timeout=60000)
    page.locator('#live').get_by_role('button', name='Stop').first.click()
    assert 'listening' in page.locator('#live_answer').inner_text()
    page.get_by_role('tab', name='A recording').click()


def test_the_page_asks_nobody_else(page, one_of_each):
    choose(page, one_of_each[1])
    assert page.asked and not [
        url
        for url in page.asked
        if not re.match(r'(http://127\.0\.0\.1:|data:|blob:http://127\.0\.0\.1:)', url)]


def test_a_piece_of_a_stream_names_uploads_and_nothing_else(client, secret, sound):
    chunk = f'/gradio_api/stream/{32 * "a"}'
    for data in ([file_data(secret, is_stream=True)], [file_data('/etc/passwd')], ['/etc/passwd']):
        body = dict(data=data, fn_index=6, session_hash='s1')
        assert client.post(chunk, json=body).status_code in (400, 403)
    (path,) = upload(client, sound).json()
    body = dict(data=[file_data(path, is_stream=True)], fn_index=6, session_hash='s1')
    assert client.post(chunk, json=body).status_code == 404 # no such stream
    assert not Path(path).exists() and secret.read_text() == SECRET
    assert client.post(f'{chunk}/close', json={}).status_code == 404 and client.get(chunk).status_code == 404
