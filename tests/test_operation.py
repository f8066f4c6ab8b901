"The command where something around it is odd: names, a full disk for temporary files, a hundred pictures, no output"
import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import SER_NB, no_traceback, ser_nb
from helpers import small_disk, write_noise

pytestmark = pytest.mark.jobs
MODEL = ('--model', 'functionals')


@pytest.fixture
def sound(tmp_path): return write_noise(tmp_path/'a.wav')


def test_a_picture_is_closed_when_it_is_saved(sound, tmp_path):
    script = (
        "import sys\nfrom ser_nb.command_line import main\n"
        "try: main(['predict', *sys.argv[1:]], standalone_mode=False)\nexcept SystemExit: pass\n"
        "import matplotlib.pyplot as plt\nprint(len(plt.get_fignums()), file=sys.stderr)")
    copies = [shutil.copy(sound, tmp_path/f'{i}.wav') for i in range(3)]
    call = [sys.executable, '-c', script, *copies, '--plot', tmp_path/'pictures', *MODEL]
    done = subprocess.run(call, capture_output=True, text=True)
    assert len(list((tmp_path/'pictures').iterdir())) == 3, done.stderr
    assert done.stderr.splitlines()[-1] == '0'


@pytest.mark.skipif(os.name == 'nt', reason='names are text there')
def test_names_that_are_not_utf8_or_control_the_terminal_are_answered_and_escaped(sound, tmp_path):
    (folder := tmp_path/'in').mkdir()
    for name in (b'caf\xe9.wav', b'\x1b[2J.wav', b'bad\x1b[2J.wav', b'bad\xff.wav'):
        path = os.fsencode(folder) + b'/' + name
        shutil.copyfile(sound, path) if b'bad' not in name else open(path, 'wb').write(b'no sound')
    done = ser_nb('predict', folder, '--json', *MODEL)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    *named, counted = done.stderr.splitlines()
    assert len(done.stdout.splitlines()) == len(named) == 2 and counted == '2 of 4 files were skipped'
    assert '\x1b' not in done.stdout + done.stderr and 'caf' in done.stdout
    assert [json.loads(line)['file'] for line in done.stdout.splitlines()]


def test_standard_input_needs_no_room_for_temporary_files(sound, tmp_path):
    with small_disk(tmp_path, '16k') as (disk, _):
        with pytest.raises(OSError, match='No space left'): (disk/'full').write_bytes(bytes(1 << 20))
        call = [SER_NB, 'predict', '-', '--json', *MODEL]
        done = subprocess.run(call, input=sound.read_bytes(), capture_output=True,
                              env=os.environ | dict(TMPDIR=str(disk)))
        assert done.returncode == 0 and json.loads(done.stdout)['file'] == '-', done.stderr


@pytest.mark.parametrize('where', ['>&-', '> /dev/full', '| true'])
def test_a_prediction_that_cannot_be_written_is_a_failure(where, sound):
    call = f'set -o pipefail; "$@" {where}'
    done = subprocess.run(
        ['bash', '-c', call, 'bash', SER_NB, 'predict', *[sound] * 40, '--json', *MODEL],
        capture_output=True, text=True)
    assert done.returncode == 1 and no_traceback(done)


def test_no_hint_says_pip_install_ser_nb_which_is_not_on_pypi():
    from conftest import ROOT
    for path in [*ROOT.glob('*.md'), *ROOT.glob('nbs/**/*.ipynb'), *ROOT.glob('ser_nb/*.py')]:
        assert "pip install 'ser_nb" not in path.read_text(), f'{path}: ser_nb is not published'


@pytest.mark.skipif(os.name == 'nt', reason='devices are files elsewhere')
def test_a_clip_table_that_names_a_device_ends(tmp_path):
    rows = ['file,path,corpus,speaker,gender,emotion,label,split']
    rows += [f'{i},/dev/zero,mine,{i},,happy,happy,{s}' for i, s in enumerate(('train', 'test'))]
    (tmp_path/'clips.csv').write_text('\n'.join(rows) + '\n')
    done = subprocess.run([SER_NB, 'audit', tmp_path/'clips.csv'], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith('note: not_compared, 2 clips') and not done.stderr, done
