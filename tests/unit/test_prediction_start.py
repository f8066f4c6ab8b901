"One clip is predicted without the heavy packages, and a file's oddity is one line"
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf

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
def voice(tmp_path):
    "Harmonics of a moving pitch in syllables: no speech, but predicted as one"
    t = np.arange(2 * SR) / SR
    pitch = np.cumsum(140 + 30 * np.sin(2 * np.pi * .7 * t)) / SR
    sound = sum(np.sin(2 * np.pi * k * pitch) / k for k in range(1, 20)) * (.55 + .45 * np.sin(2 * np.pi * 4 * t))
    noise = np.random.default_rng(0).normal(size=len(t)) * .01
    sf.write(tmp_path/'voice.wav', .1 * sound + noise, SR)
    return tmp_path/'voice.wav'


@pytest.mark.parametrize('how', [(), ('--model', 'functionals')], ids=['default', 'functionals'])
def test_a_clip_is_predicted_without_the_packages_that_take_long_to_import(voice, how):
    done = subprocess.run([sys.executable, '-c', SCRIPT, voice, '--json', *how], capture_output=True, text=True)
    assert json.loads(done.stdout)['file'] == str(voice), done.stderr
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert 'openvino' in loaded and not loaded & HEAVY, loaded & HEAVY


def test_what_is_odd_about_a_file_is_one_line_after_its_name(voice):
    whole = voice.read_bytes()
    voice.write_bytes(whole + whole) # another sound follows
    done = subprocess.run([sys.executable, '-c', SCRIPT, voice, '--json'], capture_output=True, text=True)
    *notes, _ = done.stderr.splitlines()
    assert len(notes) == 1 and notes[0].startswith(f'{voice}: another sound follows'), notes
