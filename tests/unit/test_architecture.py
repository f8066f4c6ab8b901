"The house stays in order: one concept a module, imports one way, no private name across modules, small files in git"
import ast
import importlib
import inspect
import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT

pytestmark = pytest.mark.unit

# design.md's table, from bottom to top: a module imports only from those before it
ORDER = """files run_folder downloads workers containers samples audio fourier corpora name_patterns corpus_adapters
corpus_formats spectral functionals speech_encoder augmentation corruptions feature_store keras_tools
feature_extraction metrics splits validation shortcuts leakage combining_datasets proposed_system emotion_model
out_of_domain adaptation h5_files model_files fine_tuning timing windowing prediction turns streaming onnx_export
timeline demo_gate demo_html demo classifiers tuning ablations baselines ladder robustness report
benchmark_extraction benchmark_training benchmark_encoder benchmark_estimators
benchmark_prediction benchmark_growth benchmark docs pipeline parallel_jobs prediction_lines predict_inputs
predict_folders predict_commands command_line""".split()
DEPRECATED = {'evaluation'} # thin re-exports for one release
MODULES = sorted(p for p in (ROOT/'ser_nb').glob('*.py') if not p.stem.startswith('_'))
MAX_LINES = 400
MAX_BLOB = 1_000_000


def siblings(path):
    "(line, module, names) of every import from another module of the package, wherever it stands"
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom): continue
        module = node.module or ''
        if node.level == 1 or module.startswith('ser_nb'):
            yield node.lineno, module.removeprefix('ser_nb').removeprefix('.'), [a.name for a in node.names]


@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.stem)
def test_imports_point_one_way_so_that_a_module_can_be_read_without_those_above_it(path):
    if path.stem in DEPRECATED: pytest.skip('forwards to the new modules')
    assert path.stem in ORDER, f'{path.stem} has no place in the order of the house'
    wrong = [f'{path.name}:{line} imports {module}' for line, module, _ in siblings(path)
             if module not in ('', path.stem) and module not in ORDER[:ORDER.index(path.stem)]]
    assert not wrong, wrong


@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.stem)
def test_no_module_takes_a_private_name_of_another_so_that_internals_can_change(path):
    wrong = [f'{path.name}:{line} {module}.{name}' for line, module, names in siblings(path) for name in names
             if name.startswith('_') and module != path.stem]
    assert not wrong, wrong


@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.stem)
def test_a_module_is_short_enough_to_read_at_one_sitting(path):
    lines = [
        line
        for line in path.read_text().splitlines()
        if line.strip() and not line.startswith(('# %%', '__all__'))
    ]
    assert len(lines) <= MAX_LINES, f'{path.name}: {len(lines)} lines'


def test_no_exported_name_is_undefined_outside_its_notebook():
    done = subprocess.run([sys.executable, '-m', 'pyflakes', ROOT/'ser_nb'], capture_output=True, text=True)
    assert done.returncode in (0, 1) and 'No module' not in done.stderr, done.stderr
    assert not [line for line in done.stdout.splitlines() if 'undefined name' in line]


IMPORT_ALL = """
import importlib, pathlib, sys, warnings
warnings.simplefilter('ignore')
for name in ('fastcore', 'execnb', 'nbdev'): sys.modules[name] = None # an import of it fails
for path in sorted(pathlib.Path(sys.argv[1]).glob('[a-z]*.py')): importlib.import_module(f'ser_nb.{path.stem}')
"""


def test_the_package_imports_without_the_tools_that_make_it_so_that_a_plain_install_works():
    done = subprocess.run([sys.executable, '-c', IMPORT_ALL, ROOT/'ser_nb'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    settings = (ROOT/'settings.ini').read_text()
    needed = next(line for line in settings.splitlines() if line.startswith('requirements = '))
    assert not re.search('fastcore|execnb|nbdev', needed)


def test_git_stays_small_but_for_the_listed_artefacts():
    if not (ROOT/'.git').exists(): pytest.skip('not a git checkout')
    listed = {line.split('#')[0].strip() for line in (ROOT/'artefacts.txt').read_text().splitlines()}
    tracked = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    large = [f for f in tracked.split('\0') if f and (ROOT/f).exists() and (ROOT/f).stat().st_size > MAX_BLOB]
    assert not set(large) - listed, 'over 1 MB and not in artefacts.txt'


MAX_JOB_LINES = 40
LONGER = {'Benchmark': 110} # no more than now, until its code is in functions


@pytest.mark.parametrize('path', sorted((ROOT/'nbs').glob('[A-Z]*.ipynb')), ids=lambda p: p.stem)
def test_a_job_is_a_short_script_over_exported_functions(path):
    cells = json.loads(path.read_text())['cells']
    start = next(i for i, c in enumerate(cells) if 'parameters' in c['metadata'].get('tags', []))
    code = [''.join(c['source']) for c in cells[start + 1:] if c['cell_type'] == 'code']
    own = '\n'.join(source for source in code if not re.search(r'^#\| *export', source, re.M))
    lines = [line for line in own.splitlines() if line.strip() and not line.strip().startswith('#')]
    assert len(lines) <= LONGER.get(path.stem, MAX_JOB_LINES), f'{path.stem}: {len(lines)} lines after `parameters`'


MAX_CELL_LINES = 30
LONG_CELLS = { # how many longer ones are left; none may be added
    'Predict_Commands': 3, 'Predict_Folders': 1, 'Streaming': 2}


@pytest.mark.parametrize('path', sorted(p for p in (ROOT/'nbs').rglob('[A-Z]*.ipynb') if '/.' not in str(p)),
                         ids=lambda p: p.stem)
def test_an_exported_cell_holds_one_idea(path):
    sources = [''.join(c['source']) for c in json.loads(path.read_text())['cells'] if c['cell_type'] == 'code']
    exported = [source for source in sources if re.search(r'^#\| *exporti?$', source, re.M)]
    def code_of(source): return [l for l in source.splitlines() if l.strip() and not l.startswith('#|')]
    long = [f'{len(cell)} lines: {cell[0]}' for cell in map(code_of, exported) if len(cell) > MAX_CELL_LINES]
    assert len(long) <= LONG_CELLS.get(path.stem, 0), long


def functions():
    "(module.name, function) of every exported function; a command of click has its help instead"
    for stem in ORDER:
        module = importlib.import_module(f'ser_nb.{stem}')
        for name in module.__all__:
            function = inspect.unwrap(getattr(module, name)) if callable(getattr(module, name)) else None
            if inspect.isfunction(function): yield f'{stem}.{name}', function


def test_what_a_function_takes_and_returns_is_on_its_page_so_that_nobody_has_to_read_the_source():
    from fastcore.docments import docments as comments_of  # codespell:ignore docments
    lost = [f'{path.name}:{number} {line.strip()}' for path in MODULES
            for number, line in enumerate(path.read_text().splitlines(), 1)
            if re.match(r' *(def \w+\((self)?)?\): *#', line)]
    assert not lost, 'no page shows the comment of a return without `->`'
    starred = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    bare = []
    for name, function in functions():
        comments = comments_of(function)
        bare += [f'{name}: {parameter.name}' for parameter in inspect.signature(function).parameters.values()
                 if parameter.kind not in starred and parameter.name != 'self' and not comments[parameter.name]]
    assert not bare, 'parameters without a comment'
