"Protocols keep apart what they promise to keep apart, on any table"
import numpy as np
import pandas as pd
import pytest

from ser_nb import metrics, splits

pytestmark = pytest.mark.unit


def corpus(name='mine', speakers=6, sentences=6, emotions=('angry', 'happy', 'sad'), known=True):
    "A table of a corpus in which every speaker speaks every sentence in every emotion"
    rows = [
        dict(
            file=f'{s}-{t}-{e}', corpus=name, speaker=f's{s}', gender='', emotion=e, label=e,
            statement=f't{t}' if known else '')
        for s in range(speakers)
        for t in range(sentences)
        for e in emotions]
    table = pd.DataFrame(rows)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(len(table), 5)) + table.emotion.map(emotions.index).to_numpy()[:, None]
    return table.assign(**{f'x{i}': v for i, v in enumerate(values.T)})


@pytest.mark.parametrize('speakers', [2, 6, 14])
def test_no_speaker_and_no_sentence_is_on_both_sides_and_every_clip_is_tested_once(speakers):
    rows = corpus(speakers=speakers)
    parts = list(splits.unseen_speakers(rows))
    for _, train, test in parts:
        assert not set(train.speaker) & set(test.speaker) and not set(train.statement) & set(test.statement)
    assert sorted(pd.concat([test for *_, test in parts]).file) == sorted(rows.file)


def test_unknown_sentences_still_give_a_speaker_independent_score():
    rows = corpus(known=False)
    assert len(list(splits.unseen_speakers(rows))) == 6
    assert 'unknown' in splits.available_protocols(rows).loc['unseen_speakers', 'reason']


def test_a_corpus_of_one_speaker_says_why_it_has_no_speaker_independent_score():
    found = splits.available_protocols(corpus(speakers=1))
    assert not found.loc['unseen_speakers', 'available'] and 'one speaker' in found.loc['unseen_speakers', 'reason']
    assert found.loc['random_80_20', 'available']


def test_speakers_of_one_name_in_two_corpora_are_two_speakers():
    rows = pd.concat([corpus('a', 2), corpus('b', 2)], ignore_index=True)
    assert splits.speaker_ids(rows).nunique() == 4
    assert len({fold.split(',')[0] for fold, *_ in splits.unseen_speakers(rows)}) == 4


def test_a_left_out_corpus_is_not_in_training_and_its_labels_are_not_used_to_normalise():
    rows = pd.concat([corpus('a'), corpus('b', emotions=('angry', 'calm'))], ignore_index=True)
    for name, train, test in splits.leave_one_corpus_out(rows, 'corpus'):
        assert set(test.corpus) == {name} and name not in set(train.corpus)
        assert set(train.emotion) == set(test.emotion) == {'angry'}
    relabelled = rows.assign(emotion='angry', label='angry')
    columns = splits.feature_columns(rows)
    assert np.allclose(splits.normalised_by_speaker(rows)[columns], splits.normalised_by_speaker(relabelled)[columns])


def test_settings_are_chosen_on_speakers_that_neither_train_nor_test():
    rows = corpus(speakers=9)
    _, train, test = next(splits.unseen_speakers(rows))
    for _, inner, validation in splits.inner_folds(train):
        assert not set(inner.speaker) & set(validation.speaker)
        assert not set(test.speaker) & (set(inner.speaker) | set(validation.speaker))


def test_a_label_that_a_training_set_lacks_gets_no_probability():
    rows = corpus()
    rare = rows[(rows.emotion != 'sad') | (rows.speaker == 's0')]
    found = splits.cross_validate(
        lambda train, test, fold: splits.nearest_neighbour(train, test), splits.unseen_speakers(rare))
    assert found[['p_angry', 'p_happy', 'p_sad']].notna().all().all()
    assert np.allclose(found[['p_angry', 'p_happy', 'p_sad']].sum(axis=1), 1)


def test_a_stopped_run_does_not_train_finished_folds_again(tmp_path):
    calls, parts = [], list(splits.unseen_speakers(corpus()))
    def fit_predict(train, test, fold):
        calls.append(fold)
        if len(calls) == 3: raise KeyboardInterrupt
        return np.full((len(test), 3), 1 / 3), ['angry', 'happy', 'sad']
    with pytest.raises(KeyboardInterrupt):
        splits.cross_validate(fit_predict, parts, checkpoint=tmp_path, key='even')
    splits.cross_validate(fit_predict, parts, checkpoint=tmp_path, key='even')
    assert len(calls) == len(parts) + 1


def test_a_finished_fold_is_trained_again_when_a_feature_or_a_label_of_its_rows_has_changed(tmp_path):
    rows, calls = corpus().assign(loud=[True, False] * 54), [] # a column of an untrusted table that is no float
    feature = splits.feature_columns(rows)[0]
    def fit_predict(train, test, fold):
        calls.append(fold)
        return np.full((len(test), 3), 1 / 3), ['angry', 'happy', 'sad']
    def trainings(rows):
        calls.clear()
        splits.cross_validate(fit_predict, splits.unseen_speakers(rows), checkpoint=tmp_path, key='even')
        return len(calls)
    every = trainings(rows)
    assert every > 1 and trainings(rows.copy()) == 0
    moved, relabelled = rows.copy(), rows.copy()
    moved.loc[moved.index[0], feature] += 1
    relabelled.loc[relabelled.index[0], 'label'] = 'female_calm'
    assert trainings(moved) > 0 and trainings(relabelled) > 0 and trainings(rows.assign(loud=True)) == every
    assert trainings(rows.rename(columns={feature: 'other'})) == every


def test_the_ladder_runs_on_a_corpus_that_is_neither_ravdess_nor_tess():
    from ser_nb import ladder
    steps, left_out = ladder.ladder_steps(corpus())
    assert list(steps) == ['random split', 'unseen sentences', 'unseen speakers']
    assert set(left_out) == {'copies before the split', 'another corpus'} and all(left_out.values())
    table = ladder.ladder(corpus(), lambda train, test, fold: splits.nearest_neighbour(train, test))
    assert set(table.step) == set(steps)


def test_two_speakers_of_one_name_are_normalised_and_reported_apart(tmp_path):
    from ser_nb.validation import Validation
    rows = pd.concat([corpus(), corpus().assign(corpus='other')], ignore_index=True)
    names = splits.speaker_names(rows)
    assert names.nunique() == 2 * corpus().speaker.nunique() and splits.speaker_names(corpus()).tolist() == list(
        corpus().speaker)
    own = splits.normalised_by_speaker(rows)[splits.feature_columns(rows)].groupby(names.to_numpy()).mean()
    assert np.allclose(own, 0, atol=1e-4)
    v = Validation(tmp_path, '1nn', lambda train, test, fold: splits.nearest_neighbour(train, test),
                   splits.feature_columns(rows))
    (tmp_path/'figures').mkdir()
    v.details(v.measure('unseen_speakers', splits.unseen_speakers(rows)))
    groups = pd.DataFrame(v.scores['unseen_speakers']['1nn']['groups'])
    assert (groups.group == 'speaker').sum() == names.nunique()


def nearest(train, test, fold): return splits.nearest_neighbour(train, test)


@pytest.mark.parametrize('code', [
    dict(angry=0, happy=1, sad=2), dict(angry=0., happy=1., sad=2.), dict(angry=True, happy=False, sad=True)])
def test_classes_that_are_numbers_have_the_calibration_and_the_coverage_of_the_same_classes_in_words(code):
    rows, words = corpus(), {value: f'class {value}' for value in code.values()}
    coded = rows.assign(**dict.fromkeys(('emotion', 'label'), rows.emotion.map(code)))
    worded = coded.assign(**dict.fromkeys(('emotion', 'label'), coded.emotion.map(words)))
    found, wanted = (splits.cross_validate(nearest, splits.unseen_speakers(t)) for t in (coded, worded))
    assert metrics.protocol_scores(found) == metrics.protocol_scores(wanted)
    assert metrics.cross_fitted_abstention(found).equals(metrics.cross_fitted_abstention(wanted))
    assert metrics.scores_by_group(coded, rows.emotion.map(code)).accuracy.eq(1).all()


@pytest.mark.parametrize('given, reason', [
    (lambda n: ['sad'] * (n - 1), '17 predictions for 18 test rows'),
    (lambda n: (np.full((n, 2), np.nan), ['sad', 'angry']), 'no probabilities for 18 of 18 test rows'),
    (lambda n: ['sad'] * (n - 1) + [None], 'no probabilities for 1 of 18 test rows, the first is test row 18'),
    (lambda n: None, '0 predictions for 18 test rows')])
def test_what_is_no_prediction_of_each_test_row_is_refused_and_not_scored_as_zeros(given, reason):
    parts = splits.unseen_speakers(corpus(known=False))
    with pytest.raises(ValueError, match=f'^fold s0: .*{reason}'):
        splits.cross_validate(lambda train, test, fold: given(len(test)), parts)


def test_a_column_of_the_clips_is_not_taken_for_the_probability_of_a_label():
    parts = splits.unseen_speakers(corpus().assign(p_code='0.9'))
    with pytest.raises(ValueError, match="column 'p_code'"): splits.cross_validate(nearest, parts)


def test_a_second_model_does_not_get_the_predictions_that_a_first_one_left_in_the_folder(tmp_path):
    with pytest.raises(ValueError, match='key: a checkpoint needs'):
        splits.cross_validate(nearest, splits.unseen_speakers(corpus()), checkpoint=tmp_path)


def test_two_tables_joined_without_a_new_index_keep_sentences_apart():
    rows = corpus()
    joined = pd.concat([rows[:54].reset_index(drop=True), rows[54:].reset_index(drop=True)])
    parts = list(splits.unseen_speakers(joined))
    assert len(parts) == 12 and not any(set(train.statement) & set(test.statement) for _, train, test in parts)


def test_numbers_and_flags_that_describe_a_clip_are_no_features_and_numbered_sentences_stay_apart():
    rows = corpus().assign(repetition=1, intensity=2, acted=True)
    rows['statement'] = rows.statement.str[1:].astype(int)
    assert splits.feature_columns(rows) == [f'x{i}' for i in range(5)]
    parts = list(splits.unseen_speakers_normalised(rows))
    assert len(parts) == 12 and not any(set(train.statement) & set(test.statement) for _, train, test in parts)
