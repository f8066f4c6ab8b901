"What is wrong but looks right: each is named by `ser-nb audit`"
import numpy as np
import pandas as pd
import pytest
from helpers import command

from ser_nb.corpora import LABELS
from ser_nb.feature_store import read_features, write_features
from ser_nb.files import fingerprint, read_json, write_json
from ser_nb.functionals import FEATURES, META_COLUMNS
from ser_nb.prediction import pretrained

pytestmark = pytest.mark.jobs

OWN = list(META_COLUMNS[1:])


@pytest.fixture(scope='module')
def halves():
    train, test = (t[[*META_COLUMNS, *FEATURES]] for t in read_features(companions=''))
    return train[::5].reset_index(drop=True), test[::5].reset_index(drop=True)


def labels_shifted(train, test): return train.assign(**{c: np.roll(train[c], 1) for c in OWN}), test
def corpora_swapped(train, test):
    return train, test.assign(
        corpus=test.corpus.map(lambda c: dict(ravdess_speech='tess', tess='ravdess_speech').get(c, c)))
def features_shifted(train, test):
    return train.assign(**dict(zip(FEATURES, np.roll(train[list(FEATURES)], 1, axis=0).T))), test.assign(
        **dict(zip(FEATURES, np.roll(test[list(FEATURES)], 1, axis=0).T)))
def decibels_from_the_loudest(train, test): return train, test.assign(mfcc_00=test.mfcc_00 - 40)
def a_test_row_in_training(train, test): return pd.concat([train, test[:1]]), test
def a_test_row_in_training_under_another_name(train, test):
    return pd.concat([train, test[:1].assign(file='mine')]), test
def scaled_with_the_test_rows(train, test):
    both = pd.concat([train, test])[list(FEATURES)]
    return tuple(
        t.assign(**{f: (t[f] - both[f].mean()) / both[f].std(ddof=0) for f in FEATURES}) for t in (train, test)
    )


@pytest.mark.parametrize(
    'wrong, kind',
    [
        (labels_shifted, 'training_row_not_of_its_name'), (corpora_swapped, 'not_of_its_name'),
        (features_shifted, 'features_of_another_row'),
        (decibels_from_the_loudest, 'features_of_other_settings'), (a_test_row_in_training, 'same_clip'),
        (a_test_row_in_training_under_another_name, 'same_sound'),
        (scaled_with_the_test_rows, 'scaled_with_test_rows')])
def test_a_table_that_is_wrong_is_named(halves, tmp_path, wrong, kind):
    write_features(*wrong(*halves), tmp_path)
    code, said, _ = command('audit', tmp_path)
    assert code == 1 and kind in said


def test_a_table_that_is_right_has_no_error(halves, tmp_path):
    write_features(*halves, tmp_path)
    code, found, _ = command('audit', tmp_path)
    kinds = {line.split(',')[0] for line in found.splitlines() if not line.startswith(' ')}
    assert code == 0 and kinds == {'note: shared_speaker', 'note: shared_sentence'}, found


def test_a_model_whose_labels_were_permuted_is_named(tmp_path):
    import shutil

    from ser_nb.speech_encoder import import_openvino
    ov = import_openvino() # reports nothing over the network
    import openvino.opset13 as op
    shutil.copytree(pretrained(), tmp_path/'run')
    assert command('audit', tmp_path/'run')[:2] == (0, 'nothing shared\n')
    model = ov.Core().read_model(tmp_path/'run'/'model.xml')
    last = model.outputs[0].get_node().input_value(0)
    ov.save_model(
        ov.Model([op.gather(last, np.roll(np.arange(len(LABELS)), 1), np.array(1))], model.get_parameters()),
        tmp_path/'model.xml', compress_to_fp16=False)
    for name in ('model.xml', 'model.bin'): shutil.move(tmp_path/name, tmp_path/'run'/name)
    about = read_json(tmp_path/'run'/'model.json')
    # the fingerprints fit
    write_json(
        about | dict(openvino={n: fingerprint(tmp_path/'run' / n) for n in about['openvino']}),
        tmp_path/'run' / 'model.json')
    code, said, _ = command('audit', tmp_path/'run')
    assert code == 1 and 'not_the_scores_it_recorded' in said
