"Quality gates: a seeded training of each model reaches its level, so a change that makes training worse fails"
from itertools import islice

import pandas as pd
import pytest

from ser_nb import emotion_model
from ser_nb.feature_store import read_features, read_more_features
from ser_nb.keras_tools import labels_of
from ser_nb.metrics import protocol_scores, scores
from ser_nb.proposed_system import fit_predict
from ser_nb.run_folder import find_score, notebooks_dir, read_metrics
from ser_nb.splits import all_rows, cross_validate, unseen_speakers

pytestmark = pytest.mark.jobs

STORED = {'encoder': 'metrics.json', 'functionals': 'metrics_functionals.json'}
FLOORS = { # below these a model is not worth shipping, whatever was stored
    'encoder': dict(accuracy=.95, min_class_f1=.75, uar=.65),
    'functionals': dict(accuracy=.92, min_class_f1=.7, uar=.5)}
# what another environment, or another number of threads, may change
TOLERANCE = dict(accuracy=.015, macro_f1=.025, min_class_f1=.1)


@pytest.fixture(scope='module')
def tables(): return read_features()


@pytest.mark.parametrize('epochs, accuracy, min_class_f1', [
    (10, .82, .4), # seeds 42, 1, 2: .878, .877 by TensorFlow 2.15, .849, .859, .871 by 2.21
    pytest.param(30, .87, .55, marks=[pytest.mark.slow, pytest.mark.environment])])
def test_the_articles_system_reaches_its_accuracy_and_lowest_class_f1(tables, epochs, accuracy, min_class_f1):
    train, test = tables
    proba, labels = fit_predict(train, test, seed=42, epochs=epochs)
    found = scores(test.label, labels_of(proba, labels))
    assert found['accuracy'] >= accuracy, found
    assert found['min_class_f1'] >= min_class_f1, found


@pytest.mark.parametrize('model', STORED)
def test_a_shipped_model_trained_again_has_the_scores_that_the_pages_show(model, tables):
    run = read_metrics(notebooks_dir()/'results'/STORED[model])
    train, test = tables
    seed = run['parameters']['model']['seed']
    train = pd.concat([train, read_more_features()], ignore_index=True)
    proba, labels = emotion_model.fit_predict(train, test, seed, model, calibrate=False) # the same labels win
    found, stored = scores(test.label, labels_of(proba, labels)), find_score(run, 'random_80_20', model)
    for name in ('accuracy', 'min_class_f1'): assert found[name] >= FLOORS[model][name], (name, found)
    for name, most in TOLERANCE.items():
        assert found[name] == pytest.approx(stored[name], abs=most), (name, found[name], stored[name])


@pytest.mark.parametrize('model', STORED)
def test_a_shipped_model_recognises_the_emotions_of_four_unseen_speakers(model, tables):
    run = read_metrics(notebooks_dir()/'results'/STORED[model])
    seed = run['parameters']['model']['seed']
    def fit(train, test, fold): return emotion_model.fit_predict(train, test, seed, model, calibrate=False)
    found = protocol_scores(cross_validate(fit, islice(unseen_speakers(all_rows(*tables)), 1)), repeats=100)
    stored = find_score(run, 'unseen_speakers', model)
    assert found['uar'] >= FLOORS[model]['uar'], found
    assert abs(found['uar'] - stored['uar']) <= 2.5 * stored['uar_sd'], (found['uar'], stored['uar'])
