"Jobs end to end: what a user calls, and what is there afterwards"
import json
import os
import subprocess
import sys
from base64 import b64decode

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import no_traceback, only_environment, pythons, run_here, ser_nb
from papermill import inspect_notebook

from ser_nb.classifiers import load_classifier
from ser_nb.combining_datasets import sample_corpus
from ser_nb.corpora import LABELS, read_clips
from ser_nb.corruptions import CORRUPTIONS
from ser_nb.feature_extraction import clip_features
from ser_nb.feature_store import read_features
from ser_nb.files import fingerprint, read_json
from ser_nb.functionals import FEATURES
from ser_nb.keras_tools import predict_proba
from ser_nb.model_files import load_model, read_model_json
from ser_nb.pipeline import JOBS, notebook_path
from ser_nb.prediction import EmotionModel
from ser_nb.run_folder import METRICS_KEYS, find_score, nested_scores, read_metrics

pytestmark = pytest.mark.jobs


WHOLE_WAY = [job for job in JOBS if job != 'benchmark'] # which takes minutes, and whose notebook tests itself
ENVIRONMENT_JOBS = 'combine', 'extract', 'train', 'model', 'baselines', 'predict'


@pytest.mark.parametrize('job', JOBS)
def test_papermill_finds_every_parameter_so_that_no_default_wins_silently(job):
    nb = nbformat.read(notebook_path(job), 4)
    cells = [c for c in nb.cells if 'parameters' in c.metadata.get('tags', [])]
    assert len(cells) == 1 and nb.metadata.kernelspec.language == 'python'
    names = [line.split('=')[0].strip() for line in cells[0].source.splitlines() if line.strip()]
    found = inspect_notebook(notebook_path(job))
    assert list(found) == names and 'out' in names
    assert all(p['help'] and p['inferred_type_name'] in ('str', 'int', 'float', 'bool') for p in found.values())


@pytest.fixture(scope='module')
def whole_way(tmp_path_factory, request):
    "A smoke run of the jobs (or those that depend on the environment) on the built-in sample of tones"
    out = tmp_path_factory.mktemp('whole_way')/'run'
    if only_environment(request.config):
        call = ENVIRONMENT_JOBS
    else:
        call = *WHOLE_WAY, '--parallel'
    done = ser_nb('run', *call, '--smoke', '--out', out)
    assert done.returncode == 0, done.stderr
    return out, done


PROMISED = (
    'clips.csv', 'train_features.csv', 'test_features.csv', 'article/model.h5', 'model.h5', 'model.json',
    'metrics.json', 'report.html', 'figures/article_confusion.png', 'figures/confusion.png', 'baseline.skops',
    'baseline.json', 'robustness.csv', 'figures/corruptions.png')


def test_the_whole_way_leaves_everything_a_run_promises(whole_way):
    out, done = whole_way
    assert f'run folder: {out}' in done.stdout and 'functionals' in done.stdout
    for name in PROMISED: assert (out/name).is_file(), name
    for job in WHOLE_WAY: assert (out/'notebooks'/notebook_path(job).name).is_file(), job
    assert len(list((out/'DATASET').iterdir())) == 190
    assert not list(out.rglob('.part-*'))
    metrics = read_json(out/'metrics.json')
    assert tuple(metrics) == METRICS_KEYS and metrics['job'] == ' '.join(WHOLE_WAY)
    assert {'accuracy', 'macro_f1', 'uar', 'min_class_f1', 'accuracy_ci'} <= set(
        find_score(metrics, 'random_80_20', 'functionals'))
    assert metrics['data']['clips'] == 190 and metrics['parameters']['train']['epochs'] == 2
    assert (
        all(fingerprint(out / name) == sha for name, sha in metrics['files'].items())
        and 'model.h5' in metrics['files'])


@pytest.mark.slow
def test_a_benchmark_prints_its_table_and_keeps_it(tmp_path):
    done = ser_nb('run', 'benchmark', '--smoke', '--out', tmp_path/'run')
    assert done.returncode == 0, done.stderr
    assert 'one core: times the speed of the article' in done.stdout and (tmp_path/'run'/'benchmark.txt').is_file()


def test_a_report_is_one_page_that_needs_nothing_else(whole_way, tmp_path):
    out, _ = whole_way
    page = (out/'report.html').read_text()
    assert (
        page.count('src="data:image/png') == len(list((out/'figures').glob('*.png')))
        and 'src="http' not in page
        and '<script' not in page)
    assert (
        all(model in page for model in ('functionals', '1nn'))
        and read_json(out/'metrics.json')['versions']['tensorflow'] in page)
    done = ser_nb('report', out, out, '--out', tmp_path/'both.html')
    assert (
        done.returncode == 0
        and 'random_80_20' in done.stdout
        and ': functionals' in done.stdout
        and (tmp_path/'both.html').is_file())
    done = ser_nb('report', tmp_path)
    assert done.returncode == 2 and 'metrics.json: there is no such file' in done.stderr and no_traceback(done)


def test_a_notebook_shows_the_pictures_that_the_run_keeps(whole_way):
    out, _ = whole_way
    cells = nbformat.read(out/'notebooks'/'Robustness.ipynb', 4).cells
    shown = [o.data['image/png'] for c in cells for o in c.get('outputs', ()) if 'image/png' in o.get('data', {})]
    names = 'corruptions', 'recall_by_emotion', 'feature_shift', 'group_ablation'
    kept = {(out/'figures'/f'{name}.png').read_bytes() for name in names}
    assert {b64decode(picture) for picture in shown} == kept and len(shown) == len(kept)


def test_a_second_run_with_the_same_seed_differs_only_in_times(whole_way, tmp_path):
    out, _ = whole_way
    done = ser_nb('run', 'model', '--smoke', '-p', 'features_dir', out, '--out', tmp_path/'again')
    assert done.returncode == 0, done.stderr
    first, second = (read_json(f/'metrics.json') for f in (out, tmp_path/'again'))
    assert first['parameters']['model'] == second['parameters']['model']
    assert all(score in first['scores'] for score in second['scores']) and second['scores']
    assert first['versions'] == second['versions']
    assert 'SMOKE' in (tmp_path/'again'/'report.html').read_text(encoding='utf-8')
    assert all(first['files'][name] == second['files'][name] for name in ('model.h5', 'model.json'))


PREDICT = '''
import sys
sys.modules['sklearnex'] = None # a classifier that Intel's extension fitted is read without it
import numpy as np
from ser_nb.classifiers import load_classifier
from ser_nb.corpora import read_clips
from ser_nb.feature_extraction import clip_features
from ser_nb.feature_store import read_features
from ser_nb.functionals import FEATURES
from ser_nb.keras_tools import predict_proba, values_of
from ser_nb.model_files import load_model, read_model_json
run, test = sys.argv[1], read_features(sys.argv[1])[1]
network = predict_proba(load_model(run), test, read_model_json(run)['features'])
classifier = load_classifier(run).predict_proba(values_of(test, list(FEATURES)))
features = [clip_features(path) for path in read_clips(run + '/clips.csv').path[::50]]
np.savez(sys.argv[2], network=network, classifier=classifier, features=features)
'''


@pytest.mark.environment
def test_features_and_probabilities_of_network_and_classifier_are_the_same_in_both_environments(whole_way, tmp_path):
    out, _ = whole_way
    features = [clip_features(path) for path in read_clips(out/'clips.csv').path[::50]]
    test = read_features(out)[1]
    network = predict_proba(load_model(out), test, read_model_json(out)['features'])
    classifier = load_classifier(out).predict_proba(test[list(FEATURES)].to_numpy(np.float32))
    for i, python in enumerate(pythons()):
        done = subprocess.run(
            [python, '-c', PREDICT, out, tmp_path/f'{i}.npz'], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, (python, done.stderr)
        found = np.load(tmp_path/f'{i}.npz')
        np.testing.assert_allclose(found['features'], features, rtol=1e-4, atol=1e-4, err_msg=str(python))
        np.testing.assert_allclose(found['network'], network, atol=1e-5, err_msg=str(python))
        np.testing.assert_allclose(found['classifier'], classifier, atol=1e-6, err_msg=str(python))


@pytest.mark.environment
def test_a_users_own_run_predicts_the_same_through_openvino(whole_way):
    out, _ = whole_way
    own, test = EmotionModel.load(out), read_features(out)[1]
    proba = predict_proba(load_model(out), test, read_model_json(out)['features'])
    np.testing.assert_allclose(own.predict(test)[list(LABELS)], proba, atol=1e-2) # half precision, a model of tones
    predicted = pd.read_csv(out/'predictions.csv', keep_default_na=False)
    assert (
        len(predicted) == 190
        and (out/'figures' / 'first_file.png').is_file()
        and read_json(out/'metrics.json')['data']['predicted'] == 190)


def test_robustness_csv_has_a_row_for_every_corruption(whole_way):
    out, _ = whole_way
    table = pd.read_csv(out/'robustness.csv')
    assert list(zip(table.kind, table.value)) == [
        ('clean', 0), *((kind, value) for kind, (_, values, _) in CORRUPTIONS.items() for value in values)]
    assert (
        table[['accuracy', 'uar', 'answered', 'rejected']].stack().between(0, 1).all()
        and (table.accuracy_low <= table.accuracy).all())


@pytest.mark.slow
def test_robustness_is_the_same_with_two_workers(whole_way, tmp_path):
    out, _ = whole_way
    done = ser_nb(
        'run', 'robustness', '--smoke', '-p', 'n_jobs', 2, '--data', out/'clips.csv', '-p', 'features_dir',
        out, '-p', 'model', out, '--out', tmp_path/'again')
    assert done.returncode == 0, done.stderr
    assert (tmp_path/'again'/'robustness.csv').read_bytes() == (out/'robustness.csv').read_bytes()


def test_the_networks_of_the_run_stand_beside_the_baselines(whole_way):
    scores = nested_scores(read_metrics(whole_way[0]))
    assert {'functionals', '1nn', 'knn', 'v1'} <= set(scores['random_80_20'])
    assert all('accuracy_ci' in scores['random_80_20'][n] for n in ('functionals', 'knn'))
    assert {'functionals', 'knn'} <= set(scores['random_80_20_ravdess'])
    for protocol in ('random_80_20', 'random_80_20_mean'):
        assert {s['classes'] for s in scores[protocol].values()} == {16}, protocol


def test_plain_papermill_works_from_another_folder_and_gives_the_same_bytes(whole_way, tmp_path):
    done = subprocess.run(
        [
            sys.executable, '-m', 'papermill', notebook_path('combine'), 'out.ipynb', '-p', 'out',
            tmp_path/'run', '--no-progress-bar'],
        cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'Passed unknown parameter' not in done.stderr
    assert (tmp_path/'run'/'clips.csv').read_bytes() == (whole_way[0]/'clips.csv').read_bytes()


def test_the_command_itself_ends_with_code_2():
    done = ser_nb('run', 'trian')
    assert done.returncode == 2 and "did you mean 'train'?" in done.stderr and no_traceback(done)


def test_strict_names_the_files_it_cannot_place_with_the_executed_copy_and_without_it_the_rest_comes_out(tmp_path):
    corpus = sample_corpus(tmp_path/'corpus', words=0)
    (corpus/'Actor_01' / '03-01-09-01-01-01-01.wav').write_bytes(
        (corpus/'Actor_01' / '03-01-08-01-01-01-01.wav').read_bytes())
    (corpus/'OAF_bar_fear.wav').touch()
    failed = ser_nb('run', 'combine', '--data', corpus, '-p', 'strict', 'true', '--out', tmp_path/'strict')
    assert failed.returncode == 1 and no_traceback(failed)
    assert "emotion '09' is not one of 01 to 08" in failed.stderr and '0 bytes' in failed.stderr
    copy = tmp_path/'strict'/'notebooks'/'Combining_Datasets.ipynb'
    assert (
        f'executed copy: {copy}' in failed.stderr
        and 'is not one of 01 to 08' in copy.read_text()
        and not (tmp_path/'strict' / 'metrics.json').exists())
    assert run_here(['combine'], tmp_path/'lenient', data=str(corpus))['data'] == dict(
        clips=120, left_out=2, clips_by_corpus={'ravdess_speech': 120})


def test_extracting_a_folder_names_the_files_that_cannot_be_read_and_strict_refuses_them(tmp_path):
    corpus = sample_corpus(tmp_path/'corpus', words=0)
    (corpus/'Actor_01' / '03-01-08-01-01-01-01.wav').write_text('no sound')
    (corpus/'README.txt').touch()
    assert run_here(['extract'], tmp_path/'lenient', ('more', ''), data=str(corpus))['data']['failed'] == 1
    assert pd.read_csv(tmp_path/'lenient'/'failed.csv').path.str.endswith('03-01-08-01-01-01-01.wav').tolist() == [True]
    failed = ser_nb('run', 'extract', '--data', corpus, '-p', 'more', '', '-p', 'strict', 'true', '--out',
                    tmp_path/'strict')
    assert failed.returncode == 1 and no_traceback(failed)
    assert 'strict: 1 clips cannot be read' in failed.stderr and '03-01-08-01-01-01-01.wav' in failed.stderr


@pytest.mark.environment
def test_the_kernel_is_registered_for_this_environment(tmp_path):
    done = ser_nb(
        'kernel', '--name', 'ser_nb_test',
        env={**os.environ, 'JUPYTER_DATA_DIR': str(tmp_path), 'HOME': str(tmp_path)})
    assert done.returncode == 0, done.stderr
    spec = json.loads(next(tmp_path.rglob('kernel.json')).read_text())
    assert spec['argv'][0] == sys.executable


def test_the_linter_by_command_names_what_leaks_and_fails_where_there_is_an_error(whole_way, tmp_path):
    out, _ = whole_way
    clean = ser_nb('audit', out)
    assert clean.returncode == 0 and 'shared_speaker' in clean.stdout and 'error' not in clean.stdout
    for name in ('train_features.csv', 'test_features.csv'):
        (tmp_path / name).write_text((out/'test_features.csv').read_text())
    leaking = ser_nb('audit', tmp_path)
    assert leaking.returncode == 1 and 'same_clip' in leaking.stdout and no_traceback(leaking)
    wrong = ser_nb('audit', tmp_path/'nowhere')
    assert wrong.returncode == 2 and 'there is no such file or folder' in wrong.stderr
