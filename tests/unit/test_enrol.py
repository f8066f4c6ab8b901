"A speaker is enrolled, used and deleted by command; wrong calls are refused in one line"
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from ser_nb import adaptation
from ser_nb.combining_datasets import sample_corpus
from ser_nb.command_line import main
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


@pytest.fixture
def call(place, monkeypatch, tmp_path):
    monkeypatch.setenv('SER_NB_SPEAKERS', str(tmp_path))
    def run(*words): return CliRunner().invoke(main, [str(w) for w in words])
    return run


def test_an_enrolled_speaker_changes_the_prediction_and_can_be_deleted(call, place):
    sounds, run = place/'sound'/'Actor_01', place/'run'
    clip = sorted(sounds.glob('*.wav'))[0]
    done = call('enrol', 'ann', sounds, '--run', run)
    assert done.exit_code == 0 and 'enrolled with 60 clips' in done.output
    plain, own, corpus = (json.loads(call('predict', clip, '--run', run, '--json', *how).stdout)
                          for how in ((), ('--speaker', 'ann'), ('--adapt', sounds)))
    assert plain['emotions'] != own['emotions']
    np.testing.assert_allclose(list(own['emotions'].values()), list(corpus['emotions'].values()), atol=1e-3)
    assert 'deleted' in call('enrol', 'ann', '--delete').output
    assert call('enrol').output.strip() == 'nobody is enrolled'


@pytest.mark.parametrize('words, reason', [
    (('--speaker', 'nobody'), 'is not enrolled'), (('--speaker', '../x'), 'is no name for a speaker'),
    (('--adapt', 'nowhere'), 'there is no such folder'), (('--speaker', 'a', '--adapt', 'b'), 'give one of them')])
def test_a_wrong_speaker_is_refused_before_a_model_is_loaded(call, place, words, reason):
    clip = next((place/'sound'/'Actor_01').glob('*.wav'))
    done = call('predict', clip, '--run', 'no-such-run', *words)
    assert done.exit_code == 2 and reason in done.output


def test_a_model_without_a_reference_refuses_to_adapt_in_one_line(call, place, tmp_path):
    shutil.copytree(place/'run', tmp_path/'bare')
    about = json.loads((tmp_path/'bare'/'model.json').read_text())
    (tmp_path/'bare'/'model.json').write_text(json.dumps(about | dict(reference=None)))
    clip = next((place/'sound'/'Actor_01').glob('*.wav'))
    done = call('predict', clip, '--run', tmp_path/'bare', '--adapt', place/'sound')
    assert done.exit_code == 2 and 'holds no reference' in done.output, done.output
    assert len(done.output.splitlines()) <= 4
