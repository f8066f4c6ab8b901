"The benchmark's tables say what was measured, and why a row was not"
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from conftest import ROOT

from ser_nb.benchmark_estimators import sklearn_table, wins_from
from ser_nb.benchmark_growth import growth_table, super_linear, synthetic_rows
from ser_nb.benchmark_training import ARTICLE_BLOCK, training_configurations, training_table
from ser_nb.timing import in_process

pytestmark = pytest.mark.unit


def test_every_configuration_differs_from_the_default_in_its_own_settings_alone():
    rows = training_configurations(threads=2, stock=sys.executable)
    shared = dict(OMP_NUM_THREADS='2', TF_NUM_INTRAOP_THREADS='2')
    assert all(shared.items() <= row['environment'].items() for row in rows.values())
    assert rows['oneDNN off']['environment'] == shared | dict(TF_ENABLE_ONEDNN_OPTS='0')
    assert ARTICLE_BLOCK.items() <= rows["the article's block"]['environment'].items()
    assert [w for w, row in rows.items() if row['extension']] == ['Intel extension', 'Intel extension, bfloat16']


def test_the_article_stands_beside_what_was_measured():
    turns = [dict(round=0, network='wide', what=w, seconds=9., epoch_seconds=[e, 2 * e, e], epochs=3, accuracy=.5,
                  tensorflow='2')
             for w, e in (('off', 3.), ('on', 1.5))]
    table = training_table(pd.DataFrame(turns), 'wide', [('other', 'not here')])
    assert table['total (s)'].iloc[:2].tolist() == [1787, 1118] and table.factor['on'] == 2
    assert (table.lowest['off'], table.highest['off'], table['epoch (s)']['off']) == (3, 6, 3) # of the epochs
    assert table['total (s)']['off'] == 9 + 27 * 3 and table.TensorFlow['other'] == 'not available: not here'


def test_a_factor_that_falls_below_one_again_is_no_win():
    rows = [dict(round=0, what='PCA', rows=n, fit_s=1., predict_s=0., fit_s_extended=e, predict_s_extended=0.,
                 agreement=1.) for n, e in ((500, .5), (4201, .9), (50_000, 1.1))]
    assert wins_from(sklearn_table(pd.DataFrame(rows))).isna().all()
    assert wins_from(sklearn_table(pd.DataFrame(rows[:2])))['PCA'] == 500


def test_a_step_that_grows_faster_than_linearly_is_named():
    rows = [dict(step=s, n=n, seconds=(n / 500) ** p, base_mb=100., peak_mb=100. + n / 100, note=None)
            for s, p in (('audit', 1.), ('train', 2.)) for n in (500, 5000)]
    table = growth_table(pd.DataFrame(rows))
    assert super_linear(table) == ['train'] and round(table.mb_per_1000['audit'], 6) == 10
    assert synthetic_rows(401).speaker.nunique() == 3


def test_a_measurement_has_the_settings_it_was_given_and_none_of_its_caller(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '7')
    found = in_process('benchmark_training:environment_report', environment=dict(OPENBLAS_NUM_THREADS='1'))
    assert '1 threads' in found['value']['linear algebra and OpenMP']
    assert ', 7 threads' not in found['value']['linear algebra and OpenMP']


def test_a_measurement_that_fails_says_why_in_one_line():
    with pytest.raises(RuntimeError, match='nowhere.*no such file') as e:
        in_process('run_folder:read_metrics', run='nowhere')
    assert len(str(e.value).splitlines()) == 1


def test_environment_yml_names_this_python_and_a_lock_that_is_there():
    env = yaml.safe_load((ROOT/'environment.yml').read_text())
    pip = next(d['pip'] for d in env['dependencies'] if isinstance(d, dict))
    locks = [line.split()[1] for line in pip if line.startswith('-r ')]
    assert env['name'] == 'ser_nb' and 'python=3.11' in env['dependencies'] and 'pip' in env['dependencies']
    assert locks and all((ROOT/lock).is_file() for lock in locks)
    text = (ROOT/locks[0]).read_text()
    assert 'tensorflow==2.15.1' in text and '--hash=sha256' in text and '-e ' not in text


@pytest.mark.slow
def test_the_pip_part_of_environment_yml_installs_into_an_empty_environment(tmp_path):
    env = yaml.safe_load((ROOT/'environment.yml').read_text())
    pip = next(d['pip'] for d in env['dependencies'] if isinstance(d, dict))
    subprocess.run([sys.executable, '-m', 'venv', tmp_path/'env'], check=True)
    python = tmp_path/'env'/'bin'/'python'
    for arguments in (pip[0].split(), ['--no-deps', '--no-build-isolation', '-e', '.']):
        subprocess.run([python, '-m', 'pip', 'install', '-q', *arguments], cwd=ROOT, check=True)
    subprocess.run([python, '-c', 'import ser_nb.pipeline, tensorflow, sklearnex'], cwd=tmp_path, check=True)
