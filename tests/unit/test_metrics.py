"Scores mean what they say: intervals, calibration, abstention, any labels"
import numpy as np
import pandas as pd
import pytest

from ser_nb import metrics

pytestmark = pytest.mark.unit


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    speaker = np.repeat(np.arange(8), 40)
    emotion = rng.choice(['bored', 'happy', 'sad'], 320)
    proba = rng.dirichlet(np.ones(3), 320) * .5 + .5 * (emotion[:, None] == np.array(['bored', 'happy', 'sad']))
    table = pd.DataFrame(proba, columns=['p_bored', 'p_happy', 'p_sad'])
    return table.assign(fold=speaker // 2, speaker=speaker.astype(str), corpus='mine', emotion=emotion)


def test_scores_are_those_of_scikit_learn_so_that_papers_can_be_compared():
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
    rng = np.random.default_rng(1)
    y_true, y_pred = rng.choice(list('abc'), (2, 200))
    found = metrics.scores(y_true, y_pred)
    assert found['accuracy'] == accuracy_score(y_true, y_pred)
    assert found['uar'] == pytest.approx(balanced_accuracy_score(y_true, y_pred))
    assert found['macro_f1'] == pytest.approx(f1_score(y_true, y_pred, average='macro'))


def test_a_class_that_is_only_predicted_does_not_lower_the_scores():
    assert metrics.scores(['sad', 'sad'], ['sad', 'calm'])['uar'] == .5
    assert list(metrics.class_report(['sad', 'sad'], ['sad', 'calm']).index) == ['sad']


def test_labels_of_any_corpus_are_ordered_the_same_way_in_every_process():
    assert list(metrics.class_report(['zest', 'sad', 'awe'], ['sad', 'sad', 'sad']).index) == ['sad', 'awe', 'zest']


def test_an_interval_over_speakers_is_wider_where_speakers_differ():
    correct, speaker = np.arange(600) % 100 < np.repeat([95, 90, 85, 50, 40, 80], 100), np.repeat(list('abcdef'), 100)
    by_clip, by_speaker = metrics.accuracy_ci(correct), metrics.accuracy_ci(correct, speaker)
    assert np.diff(by_speaker) > 3 * np.diff(by_clip)


def test_a_model_is_not_better_than_itself():
    y_true, y_pred = np.random.default_rng(2).choice(list('ab'), (2, 100))
    assert metrics.difference_ci(y_true, y_pred, y_pred) == dict(difference=0, low=0, high=0)


def test_one_fold_is_not_shown_with_a_deviation_of_zero():
    assert metrics.mean_scores([dict(uar=.5)]) == dict(uar=.5)


def test_a_protocol_without_enough_speakers_gives_no_interval(predictions):
    assert 'uar_ci' in metrics.protocol_scores(predictions)
    assert 'uar_ci' not in metrics.protocol_scores(predictions[predictions.fold == 0])


def test_folds_that_lack_a_class_do_not_raise_the_mean_uar(predictions):
    some = predictions[(predictions.fold > 0) | (predictions.emotion == 'sad')]
    found = metrics.protocol_scores(some)
    assert found['pooled'] and 'uar_sd' not in found


def test_a_threshold_is_chosen_on_other_folds_than_it_is_measured_on(predictions):
    table = metrics.cross_fitted_abstention(predictions, .9)
    assert table.index[-1] == 'all' and len(table) == 9
    assert table.coverage['all'] < 1 and table.accuracy['all'] > .85


def test_no_prediction_is_given_where_no_threshold_reaches_the_wanted_share():
    assert metrics.confidence_threshold([False, False], [.9, 1.]) > 1


def test_a_calibrated_model_keeps_its_temperature():
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.ones(4), 4000)
    drawn = (p.cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    assert metrics.fit_temperature(p, drawn) == pytest.approx(1, abs=.1)
