"The wheel: installed without the checkout, used by somebody who cannot write to the installation"
import json
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, no_traceback
from helpers import write_noise

from ser_nb.files import read_json
from ser_nb.pipeline import JOBS
from ser_nb.speech_encoder import encoder_dir, encoder_ready

pytestmark = pytest.mark.jobs

UV = Path(sys.executable).with_name('uv')
NOT_PACKED = shutil.ignore_patterns('.*', 'build', '*.egg-info', 'runs', '_docs', '_proc', 'tests', '__pycache__')


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "The wheel, built from a copy: what an earlier build left in the checkout is not in it"
    if not UV.is_file(): pytest.skip('uv is not installed in this environment')
    source = tmp_path_factory.mktemp('wheel')/'source'
    shutil.copytree(ROOT, source, ignore=NOT_PACKED)
    subprocess.run(
        [UV, 'build', '-q', '--wheel', '--no-build-isolation', '--python', sys.executable, '-o', source.parent, source],
        check=True)
    return next(source.parent.glob('*.whl'))


def install(folder, wheel, *args):
    "An environment of its own with the wheel; nobody may write to it afterwards"
    venv = folder/'venv'
    subprocess.run([UV, 'venv', '-q', '--python', sys.executable, venv], check=True)
    if not args: # the packages of this environment, without the checkout
        packages = next(venv.glob('lib/python*/site-packages'))
        (packages/'locked.pth').write_text('\n'.join(site.getsitepackages()))
    subprocess.run(
        [UV, 'pip', 'install', '-q', *(args or ['--no-deps', '--offline', wheel])], check=True,
        env=os.environ | dict(VIRTUAL_ENV=str(venv)))
    subprocess.run(['chmod', '-R', 'a-w', venv], check=True)
    return venv


class Installed:
    "`ser-nb` of the wheel, for a user who owns one folder and nothing else"
    def __init__(self, folder, venv):
        self.command, self.work, self.home = venv/'bin'/'ser-nb', folder/'work', folder/'home'
        for place in (self.work, self.home): place.mkdir()
        self.home.chmod(0o500)
        # root may write everywhere, so root's rights are given up
        self.as_user = []
        if os.geteuid() == 0: self.as_user = ['setpriv', '--bounding-set=-all', '--inh-caps=-all']
        if self.as_user and not shutil.which('setpriv'): pytest.skip('setpriv is missing: root keeps its rights')

    def __call__(self, *args, cwd=None, **env):
        env = dict(PATH='/usr/bin:/bin', HOME=str(self.home), LANG='C.UTF-8', **env)
        return subprocess.run(
            [*self.as_user, self.command, *map(str, args)], cwd=cwd or self.work, env=env, capture_output=True,
            text=True, timeout=900)


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp('installed')
    app = Installed(folder, install(folder, wheel))
    write_noise(app.work/'a.wav')
    return app


def test_the_wheel_is_used_and_not_the_checkout(installed):
    python = installed.command.with_name('python')
    code = 'import ser_nb, ser_nb.run_folder as r; print(ser_nb.__file__, r.notebooks_dir())'
    done = subprocess.run(
        [python, '-c', code], cwd=installed.work, env=dict(PATH='/usr/bin:/bin'), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(Path(path).is_relative_to(installed.command.parent.parent) for path in done.stdout.split())
    denied = subprocess.run([*installed.as_user, 'touch', python.with_name('x')], capture_output=True)
    assert denied.returncode, 'the installation can be written to: this test shows nothing'


def test_an_installed_command_predicts_with_the_packages_model_whatever_runs_are_in_the_folder(installed):
    other = installed.work/'runs'/'2099-01-01-000000-model'
    other.mkdir(parents=True)
    (other/'model.json').write_text('{}')
    done = installed('predict', 'a.wav', '--json')
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row['file'] == 'a.wav' and abs(sum(row['emotions'].values()) - 1) < 1e-4


def test_an_encoder_in_a_cache_that_cannot_be_written_is_used(installed, tmp_path):
    if not encoder_ready(): pytest.skip("the speech encoder's weights are not here (ser-nb weights)")
    cache = tmp_path/'encoder'
    shutil.copytree(encoder_dir(), cache, ignore=shutil.ignore_patterns('compiled', '.lock'))
    cache.chmod(0o500)
    done = installed('predict', 'a.wav', '--json', '--model', 'encoder', SER_NB_CACHE=str(tmp_path))
    assert done.returncode == 0 and no_traceback(done), done.stderr
    assert installed('weights', SER_NB_CACHE=str(tmp_path)).returncode == 0


def test_a_job_of_the_wheel_runs_and_its_report_is_made_again(installed):
    done = installed('run', 'combine', '--smoke', '--out', 'out')
    assert done.returncode == 0, done.stderr
    assert read_json(installed.work/'out'/'metrics.json')['data']['clips'] > 0
    (installed.work/'out'/'report.html').unlink()
    done = installed('report', 'out')
    assert done.returncode == 0 and (installed.work/'out'/'report.html').is_file(), done.stderr


@pytest.mark.parametrize('args, hint', [
    (['run', 'combine', '--smoke'], '--out DIR'),
    (['weights'], 'SER_NB_CACHE=DIR')])
def test_where_nothing_can_be_written_a_line_names_the_option_that_helps(installed, args, hint):
    done = installed(*args, cwd=installed.home)
    assert done.returncode in (1, 2) and hint in done.stderr and no_traceback(done), done.stderr


@pytest.mark.slow # an environment of several GB
def test_a_fresh_environment_with_the_wheel_alone_trains_predicts_and_reports(wheel, tmp_path):
    extra = 'intel' if Path(sys.prefix).name != '.venv-stock' and sys.platform == 'linux' else 'stock'
    lock = ROOT/'requirements'/f'{extra}.txt'
    app = Installed(tmp_path, install(tmp_path, wheel, f'{wheel}[{extra}]', '-c', lock))
    write_noise(app.work/'a.wav')
    done = app('run', '--smoke', '--out', 'out')
    assert done.returncode == 0, done.stderr
    for job in ('train', 'model'):
        assert (app.work/'out'/'notebooks'/f"{JOBS[job]['notebook']}.ipynb").is_file()
    done = app('predict', 'a.wav', '--run', 'out') # which takes the encoder, whose weights nobody fetched here
    assert done.returncode == 2 and '`ser-nb weights` fetches them' in done.stderr
    done = app('audit', 'out')
    assert done.returncode == 1 and done.stdout.startswith('error: same_sound, 1 clips') # RAVDESS's own double
    for call in (['predict', 'a.wav'], ['report', 'out']):
        done = app(*call)
        assert done.returncode == 0, (call, done.stderr)
