"The README and the pages about the model say what a run measured, nothing else"
import re

import nbclient
import nbformat
import pytest
from conftest import ROOT

from ser_nb.emotion_model import MODELS
from ser_nb.files import fingerprint, read_json
from ser_nb.pipeline import JOBS, RESULTS

pytestmark = pytest.mark.jobs


def markdown(nb):
    return [
        o.data['text/markdown']
        for c in nb.cells
        if c.cell_type == 'code'
        for o in c.outputs
        if 'text/markdown' in o.get('data', {})]


@pytest.mark.parametrize('page', ['index', 'guides/Protocols', 'guides/Model_Card'])
def test_every_figure_is_the_committed_runs(page):
    path = ROOT/'nbs'/f'{page}.ipynb'
    nb = nbformat.read(path, 4)
    stored = markdown(nb)
    nbclient.NotebookClient(nb, kernel_name='python3', resources={'metadata': {'path': str(path.parent)}}).execute()
    assert stored and markdown(nb) == stored, f'{page}: run ser-nb pages --rest'
    readme = (ROOT/'README.md').read_text()
    if page == 'index':
        assert all(re.sub(r'\]\((?!https?:|#)', '](nbs/', text) in readme for text in stored)


def shipped():
    "Name -> fingerprint of each shipped model, as its model.json has it"
    return {p.parent.name: read_json(p)['sha256'] for p in sorted((ROOT/'nbs'/'model').glob('*/model.json'))}


@pytest.mark.parametrize('model, results', [('encoder', 'metrics'), ('functionals', 'metrics_functionals')])
def test_the_scores_that_pages_read_are_of_the_shipped_model(model, results):
    found = read_json(ROOT/'nbs'/'results'/f'{results}.json')['files']
    assert found['model.h5'] == shipped()[model]
    for name, sha256 in found.items(): assert fingerprint(ROOT/'nbs'/'model'/model/name) == sha256, name


def of_shipped(name):
    "Whether results/NAME.json was measured with a model that is shipped now, or one that its job trains now"
    run = read_json(ROOT/'nbs'/'results'/f'{name}.json')
    trained = run['parameters'].get(name, {}).get('model')
    return run['data'].get('model') in shipped().values() or trained in MODELS


def reads(nb, name):
    "Whether a page's code opens results/NAME.json"
    code = '\n'.join(c.source for c in nb.cells if c.cell_type == 'code')
    return 'results/' in code and re.search(r'read_|open\(', code) and re.search(rf'\b{name}\b', code)


def pages_of(name):
    "The job's notebook, and every page whose code opens results/NAME.json"
    jobs = {f"{job['notebook']}.ipynb" for job in JOBS.values()} | {'Pipeline.ipynb'} # it only stores them
    for path in sorted((ROOT/'nbs').rglob('[!.]*.ipynb')):
        nb = nbformat.read(path, 4)
        if path.stem == JOBS[name]['notebook'] or (path.name not in jobs and reads(nb, name)): yield path, nb


@pytest.mark.parametrize('name', [job for job in RESULTS if job not in ('train', 'model', 'baselines')])
def test_a_page_with_figures_of_an_earlier_model_says_so(name):
    "A page of another model than the shipped one names the version whose model it was"
    if of_shipped(name): return
    unnamed = []
    for path, nb in pages_of(name):
        text = '\n'.join([c.source for c in nb.cells if c.cell_type == 'markdown'] + markdown(nb))
        if not re.search(r'version 0\.\d', text): unnamed.append(path.name)
    assert not unnamed, f'results/{name}.json is of an earlier model: run the job again, or say so on these pages'
