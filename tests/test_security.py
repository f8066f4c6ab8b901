"Nothing that comes from outside becomes code, a command, or a file where it has no business"
import ast
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from campaign import sounds
from conftest import ROOT
from helpers import command

from ser_nb.combining_datasets import scan, unpack
from ser_nb.corpora import find_files
from ser_nb.files import fingerprint

pytestmark = pytest.mark.jobs

CALLS = {
    'eval', 'exec', 'compile', '__import__', 'os.system', 'os.popen', 'pickle.load', 'pickle.loads',
    'joblib.load', 'dill.load', 'marshal.loads', 'shelve.open', 'yaml.load', 'pd.read_pickle', 'torch.load',
    'tempfile.mktemp'}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call): yield ast.unparse(node.func), node


@pytest.mark.parametrize('path', sorted((ROOT/'ser_nb').glob('*.py')), ids=lambda p: p.stem)
def test_no_pickle_no_shell_and_no_evaluated_text(path):
    tree = ast.parse(path.read_text())
    for name, node in calls(tree):
        assert name not in CALLS, (name, node.lineno)
        unsafe = [k for k in node.keywords if k.arg in ('shell', 'allow_pickle', 'trusted')]
        assert not [k for k in unsafe if ast.unparse(k.value) == 'True'], (name, node.lineno)
    imported = {
        a.name.split('.')[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for a in ([ast.alias(node.module or '')] if isinstance(node, ast.ImportFrom) else node.names)}
    assert not imported & {'pickle', 'cPickle', 'dill', 'cloudpickle', 'marshal', 'shelve'}


def test_every_locked_package_has_its_hashes_and_no_address():
    for lock in (ROOT/'requirements').glob('*.txt'):
        text = lock.read_text()
        names = re.findall(r'^([a-z0-9][\w.\-\[\]]*)==', text, re.M)
        assert len(names) > 50 and '://' not in text and not re.search(r'^-', text, re.M)
        assert all('--hash=sha256:' in entry for entry in re.split(r'\n(?=[a-z0-9])', text) if '==' in entry)


def test_the_first_download_of_the_set_up_is_checked_against_its_hash(tmp_path):
    wheel, lock, venv = tmp_path/'uv-0.0.1-py3-none-any.whl', tmp_path/'lock.txt', tmp_path/'venv'
    with zipfile.ZipFile(wheel, 'w') as z:
        z.writestr('uv-0.0.1.dist-info/METADATA', 'Metadata-Version: 2.1\nName: uv\nVersion: 0.0.1\n')
        z.writestr('uv-0.0.1.dist-info/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        z.writestr('uv-0.0.1.dist-info/RECORD', '')
    call = ['make', 'setup', f'VENV={venv}', f'LOCK={lock}', f'PYTHON={sys.executable}']
    local = os.environ | dict(PIP_NO_INDEX='1', PIP_FIND_LINKS=str(tmp_path), PIP_CONFIG_FILE=os.devnull)
    for sha in ('0' * 64, fingerprint(wheel)):
        lock.write_text(f'uv==0.0.1 \\\n    --hash=sha256:{sha}\nwheel==1 --hash=sha256:0\n')
        done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, env=local)
        installed = list(venv.glob('lib/*/site-packages/uv-0.0.1.dist-info'))
        assert done.returncode and not (venv/'.ready').exists()  # this uv is empty: nothing follows it
        assert bool(installed) == (sha != '0' * 64) == ('DO NOT MATCH THE HASHES' not in done.stderr), done.stderr


def test_an_archive_that_says_it_is_smaller_than_it_is_writes_no_more_than_it_said(tmp_path):
    with zipfile.ZipFile(tmp_path/'a.zip', 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('a.wav', bytes(50_000_000))
    data = (tmp_path/'a.zip').read_bytes()
    (tmp_path/'a.zip').write_bytes(data.replace((50_000_000).to_bytes(4, 'little'), (1000).to_bytes(4, 'little')))
    with pytest.raises(ValueError, match='a.zip: archive refused'): unpack(tmp_path/'a.zip', tmp_path/'out')
    assert not list((tmp_path/'out').iterdir())


def test_an_archive_of_very_many_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path/'a.zip', 'w') as z:
        for i in range(100_001): z.writestr(zipfile.ZipInfo(f'{i}'), b'')
    with pytest.raises(ValueError, match='it has 100,001 members'): unpack(tmp_path/'a.zip', tmp_path/'out')


def test_other_archives_are_not_opened_and_are_listed(tmp_path):
    with tarfile.open(tmp_path/'a.tar.gz', 'w:gz') as t: t.add(__file__, '../x')
    clips, rejected = scan(tmp_path)
    assert (
        len(clips) == 0
        and rejected.reason.tolist() == ['.gz is not the ending of a sound file']
        and [p.name for p in tmp_path.iterdir()] == ['a.tar.gz'])


def test_names_are_never_commands_paths_or_templates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [
        '$(touch hacked).wav', '`touch hacked`.wav', ';touch hacked;.wav', '{{7*7}}.wav', '<script>x.wav',
        '-rf.wav', '%s%n.wav', 'a\nb.wav']
    (tmp_path/'in').mkdir()
    for name in names: (tmp_path/'in'/name).write_bytes(sounds()['wav'])
    code, out, _ = command(
        'predict', tmp_path/'in', '--json', '--plot', tmp_path/'pictures', '--run',
        ROOT/'nbs' / 'model' / 'functionals')
    assert code == 0 and sorted(Path(json.loads(line)['file']).name for line in out.splitlines()) == sorted(names)
    assert {p.name for p in tmp_path.iterdir()} == {'in', 'pictures'} and {
        p.name for p in (tmp_path/'pictures').iterdir()
    } == {f'{n}.png' for n in names}


def test_a_page_of_a_run_shows_markup_as_text(tmp_path):
    metrics = json.loads((ROOT/'nbs' / 'results' / 'metrics.json').read_text()) | dict(
        data={'<script>alert(1)</script>': '<img src=x onerror=alert(1)>'})
    (tmp_path/'metrics.json').write_text(json.dumps(metrics))
    assert command('report', tmp_path)[0] == 0
    page = (tmp_path/'report.html').read_text()
    assert '<script' not in page and '<img src=x' not in page and "default-src 'none'" in page


def test_the_demo_listens_on_this_machine_only_unless_told_otherwise():
    from ser_nb.command_line import demo
    assert {p.name: p.default for p in demo.params}['host'] == '127.0.0.1'


def test_links_that_lead_in_a_circle_end(tmp_path):
    (tmp_path/'a').mkdir()
    (tmp_path/'a' / 'b').symlink_to(tmp_path)
    (tmp_path/'a'/'x.wav').write_bytes(sounds()['wav'])
    assert [p.name for p in find_files(tmp_path)] == ['x.wav']


def test_every_promise_names_a_test_that_is_there():
    rows = [line for line in (ROOT/'SECURITY.md').read_text().splitlines() if line.startswith('| ')][2:]
    for row in rows:
        named = re.search(r'\| `(\S+\.py)::(test_\w+)` \|$', row)
        assert named, f'no test: {row}'
        tree = ast.parse((ROOT/'tests'/named[1]).read_text())
        assert named[2] in {
            f.name for f in tree.body if isinstance(f, ast.FunctionDef)
        }, f'{named[1]} has no {named[2]}'
    assert len(rows) > 40
