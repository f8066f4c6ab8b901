"A speaker is enrolled, used and deleted by command; wrong calls are refused in one line"
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import command

from ser_nb import adaptation
from ser_nb.combining_datasets import sample_corpus
from ser_nb.feature_store import read_features
from ser_nb.model_files import shipped_model

pytestmark = pytest.mark.unit


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A model with a reference, and sounds"
    folder = tmp_path_factory.mktemp('enrol')
    shutil.copytree(shipped_model('functionals'), folder/'run')
    about = json.loads((folder/'run'/'model.json').read_text())
    rows = pd.concat(read_features(companions='functionals'), ignore_index=True)
    reference = adaptation.reference_statistics(rows, about['features'])
    about['reference'] = adaptation.reference_as_text(reference)
    (folder/'run'/'model.json').write_text(json.dumps(about))
    sample_corpus(folder/'sound', words=1)
    return folder


@pytest.fixture(autouse=True)
def speakers(monkeypatch, tmp_path): monkeypatch.setenv('SER_NB_SPEAKERS', str(tmp_path))


def test_an_enrolled_speaker_changes_the_prediction_and_can_be_deleted(place):
    sounds, run = place/'sound'/'Actor_01', place/'run'
    clip = sorted(sounds.glob('*.wav'))[0]
    code, out, said = command('enrol', 'ann', sounds, '--run', run)
    assert code == 0 and 'enrolled with 60 clips' in out, said
    plain, own, corpus = (json.loads(command('predict', clip, '--run', run, '--json', *how)[1])
                          for how in ((), ('--speaker', 'ann'), ('--adapt', sounds)))
    assert plain['emotions'] != own['emotions']
    np.testing.assert_allclose(list(own['emotions'].values()), list(corpus['emotions'].values()), atol=1e-3)
    assert 'deleted' in command('enrol', 'ann', '--delete')[1]
    assert command('enrol')[1].strip() == 'nobody is enrolled'


@pytest.mark.parametrize('words, reason', [
    (('--speaker', 'nobody'), 'is not enrolled'), (('--speaker', '../x'), 'is no name for a speaker'),
    (('--adapt', 'nowhere'), 'there is no such folder'), (('--speaker', 'a', '--adapt', 'b'), 'give one of them')])
def test_a_wrong_speaker_is_refused_before_a_model_is_loaded(place, words, reason):
    clip = next((place/'sound'/'Actor_01').glob('*.wav'))
    code, _, said = command('predict', clip, '--run', 'no-such-run', *words)
    assert code == 2 and reason in said


def test_a_model_without_a_reference_refuses_to_adapt_in_one_line(place, tmp_path):
    shutil.copytree(place/'run', tmp_path/'bare')
    about = json.loads((tmp_path/'bare'/'model.json').read_text())
    (tmp_path/'bare'/'model.json').write_text(json.dumps(about | dict(reference=None)))
    clip = next((place/'sound'/'Actor_01').glob('*.wav'))
    code, _, said = command('predict', clip, '--run', tmp_path/'bare', '--adapt', place/'sound')
    assert code == 2 and 'holds no reference' in said and len(said.splitlines()) <= 4, said


def test_a_sound_that_cannot_be_read_is_named(place, tmp_path):
    (tmp_path/'bad.wav').write_text('no sound')
    clips = sorted((place/'sound'/'Actor_01').glob('*.wav'))[:2]
    _, out, said = command('enrol', 'ann', tmp_path/'bad.wav', *clips, '--run', place/'run')
    assert f"{tmp_path/'bad.wav'}: no sound that can be read" in said and 'enrolled with 2 clips' in out


def test_deleting_without_a_name_says_that_the_name_is_missing():
    code, _, said = command('enrol', '--delete')
    assert code == 2 and 'give the NAME' in said
