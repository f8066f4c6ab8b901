"JupyterLab as a newcomer meets it: open a notebook, pick the kernel, run all cells, see the picture"
import json
import os
import re
import subprocess
import sys
import time

import nbformat
import pytest
from conftest import ROOT, chromium, ser_nb

from ser_nb.pipeline import setup_code, skipped_cells

pytestmark = pytest.mark.browser


@pytest.fixture
def lab(tmp_path):
    "The address of a JupyterLab in an empty folder, with a token, its own settings, and the kernel of `ser-nb kernel`"
    env = os.environ | {
        k: str(tmp_path / v)
        for k, v in dict(
            HOME='home', JUPYTER_DATA_DIR='data', JUPYTER_CONFIG_DIR='config',
            JUPYTER_RUNTIME_DIR='runtime', IPYTHONDIR='ipython', JUPYTERLAB_SETTINGS_DIR='settings',
            JUPYTERLAB_WORKSPACES_DIR='workspaces',
        ).items()}
    assert ser_nb('kernel', env=env).returncode == 0
    for plugin, settings in {
        'notebook-extension/tracker': dict(
            windowingMode='none'
        ),  # all cells are in the page, also those that one would have to scroll to
        'apputils-extension/notification': dict(fetchNews='false', checkForUpdates=False),
    }.items():
        file = tmp_path/'settings'/'@jupyterlab'/f'{plugin}.jupyterlab-settings'
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(settings))
    (tmp_path/'nbs').mkdir()
    with open(tmp_path/'log', 'w') as log:
        server = subprocess.Popen(
            [
                sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1',
                '--port=0', f'--ServerApp.root_dir={tmp_path/"nbs"}'],
            env=env, stdout=log, stderr=log)
    try:
        while not (address := re.search(r'http://127\.0\.0\.1:[1-9]\d*/lab\?token=\w+', (tmp_path/'log').read_text())):
            assert server.poll() is None, (tmp_path/'log').read_text()
            time.sleep(.2)
        yield address[0]
    finally:
        server.terminate()
        try: server.wait(60)
        except subprocess.TimeoutExpired: server.kill() # its kernels notice and end


def copy_to_run(name, folder):
    """A copy without outputs, whose files go to folder/run; the sources of its cells.

    The library's demonstrations are left out, as in a job: `make test` runs them.
    """
    nb = nbformat.read(ROOT/'nbs'/f'{name}.ipynb', 4)
    skipped = skipped_cells(nb.cells)
    for i, cell in enumerate(nb.cells):
        if cell.cell_type == 'code': cell.outputs = []
        if i in skipped: cell.source = setup_code(cell.source)
        if 'parameters' in cell.metadata.get('tags', []):
            cell.source = re.sub("^out = ''", f'out = {str(folder/"run")!r}', cell.source, flags=re.M)
    nbformat.write(nb, folder/'nbs'/f'{name}.ipynb')
    return [cell.source for cell in nb.cells]


def pick_kernel(page, name):
    "Click the kernel's name in the toolbar, then choose from the list, once the lab has started its first kernel"
    page.get_by_text('| Idle').wait_for()
    page.locator('.jp-NotebookPanel-toolbar .jp-KernelName').click()
    page.locator('.jp-Dialog select').select_option(label=name)
    page.locator('.jp-Dialog .jp-mod-accept').click()
    page.get_by_text(f'{name} | Idle').wait_for()


def run_all(page, minutes=20): # less than one of a core, more on a machine that others use
    page.get_by_role('menuitem', name='Run', exact=True).click()
    page.get_by_role('menuitem', name='Run All Cells', exact=True).click()
    done = page.locator('.jp-CodeCell .jp-InputPrompt').last
    red = page.locator('.jp-OutputArea-output[data-mime-type*=stderr], .jp-OutputArea-output[data-mime-type*=error]')
    for _ in range(minutes * 60):
        assert not red.count(), red.first.inner_text()
        if re.search(r'\d', done.inner_text()): return
        page.wait_for_timeout(1000)
    raise AssertionError(f'not done after {minutes} minutes')


@pytest.mark.parametrize('name, drawn, made', [
    ('Combining_Datasets', 'fig = plot_distribution', ['clips.csv', 'figures/distribution.png']),
    pytest.param('Proposed_System', 'fig = plot_confusion', ['article/model.h5', 'figures/article_confusion.png'],
                 marks=pytest.mark.slow)]) # a training; its cells run as a job in tests/test_jobs.py
def test_all_cells_of_a_notebook_run_in_the_lab_and_show_its_picture(lab, tmp_path, name, drawn, made):
    sources = copy_to_run(name, tmp_path)
    with chromium() as browser:
        page = browser.new_page(viewport=dict(width=1280, height=900))
        page.set_default_timeout(120_000)
        page.goto(lab.replace('/lab?', f'/lab/tree/{name}.ipynb?'))
        pick_kernel(page, 'Python (ser_nb)')
        run_all(page)
        cell = next(i for i, source in enumerate(sources) if drawn in source and 'save_figure' in source)
        picture = page.locator('.jp-Notebook .jp-Cell').nth(cell).locator('.jp-RenderedImage img')
        picture.scroll_into_view_if_needed()
        page.screenshot(path=tmp_path/'lab.png')
        assert picture.evaluate('i => i.naturalWidth') > 400
    for file in made: assert (tmp_path/'run'/file).is_file(), file
