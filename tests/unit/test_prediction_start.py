"One clip is predicted without the heavy packages, and a file's oddity is one line"
import json
import subprocess
import sys

import pytest
import soundfile as sf
from helpers import voice

from ser_nb.audio import SR

pytestmark = pytest.mark.unit
HEAVY = {
    'pandas', 'joblib', 'sklearn', 'librosa', 'tensorflow', 'keras', 'matplotlib', 'openvino.tools.ovc', 'papermill',
    'numba', 'gradio', 'h5py'}
SCRIPT = '''
import json, sys
from ser_nb.command_line import main
try: main(['predict', *sys.argv[1:]], standalone_mode=False)
except SystemExit: pass
print(json.dumps(sorted(m for m, module in sys.modules.items() if module)), file=sys.stderr)
'''


@pytest.fixture
def clip(tmp_path):
    sf.write(tmp_path/'voice.wav', voice(2), SR)
    return tmp_path/'voice.wav'


@pytest.mark.parametrize('how', [(), ('--model', 'functionals')], ids=['default', 'functionals'])
def test_a_clip_is_predicted_without_the_packages_that_take_long_to_import(clip, how):
    done = subprocess.run([sys.executable, '-c', SCRIPT, clip, '--json', *how], capture_output=True, text=True)
    assert json.loads(done.stdout)['file'] == str(clip), done.stderr
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert 'openvino' in loaded and not loaded & HEAVY, loaded & HEAVY


def test_what_is_odd_about_a_file_is_one_line_after_its_name(clip):
    whole = clip.read_bytes()
    clip.write_bytes(whole + whole) # another sound follows
    done = subprocess.run([sys.executable, '-c', SCRIPT, clip, '--json'], capture_output=True, text=True)
    *notes, _ = done.stderr.splitlines()
    assert len(notes) == 1 and notes[0].startswith(f'{clip}: another sound follows'), notes
