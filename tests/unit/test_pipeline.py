"Jobs and the command: what is wrong is refused at once, and a job needs nothing of the story before it"
import io
import json
import subprocess
import sys

import click
import numpy as np
import pytest
import soundfile as sf
from conftest import ROOT
from helpers import command

from ser_nb.corpora import read_clips
from ser_nb.pipeline import JOBS, job_parameters, notebook_path, plan, setup_code, skipped_cells

pytestmark = pytest.mark.unit
COMMAND = [
    sys.executable, '-c',
    "import sys; sys.argv[0] = 'ser-nb'; from ser_nb.command_line import main_entry; main_entry()"]


@pytest.mark.parametrize('job', JOBS)
def test_a_job_uses_no_name_that_only_its_story_defines(job):
    cells = json.loads(notebook_path(job).read_text())['cells']
    skipped = skipped_cells(cells)
    code = []
    for i, c in enumerate(cells):
        source = ''.join(c['source'])
        if c['cell_type'] == 'code': code.append(setup_code(source) if i in skipped else source)
    shared = [line for source in code for line in source.splitlines() if not line.startswith(('%', '!'))]
    done = subprocess.run([sys.executable, '-m', 'pyflakes'], input='\n'.join(shared), capture_output=True, text=True)
    wrong = sorted(
        {
            line.split('undefined name')[1].strip()
            for line in done.stdout.splitlines()
            if 'undefined name' in line}
        - {"'display'", "'__file__'"})
    assert not wrong, f'{job}: {", ".join(wrong)}'


WRONG_CALLS = [ # `OUT` is a run folder that is not there, `IN` a folder with a table that lacks a column
    ('run trian', "no job 'trian'; did you mean 'train'?"),
    ('run train -p epoch 3', "no parameter 'epoch'; did you mean 'epochs'?"),
    ('run train -p features_dir nowhere', 'features_dir: nowhere: there is no such file or folder'),
    ('run extract --data nowhere', '--data: nowhere: there is no such file or folder'),
    ('run --out IN/clips.csv', 'is a file, not a folder'),
    ('run ladde --out OUT', "no job 'ladde'; did you mean 'ladder'?"),
    ('run model -p modl x --out OUT', "no parameter 'modl'; did you mean 'model'?"),
    ('run model -p seed many --out OUT', "seed: 'many' is not a whole number"),
    ('run model -p model oracle --out OUT', "model: 'oracle' is none of encoder, functionals"),
    ('run model -p splits -1 --out OUT', 'splits: -1 is too low: 0 or more'),
    ('run ladder -p model oracle --out OUT', "model: 'oracle' is none of 1nn, functionals, article"),
    ('run extract -p output xlsx --out OUT', "output: 'xlsx' is none of csv, parquet"),
    ('run combine --data /nowhere --out OUT', '--data: /nowhere: there is no such file or folder'),
    ('run combine --data IN/clips.csv --out OUT', "column 'speaker' is missing"),
    ('run combine --data IN/sound.csv --out OUT', 'not a clip table'),
    ('run model -p features_dir IN --out OUT', 'no train_features.csv in it'),
    ('run model --out IN/clips.csv', 'is a file, not a folder'),
    ('corpus /nowhere --out OUT', '/nowhere: there is no such file or folder'),
    ('corpus IN --map joy --out OUT', '--map joy: not of the form WORD=EMOTION'),
    ('corpus IN --pattern {emotion --out OUT', 'a brace without its counterpart'),
    ('corpus IN --pattern {speaker}_{take} --out OUT', 'no field {emotion}'),
    ('corpus IN --folders speaker --out OUT', 'no level is the emotion'),
    ('audit /nowhere', '/nowhere: there is no such file or folder'),
    ('report /nowhere', '/nowhere'), ('predict /nowhere', '/nowhere: there is no such file')]
HEAVY = """import sys
from click.testing import CliRunner
from ser_nb.command_line import main
done = CliRunner().invoke(main, sys.argv[1:])
heavy = 'papermill numpy pandas scipy sklearn tensorflow openvino librosa nbformat jupyter_client IPython'.split()
print(done.exit_code, [m for m in heavy if m in sys.modules], done.output)"""


@pytest.mark.parametrize('call, named', WRONG_CALLS, ids=[call for call, _ in WRONG_CALLS])
def test_a_wrong_call_imports_nothing_heavy_and_makes_nothing(call, named, tmp_path):
    (tmp_path/'in').mkdir()
    (tmp_path/'in'/'clips.csv').write_text('path,emotion\nx.wav,sad\n')
    (tmp_path/'in'/'sound.csv').write_bytes(b'RIFF\xff\xfe\x00')
    def there(): return sorted([*tmp_path.rglob('*'), *(ROOT/'runs').glob('*')])
    before = there()
    args = call.replace('OUT', str(tmp_path/'out')).replace('IN', str(tmp_path/'in')).split()
    done = subprocess.run([sys.executable, '-c', HEAVY, *args], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith(('2 []', '1 []')) and named in done.stdout, done.stdout + done.stderr
    assert there() == before


@pytest.mark.parametrize('job', JOBS)
def test_help_of_a_job_lists_its_parameters(job):
    code, out, _ = command('run', job, '--help')
    assert code == 0 and JOBS[job]['notebook'] in out
    for name, parameter in job_parameters(job).items():
        assert f"{name}  {parameter['type']}" in out


def test_closed_or_full_standard_output_is_a_failure_of_one_line():
    for where in ('>&-', '> /dev/full'):
        call = ['bash', '-c', f'"$@" {where}', 'bash', *COMMAND, '--help']
        done = subprocess.run(call, capture_output=True, text=True)
        assert done.returncode == 1 and len(done.stderr.splitlines()) <= 1, done


def test_closed_standard_input_is_a_failure_of_one_line():
    call = ['bash', '-c', '"$@" <&-', 'bash', *COMMAND, 'predict', '-']
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == 'Error: -: standard input is closed', done


def test_what_a_decoder_prints_of_a_broken_file_is_not_in_the_output(tmp_path):
    sf.write(sds := io.BytesIO(), np.random.default_rng(0).uniform(-.3, .3, 9000), 22050, format='SDS')
    content = bytearray(sds.getvalue())
    content[21 + 127] = 0 # where a packet begins: libsndfile prints what it found
    (tmp_path/'a.sds').write_bytes(content)
    call = [*COMMAND, 'predict', str(tmp_path/'a.sds'), '--json', '--model', 'functionals']
    done = subprocess.run(call, capture_output=True, text=True)
    assert [json.loads(line)['file'] for line in done.stdout.splitlines()] == [str(tmp_path/'a.sds')], done
    assert 'Error' in done.stderr # of libsndfile


def test_a_name_with_control_characters_is_escaped_on_the_terminal():
    code, out, said = command('run', 'train', '-p', 'features_dir', '/no\x1b[2Jwhere')
    assert code == 2 and '\x1b' not in out + said and r'\x1b' in said


def test_two_forms_of_output_at_once_are_refused():
    code, _, said = command('predict', 'x.wav', '--json', '--csv')
    assert code == 2 and '--json and --csv' in said


def test_without_arguments_the_command_says_what_to_do_next():
    code, out, _ = command()
    assert code == 0 and 'ser-nb run' in out and len(out.splitlines()) < 12


def test_the_command_of_version_0_1_still_starts():
    done = subprocess.run(
        [
            sys.executable, '-c',
            "import sys; sys.argv = ['ser-nb', '--version']\nfrom ser_nb.pipeline import main; main()"],
        capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and 'version' in done.stdout


def test_a_table_saved_by_a_spreadsheet_is_taken_and_one_with_semicolons_is_told_so(tmp_path):
    rows = 'path,emotion,speaker\na.wav,joy,s\n'
    (tmp_path/'own.csv').write_bytes(b'\xef\xbb\xbf' + rows.encode())
    plan(['combine'], data=str(tmp_path/'own.csv'))
    assert read_clips(tmp_path/'own.csv').emotion.tolist() == ['joy']
    for separator, name in ((';', 'semicolons'), ('\t', 'tabs')):
        (tmp_path/'own.csv').write_text(rows.replace(',', separator))
        with pytest.raises(click.UsageError, match=f'{name} separate its columns, and commas should'):
            plan(['combine'], data=str(tmp_path/'own.csv'))


def test_paths_of_a_call_are_those_of_its_folder_and_not_of_the_notebooks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'my.toml').touch()
    (_, given), = plan(['combine'], [('adapters', 'my.toml')])
    assert given['adapters'] == str(tmp_path/'my.toml')
    for value, taken in (('mycache', str(tmp_path/'mycache')), ('', ''), ('none', 'none')):
        (_, given), = plan(['extract'], [('cache', value)])
        assert given['cache'] == taken
    with pytest.raises(click.UsageError, match='adapters: no.toml: there is no such file'):
        plan(['combine'], [('adapters', 'no.toml')])
